"""`fusefs push TARGET`: put a version on a remote, so that `dvc pull` and every `fusefs mount` find it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Final

from fusefs.cli import print_error
from fusefs.cli.commit import TerminalProgress, format_size
from fusefs.cli.target_flags import add_jobs_flag, add_place_flags, add_trust_flag
from fusefs.dataset import Dataset, Request, open_dataset
from fusefs.fetching import kind_of
from fusefs.interruption import Interrupted, interruptible
from fusefs.logs import escape
from fusefs.mount_options import argument_type, parse_remote
from fusefs.pushing import Errand, Plan, plan_push
from fusefs.remote_logs import copy_to_others, open_journal, publish_changes, writer_of_dataset
from store.cache_chain import CacheChain
from store.errors import RemoteError
from store.local_cache import LocalCache
from store.oplog.push_log import PushLog
from store.pushing.content_push import ContentPush
from store.pushing.push import Push
from store.pushing.sending import JOBS, MOST_JOBS, Tally
from store.remotes.opening import open_remote

EPILOG = """\
TARGET is what `fusefs mount` takes. What the remote has already is not sent again, and what was interrupted
goes on where it ended. A directory's manifest is put when all of its files are there.

--layout content puts small files into archives and large ones in parts that versions share: fewer requests,
and a small change moves little. fusefs reads both layouts, also on one remote; `dvc pull` reads its own only.
What the remote has in DVC's layout is not sent again, and read from there; with --in-both it is, so that all
of the version lies in content directories. --layout dvc sends what lies only there, too: `dvc pull` needs it.

examples:
  fusefs push data
  fusefs push data --layout content
  fusefs push data@v1.0 --remote backup
  fusefs push data.dvc --remote s3://bucket/path
