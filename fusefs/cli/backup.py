"""`fusefs backup TARGET… FILE`: versions, with everything that they are made of, as one file."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import trio

from fusefs.backing_up import Contents, gather, record_outputs
from fusefs.cli import print_error
from fusefs.cli.commit import TerminalProgress, format_size
from fusefs.cli.fetch import Fetch
from fusefs.cli.target_flags import add_place_flags, add_remote_flags, make_request
from fusefs.dataset import Dataset, Request, open_dataset
from fusefs.fetching import JOBS
from fusefs.interruption import Interrupted, interruptible
from fusefs.lacking_manifests import bring_manifests
from fusefs.logs import escape
from store.backup.format import Recorded
from store.backup.writing import write_backup
from store.budget import Limits
from store.cache_chain import CacheChain
from store.errors import InputError, ObjectMissing
from store.local_cache import LocalCache
from store.new_file import new_file
from store.tree import Tree

EPILOG = """\
The backup is a tar archive: manifests and objects, each once, as a cache has them, and before them what is
to be known of the versions. What is not here is fetched first, and every byte is held against its hash. The
folder that was once committed is not needed. FILE `-` is standard output.

With --derived the frames and chunks that are in the cache go along, of views that were used with it.
With --since only what REV does not have is written; `fusefs restore` wants the backup of REV restored before.

examples:
  fusefs backup data@v1 data@v2 data.fusefs
  fusefs backup . everything.fusefs                 a project: all that its metafiles track
  fusefs backup data@v3 --since v2 data-v3.fusefs
  fusefs backup clips/a.mp4 --format cvat a.zip     a video, or a folder of images, for CVAT to import
  fusefs backup data - | ssh elsewhere 'cat > data.fusefs'
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "backup",
        help="write versions, with everything in them, to one file",
        description="Write versions to one file that needs nothing else to be restored.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", metavar="TARGET", nargs="+", help="a version; also TARGET@REV")
    parser.add_argument(
        "file", metavar="FILE", help="the backup, which must not be there yet; - for standard output"
    )
    parser.add_argument(
        "--format",
        choices=("fusefs", "cvat"),
        default="fusefs",
        help="cvat: a zip that CVAT imports, of a task, or of a project where there are several targets",
    )
    parser.add_argument("--since", metavar="REV", default="", help="leave out what REV of the targets has")
    parser.add_argument(
        "--derived", action="store_true", help="also write what was made of videos and images and is here"
    )
    add_place_flags(parser, rev=False)
    add_remote_flags(parser)
    parser.add_argument("--json", action="store_true", help="print one object about what was written")


@dataclass(frozen=True, slots=True)
class _Opened:
    """A version that was named."""

    request: Request
    dataset: Dataset
    name: str
    """The revision as the user called it."""


def run(options: argparse.Namespace) -> int:
    started = time.monotonic()
    if options.file != "-" and os.path.lexists(options.file):
        raise InputError(f"{options.file} is there already; remove it, or choose another name")
    if options.file == "-" and options.json:
        raise InputError("--json and the backup cannot both go to standard output")
    if options.format == "cvat" and (options.since or options.derived):
        raise InputError("a backup for CVAT holds all of a task and nothing that was made of it")
    wanted = [_open(options, target, _split(target)[1]) for target in options.targets]
    before = [
        _open(options, _without_revision(t), options.since, options.since)
        for t in options.targets
        if options.since
    ]
    for opened in (*wanted, *before):
        for warning in opened.dataset.warnings:
            print_error(f"warning: {warning}")
    caches = [cache for opened in (*wanted, *before) for cache in opened.dataset.caches]
    chain = CacheChain(*[LocalCache(cache) for cache in dict.fromkeys(caches)])
    try:
        with interruptible():
            if options.format == "cvat":
                return _write_cvat(options, wanted, chain, started)
            outputs = _record(wanted)
            datasets = [opened.dataset for opened in (*wanted, *before)]
            contents = _gather(outputs, _record(before), datasets, chain, wanted)
            if options.derived:
                contents = _derive(contents, wanted)
            with _new_file(options.file) as file:
                _write(contents, chain, file, quiet=options.json)
    except Interrupted as interrupted:
        return interrupted.status
    finally:
        chain.close()
    seconds = time.monotonic() - started
    if options.json:
        print(json.dumps(_describe(options.file, contents, seconds)))
    else:
        header = contents.header
        derived = f", {_count(header.products, 'product')} ({format_size(header.product_bytes)})"
        print_error(
            f"{options.file}: {_count(len(outputs), 'version')}, {_count(header.objects, 'object')} "
            f"({format_size(header.content_bytes)}){derived if options.derived else ''}; {seconds:.1f} s"
        )
    return 0


def _split(target: str) -> tuple[str, str]:
    """A target's path and revision, for what is said of it; the dataset's opening decides by itself."""
    path, _, rev = target.rpartition("@")
    return (path, rev) if path else (target, "")


def _without_revision(target: str) -> str:
    return target if os.path.lexists(target) else _split(target)[0]


def _open(options: argparse.Namespace, target: str, name: str, rev: str = "") -> _Opened:
    request = make_request(options, target, rev)
    return _Opened(request, open_dataset(request), name)


