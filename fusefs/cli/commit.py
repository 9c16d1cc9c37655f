"""`fusefs commit DIR`: make a version of a folder, and say what to do with it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fusefs.dataset import compiled_trees
from fusefs.directories import state_directory
from fusefs.interruption import Interrupted, interruptible
from fusefs.logs import escape
from store.commit import CommitOptions, Committed, Progress, commit
from store.errors import CacheUnusable
from store.version import keep_tree

if TYPE_CHECKING:
    import rich.progress

EPILOG = """\
The version is recorded in DIR.dvc, as `dvc add` would; commit that file to git. A folder that did not
change is not read again.

examples:
  fusefs commit photos
  fusefs commit --cache /srv/cache photos
  fusefs commit --json photos | jq -r .oid
"""
_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB", "PB")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "commit",
        help="make a version of a folder",
        description="Make a version of a folder (or a file): content into the cache, its name into DIR.dvc.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", metavar="DIR", type=Path, help="the folder, or a single file")
    parser.add_argument("--cache", metavar="DIR", type=Path, help="the cache (default: the project's)")
    parser.add_argument(
        "--link",
        choices=("reflink", "hardlink", "copy"),
        help="how content gets into the cache (default: as cache.type says, else reflink). A reflink is a "
        "copy where the file system has none; a hard link makes your own file the object, read-only",
    )
    parser.add_argument("--jobs", metavar="N", type=_positive, default=0, help="threads that read and hash")
    parser.add_argument("--json", action="store_true", help="print one object about the version")
    parser.add_argument("-q", "--quiet", action="store_true", help="print warnings and errors only")


def run(options: argparse.Namespace) -> int:
    """Commit; 0 when the version is recorded. Raises `StoreError` for everything foreseen."""
    watched = not options.quiet and not options.json and sys.stderr.isatty()
    started = time.monotonic()
    try:
        with interruptible():
            committed = commit(
                options.path,
                CommitOptions(
                    cache=options.cache,
                    link=options.link,
                    jobs=options.jobs,
                    state=state_directory() / "hashes.sqlite",
                ),
                TerminalProgress() if watched else None,
            )
    except Interrupted as interrupted:
        return interrupted.status
    seconds = time.monotonic() - started
    for warning in (*committed.warnings, *_keep_tree(committed)):
        print(f"fusefs: {escape(warning)}", file=sys.stderr)
    if options.json:
        print(json.dumps(describe(committed, seconds)))
    elif not options.quiet:
        print("\n".join(summarize(committed, options.path, options.cache)))
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _keep_tree(committed: Committed) -> list[str]:
    """Compile the tree now, while all sizes are known, so that the first mount need not ask for them."""
    if committed.oid.is_tree:
        try:
            keep_tree(committed.oid, committed.entries, compiled_trees())
        except CacheUnusable as error:
            return [str(error)]
    return []


def describe(committed: Committed, seconds: float) -> dict[str, Any]:
    """What `--json` prints; `bytes` and `seconds` are numbers, paths absolute."""
    return {
        "oid": str(committed.oid),
        "metafile": str(committed.metafile),
        "files": len(committed.entries),
        "bytes": committed.size,
        "hashed": committed.hashed,
        "stored": committed.stored,
        "gitignored": committed.gitignored,
        "seconds": round(seconds, 3),
        "warnings": list(committed.warnings),
    }


def summarize(committed: Committed, path: Path, cache: Path | None) -> list[str]:
    """Lines for people; the last says what to do next."""
    files, known = len(committed.entries), len(committed.entries) - committed.hashed
    counted = f"{files} file{'s' * (files != 1)}, {format_size(committed.size)}"
    unchanged = f" ({known} unchanged)" if known else ""
    # As the user would name it, from where they are.
    metafile = committed.metafile if path.is_absolute() else os.path.relpath(committed.metafile)
    option = ["--cache", str(cache)] if cache else []
    command = shlex.join(["fusefs", "run", *option, str(metafile), "--", "ls"])
    return [
        f"{escape(str(path))}: {counted}{unchanged}, {committed.stored} new in the cache",
        f"{escape(str(metafile))} records version {committed.oid}",
        f"next: {escape(command)} {{}}",
    ]


def format_size(size: int) -> str:
    """Bytes for people, in powers of 1000."""
    value = float(size)
    unit = 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    return f"{value:.3g} {_UNITS[unit]}"


class TerminalProgress(Progress):
    """A bar on standard error, with the rate and the time left."""

    def __init__(self) -> None:
        self._bar: rich.progress.Progress | None = None

    def begin(self, files: int, size: int) -> None:
        if not files:
            return
        from rich import progress  # slow to import, and of use on a terminal only
        from rich.console import Console

        self._files = files
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(f"0/{files} files", total=size)
        self._bar.start()

    def expect(self, files: int, size: int) -> None:
        """So many files and bytes there are, as is known now."""
        if self._bar:
            self._files = files
            self._bar.update(self._task, total=size)

    def update(self, files: int, size: int) -> None:
        if self._bar:
            self._bar.update(self._task, completed=size, description=f"{files}/{self._files} files")

    def end(self) -> None:
        if self._bar:
            self._bar.stop()