"""


Kind = Callable[..., Push | ContentPush]
LAYOUTS: Final[dict[str, Kind]] = {"dvc": Push, "content": ContentPush}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "push",
        help="put a version on a remote",
        description="Put on a remote what it lacks of a version. Exit status 1 where not all gets there.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="TARGET", help="the version; also TARGET@REV")
    parser.add_argument(
        "--remote",
        metavar="NAME|URL",
        type=argument_type(parse_remote),
        help="put it there (default: the remote that the output names, or the default one)",
    )
    add_place_flags(parser)
    add_trust_flag(parser)
    add_jobs_flag(parser, JOBS, MOST_JOBS, f"objects that are sent at once (default: {JOBS})")
    parser.add_argument(
        "--layout",
        choices=tuple(LAYOUTS),
        default="dvc",
        help="how it lies there: as `dvc pull` finds it, or in content directories (default: dvc)",
    )
    parser.add_argument(
        "--in-both",
        action="store_true",
        help="with --layout content: put there also what the remote has in DVC's layout",
    )
    parser.add_argument("--json", action="store_true", help="print one object about it")


def run(options: argparse.Namespace) -> int:
    """Push; 0 when all is there. Raises `StoreError` for everything foreseen."""
    started = time.monotonic()
    if options.in_both and options.layout != "content":
        print_error("--in-both is for --layout content")
        return 2
    request = Request(
        options.target,
        cache=options.cache,
        rev=options.rev,
        repo=options.repo,
        push_to=options.remote or "",
        trust=options.trust,
    )
    dataset = open_dataset(request)
    plan = plan_push(dataset, options.remote or "")
    for line in (*dataset.warnings, *plan.notes):
        print_error(f"warning: {line}")
    watched = not options.json and sys.stderr.isatty()
    outcome = Outcome(dataset, plan)
    status = 0
    try:
        with interruptible():
            made = partial(ContentPush, in_both=True) if options.in_both else LAYOUTS[options.layout]
            outcome.push(made, options.jobs, TerminalProgress() if watched else None)
    except Interrupted as interrupted:
        outcome.interrupted = True
        status = interrupted.status
    for line in outcome.notes:
        print_error(f"warning: {line}")
    seconds = time.monotonic() - started
    if options.json:
        print(json.dumps(outcome.describe(seconds)))
    else:
        print(escape(outcome.summarize(seconds)))
    for kind, (count, example) in outcome.failures().items():
        print_error(f"{kind}: {_count(count)}, such as {example}")
    for error in outcome.refusals:
        print_error(str(error))
    return status or (1 if outcome.refusals or outcome.failures() else 0)


class Outcome:
    """A push to one remote or to several, and what became of it."""

    def __init__(self, dataset: Dataset, plan: Plan) -> None:
        self.interrupted = False
        self.refusals: list[RemoteError] = []
        """Why remotes were given up."""
        self.notes: list[str] = []
        """What has to be said of the remotes' logs."""
        self._dataset = dataset
        self._plan = plan
        self._writer = writer_of_dataset(dataset)
        self._tallies: list[Tally] = []

    def push(self, kind: Kind, jobs: int, progress: TerminalProgress | None) -> None:
        """Push to one remote after another. What was put stays, whatever ends it."""
        caches = CacheChain(*[LocalCache(root) for root in self._dataset.caches])
        with closing(caches):
            for errand in self._plan.errands:
                with self._shown(progress) as tick:
                    self._push_one(caches, errand, kind, jobs, tick)
        publish_changes(self._dataset)

    def _push_one(self, caches: CacheChain, errand: Errand, kind: Kind, jobs: int, tick: Any) -> None:
        remote = open_remote(errand.remote)
        with closing(remote.storage):
            journal = open_journal(errand.remote, remote.storage, self._dataset.cache, self._writer)
            log = PushLog(journal)
            push = kind(caches, remote, told=self._plan.told, log=log, jobs=jobs, tick=tick)
            self._tallies.append(push.tally)
            try:
                with log.running():
                    push.run(errand.oids)
            except RemoteError as error:
                self.refusals.append(error)
            self.notes += dict.fromkeys(journal.notes)
            journal.copies.compile(journal.key)
            copy_to_others(journal, journal.written, self._dataset.remotes)

    @contextmanager
    def _shown(self, progress: TerminalProgress | None) -> Iterator[Any]:
        if progress is None:
            yield lambda: None
            return
        begun = False

        def tick() -> None:
            nonlocal begun
            tally = self._tallies[-1]
            if not begun and tally.lacking:
                progress.begin(tally.lacking, tally.lacking_bytes)
                begun = True
            if begun:
                progress.expect(tally.lacking, max(tally.lacking_bytes, tally.sent))
                progress.update(tally.pushed, tally.sent)

        try:
            yield tick
        finally:
            progress.end()

    def failures(self) -> dict[str, tuple[int, str]]:
        """Kind → how many objects, and what was said of one of them."""
        found: dict[str, tuple[int, str]] = {}
        for tally in self._tallies:
            for failure in tally.failures:
                kind = kind_of(failure.error)
                count, example = found.get(kind, (0, str(failure.error)))
                found[kind] = (count + 1, example)
        return found

    def describe(self, seconds: float) -> dict[str, Any]:
        """What `--json` prints; `bytes` and `seconds` are numbers."""
        return {
            "target": self._dataset.target,
            "oid": self._dataset.oid or None,
            "rev": self._dataset.rev or None,
            "remotes": [errand.remote.name for errand in self._plan.errands],
            "objects": sum(tally.objects for tally in self._tallies),
            "there": sum(tally.there for tally in self._tallies),
            "pushed": sum(tally.pushed for tally in self._tallies),
            "bytes": sum(tally.bytes for tally in self._tallies),
            "failed": sum(len(tally.failures) for tally in self._tallies),
            "failures": {
                kind: {"objects": count, "example": example}
                for kind, (count, example) in self.failures().items()
            },
            "refused": [str(error) for error in self.refusals],
            "interrupted": self.interrupted,
            "seconds": round(seconds, 3),
        }

    def summarize(self, seconds: float) -> str:
        """A line for people."""
        told = self.describe(seconds)
        where = ", ".join(told["remotes"])
        parts = [f"pushed {_count(told['pushed'])} ({format_size(told['bytes'])}) to {where}"]
        parts.append(f"{told['there']} {'was' if told['there'] == 1 else 'were'} there")
        if told["failed"]:
            parts.append(f"{told['failed']} failed")
        if self.interrupted:
            parts.append("interrupted")
        return f"{', '.join(parts)}; {seconds:.1f} s"


def _count(objects: int) -> str:
    return f"{objects} object{'s' * (objects != 1)}"
