"""`fusefs fetch TARGET`: bring a version, or some of its files, into the cache, without a mount."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import trio

from fusefs.cli import print_error
from fusefs.cli.commit import TerminalProgress, format_size
from fusefs.cli.target_flags import (
    add_jobs_flag,
    add_only_flag,
    add_place_flags,
    add_remote_flags,
    make_request,
)
from fusefs.dataset import Dataset, Request, open_dataset
from fusefs.directories import blob_directory, cache_directory
from fusefs.fetching import JOBS, MOST_JOBS, SILENT_SECONDS, Tally, fetch_files, kind_of
from fusefs.lacking_manifests import bring_manifests
from fusefs.logs import escape
from fusefs.mount_options import argument_type, parse_cache_size
from fusefs.remote_logs import publish_changes
from store.budget import Limits
from store.engine import Engine, Settings, open_engine
from store.learnt_sizes import kept_path
from store.remotes.opening import open_remote
from store.remotes.spec import RemoteSpec
from store.tree import Tree
from store.tree_files import TreeFiles
from store.tree_glob import find_files

TICK_SECONDS: Final = 0.2
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

EPILOG = """\
TARGET is what `fusefs mount` takes. What comes lies where `dvc fetch` would put it: `dvc checkout` finds it.
What is here already is not asked for, and what was interrupted goes on where it ended.

examples:
  fusefs fetch data
  fusefs fetch data@v1.0 --only 'train/*.jpg' --only labels
  fusefs fetch --repo https://example.org/team/project.git data@main --cache /srv/cache
  fusefs fetch data --remote s3://bucket/path --cache-free 50G
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "fetch",
        help="bring a version, or a part of it, into the cache",
        description="Bring the files of a version into the cache. Exit status 1 where some cannot be had.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="TARGET", help="the version; also TARGET@REV")
    add_only_flag(parser)
    add_place_flags(parser)
    add_remote_flags(parser)
    size = argument_type(parse_cache_size)
    parser.add_argument(
        "--cache-size",
        metavar="SIZE",
        type=size,
        default=0,
        help="keep at most so much of what was ever fetched: older things go, then nothing more is kept",
    )
    parser.add_argument(
        "--cache-free",
        metavar="SIZE",
        type=size,
        default=0,
        help="leave so much free on the cache's disk",
    )
    add_jobs_flag(parser, JOBS, MOST_JOBS, f"files that are asked for at once (default: {JOBS})")
    parser.add_argument("--json", action="store_true", help="print one object about it")


def run(options: argparse.Namespace) -> int:
    started = time.monotonic()
    request = make_request(options, options.target, options.rev)
    dataset = open_dataset(request)
    for warning in dataset.warnings:
        print_error(f"warning: {warning}")
    assert dataset.tree is not None  # only revisions side by side have none
    tree = Tree.open(dataset.tree)
    rows = find_files(tree, options.only, options.target)
    # What goes wrong with a file is said at the end, by classes, and not as it happens.
    logging.getLogger("store").addHandler(logging.NullHandler())
    watched = not options.json and sys.stderr.isatty()
    fetch = Fetch(request, dataset, tree, Limits(options.cache_size, options.cache_free))
    for error in bring_manifests(dataset, offline=options.offline).values():
        fetch.tally.fail(kind_of(error), str(error))
    trio.run(partial(fetch.run, rows, options.jobs, TerminalProgress() if watched else None))
    if not options.offline:
        publish_changes(dataset)
    if options.json:
        print(json.dumps(fetch.describe(time.monotonic() - started)))
    else:
        print(escape(fetch.summarize(time.monotonic() - started)))
    for kind, failure in fetch.tally.failures.items():
        print_error(f"{kind}: {_count(failure.files)}, such as {failure.example}")
    if fetch.tally.gave_up:
        print_error(
            f"gave up: no remote has answered for {SILENT_SECONDS / 60:.0f} minutes; "
            "what came stays, and the same command goes on"
        )
    if fetch.signal:
        return 128 + fetch.signal
    return 1 if fetch.tally.failed else 0