def _record(opened: Sequence[_Opened]) -> tuple[Recorded, ...]:
    return tuple(dict.fromkeys(output for one in opened for output in record_outputs(one.dataset, one.name)))


def _gather(
    outputs: Sequence[Recorded],
    before: Sequence[Recorded],
    datasets: Sequence[Dataset],
    cache: CacheChain,
    wanted: Sequence[_Opened],
) -> Contents:
    """What goes into the backup; fetched, where it is not here."""
    try:
        return gather(outputs, before, datasets, cache)
    except ObjectMissing:
        for dataset in datasets:  # those of versions that are left out, too
            for error in bring_manifests(dataset, offline=wanted[0].request.offline).values():
                print_error(str(error))
        for opened in wanted:
            _fetch(opened)
        return gather(outputs, before, datasets, cache)


def _write_cvat(
    options: argparse.Namespace, wanted: Sequence[_Opened], cache: CacheChain, started: float
) -> int:
    from fusefs.cvat_backup import plan  # what decodes is slow to import
    from store.backup.cvat.writing import write_zip

    versions = [(opened.request, opened.dataset) for opened in wanted]
    try:
        planned = plan(versions, cache)
    except ObjectMissing:
        for opened in wanted:
            _fetch(opened)
        planned = plan(versions, cache)
    for warning in planned.warnings:
        print_error(f"warning: {escape(warning)}")
    with _new_file(options.file) as file, _told(len(planned.members), planned.bytes, options.json) as told:
        write_zip(planned.members, cache, file, told)
        file.flush()
    seconds = time.monotonic() - started
    if options.json:
        described: dict[str, Any] = {"file": str(Path(options.file).absolute()), "tasks": planned.tasks}
        described |= {"files": len(planned.members), "bytes": planned.bytes, "seconds": round(seconds, 3)}
        print(json.dumps(described))
    else:
        counted = f"{_count(len(planned.tasks), 'task')}, {_count(len(planned.members), 'file')}"
        print_error(f"{options.file}: {counted} ({format_size(planned.bytes)}); {seconds:.1f} s")
    return 0


def _derive(contents: Contents, wanted: Sequence[_Opened]) -> Contents:
    """With the products that are here."""
    from fusefs.derived import find_products  # what decodes is slow to import

    found = [find_products(opened.request, opened.dataset) for opened in wanted]
    views = [view for derived in found for view in derived.views]
    return contents.with_products(views, [kept for derived in found for kept in derived.products])


def _fetch(opened: _Opened) -> None:
    dataset = opened.dataset
    if not dataset.remotes or dataset.tree is None:
        return
    tree = Tree.open(dataset.tree)
    fetch = Fetch(opened.request, dataset, tree, Limits(0, 0))
    rows = [row for row in range(tree.rows) if not tree.is_directory(row)]
    trio.run(partial(fetch.run, rows, JOBS, TerminalProgress() if sys.stderr.isatty() else None))
    for kind, failure in fetch.tally.failures.items():
        print_error(f"{kind}: {_count(failure.files, 'file')}, such as {failure.example}")


def _write(contents: Contents, cache: CacheChain, file: BinaryIO, *, quiet: bool) -> None:
    with _told(contents.header.members, contents.header.all_bytes, quiet) as told:
        write_backup(contents.header, contents.objects, contents.products, cache, file, told)
        file.flush()


@contextlib.contextmanager
def _told(members: int, size: int, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Shows how the writing gets on, and says in a line why it does not."""
    progress = TerminalProgress() if sys.stderr.isatty() and not quiet else None
    if progress is not None:
        progress.begin(members, size)
    try:
        yield progress.update if progress is not None else lambda *_: None
    except BrokenPipeError:
        raise InputError("nobody reads the backup any more: the other end of the pipe was closed") from None
    except OSError as error:
        raise InputError(f"the backup cannot be written: {error.strerror}") from None
    finally:
        if progress is not None:
            progress.end()


@contextlib.contextmanager
def _new_file(name: str) -> Iterator[BinaryIO]:
    """The backup's file, which appears under its name when it is whole and on the disk."""
    if name == "-":
        yield sys.stdout.buffer
        return
    try:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(new_file(Path(name).absolute()))
            except OSError as error:
                raise InputError(f"cannot write {name}: {error.strerror}") from None
            yield file
    except FileExistsError:
        raise InputError(f"{name} is there meanwhile; the backup was not written") from None


def _describe(name: str, contents: Contents, seconds: float) -> dict[str, Any]:
    """What `--json` prints; `bytes` and `seconds` are numbers."""
    header = contents.header
    return {
        "file": str(Path(name).absolute()),
        "versions": [
            {"path": output.path, "oid": str(output.oid), "rev": output.revision.oid or None}
            for output in header.outputs
        ],
        "since": [str(oid) for oid in header.since],
        "objects": header.objects,
        "bytes": header.content_bytes,
        "views": list(header.views),
        "products": header.products,
        "product_bytes": header.product_bytes,
        "seconds": round(seconds, 3),
    }


def _count(number: int, what: str) -> str:
    return escape(f"{number} {what}{'s' * (number != 1)}")