class Fetch:
    """One fetch: what is fetched, and what became of it."""

    def __init__(self, request: Request, dataset: Dataset, tree: Tree, limits: Limits) -> None:
        self.tally = Tally()
        self.signal = 0
        """That has ended it early; 0 for none."""
        self._request = request
        self._dataset = dataset
        self._tree = tree
        self._limits = limits
        self._remotes: list[str] = []

    async def run(self, rows: Sequence[int], jobs: int, progress: TerminalProgress | None) -> None:
        """Fetch until all is done, or a signal ends it. What has come stays."""
        dataset = self._dataset
        settings = Settings(
            caches=dataset.caches,
            blobs=blob_directory(),
            own=cache_directory(),
            limits=self._limits,
            offline=self._request.offline,
            courier=True,
        )
        async with open_engine(settings, open_remote) as engine:
            assert dataset.tree is not None
            files = TreeFiles(
                self._tree,
                engine.store,
                finder=engine.finder,
                remotes=engine.remote_set(dataset.remotes, partial(self._refresh, engine)),
                kept=kept_path(dataset.tree),
            )
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._obey_signals, nursery.cancel_scope)
                    received = engine.metrics.bytes_received
                    if progress is not None:
                        nursery.start_soon(self._show, progress, received)
                    drain = engine.drain
                    await fetch_files(files, rows, self.tally, jobs=jobs, drain=drain, received=received)
                    nursery.cancel_scope.cancel()
            finally:
                self._remotes = [
                    name for name, remote in engine.metrics.remotes().items() if remote.figures().bytes
                ]
                files.keep_sizes()

    async def _refresh(self, engine: Engine) -> Sequence[RemoteSpec]:
        """The remotes as they are configured now: a denial may be due to credentials of yesterday."""
        return (await engine.threads.on_disk(open_dataset, self._request)).remotes

    async def _obey_signals(self, scope: trio.CancelScope) -> None:
        wanted = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
        with trio.open_signal_receiver(*wanted) as signals:
            async for number in signals:
                self.signal = number
                scope.cancel()
                return

    async def _show(self, progress: TerminalProgress, received: Callable[[], int]) -> None:
        tally = self.tally
        begun = False
        try:
            while True:
                await trio.sleep(TICK_SECONDS)
                if not begun and tally.left:
                    progress.begin(tally.files, 0)
                    begun = True
                if begun:
                    came = received()
                    mean = tally.bytes / tally.fetched if tally.fetched else 0
                    total = max(tally.bytes + tally.bytes_left, came) + round(tally.left_unknown * mean)
                    progress.expect(tally.files, total)
                    progress.update(tally.files - tally.left, came)
        finally:
            progress.end()

    def describe(self, seconds: float) -> dict[str, Any]:
        """What `--json` prints; `bytes` and `seconds` are numbers."""
        tally = self.tally
        return {
            "target": self._dataset.target,
            "oid": self._dataset.oid or None,
            "rev": self._dataset.rev or None,
            "cache": str(self._dataset.cache),
            "fetched": tally.fetched,
            "bytes": tally.bytes,
            "remotes": self._remotes,
            "here": tally.here,
            "failed": tally.failed,
            "failures": {
                kind: {"files": failure.files, "example": failure.example}
                for kind, failure in tally.failures.items()
            },
            "gave_up": tally.gave_up,
            "interrupted": bool(self.signal),
            "seconds": round(seconds, 3),
        }

    def summarize(self, seconds: float) -> str:
        """A line for people."""
        tally = self.tally
        source = f" from {', '.join(self._remotes)}" if self._remotes and tally.fetched else ""
        parts = [f"fetched {_count(tally.fetched)} ({format_size(tally.bytes)}){source}"]
        parts.append(f"{tally.here} {'was' if tally.here == 1 else 'were'} here")
        if tally.failed:
            parts.append(f"{tally.failed} failed")
        if self.signal:
            parts.append(f"{tally.left} still missing: interrupted")
        return f"{', '.join(parts)}; {seconds:.1f} s"


def _count(files: int) -> str:
    return f"{files} file{'s' * (files != 1)}"
