"""`fusefs runs [PATH]`: the runs of stages that DVC logged in the cache, and what is here of them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final

from fusefs.cli import print_error
from fusefs.cli.commit import format_size
from fusefs.cli.json_array import print_array
from fusefs.logs import escape
from fusefs.place import current_directory
from store.dvc.metafile import Output
from store.dvc.project import find_project
from store.dvc.runs import Run, read_runs
from store.errors import CacheUnusable, ManifestInvalid, ObjectCorrupt, ObjectMissing
from store.local_cache import LocalCache
from store.manifest import check_manifest, parse_manifest
from store.oid import Oid
from store.tree import UNKNOWN

EPILOG = """\
A run's outputs are a version like any other, although no commit names them: run:KEY is a target, and
run:KEY:OUT one output; of KEY the first digits are enough.

examples:
  fusefs runs
  fusefs mount run:4a1c9e:model.pt /mnt/model
  fusefs runs --json | jq -r '.[] | select(.here) | .key'
"""
_SHORT: Final = 12
"""Digits of a key that people are shown."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "runs",
        help="list the runs of stages that DVC logged",
        description="List the runs logged in a project's cache, newest first: what went in, what came out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", metavar="PATH", nargs="?", default="", help="a path in the project")
    parser.add_argument("--cache", metavar="DIR", type=Path, help="the cache (default: the project's)")
    parser.add_argument("--json", action="store_true", help="an array of objects")


def run(options: argparse.Namespace) -> int:
    path = Path(options.path) if options.path else current_directory()
    cache = options.cache.resolve() if options.cache else find_project(path).cache_dir
    log = read_runs(cache)
    for broken in log.broken:
        print_error(f"warning: {broken.message}")
    presence = Presence(LocalCache(cache))
    if options.json:
        print_array(describe(run, presence) for run in log.runs)
        return 0
    if not log.runs:
        print_error(f"no run is logged in {cache}")
    for number, logged in enumerate(log.runs):
        if number:
            print()
        for line in summarize(logged, presence):
            print(escape(line))
    return 0


class State(Enum):
    """How much of an output is in the cache."""

    HERE = "here"
    PARTIAL = "partial"
    """Its manifest is, and not all of its files."""
    MISSING = "missing"
    NOT_KEPT = "not kept"
    """It has no hash, or lies outside of the repository."""


class Presence:
    """What of runs' outputs a cache has; asked once for each, because runs share them."""

    def __init__(self, cache: LocalCache) -> None:
        self._cache = cache
        self._known: dict[Oid, State] = {}

    def of(self, output: Output) -> State:
        """How much of an output is there."""
        if output.oid is None:
            return State.NOT_KEPT
        if output.oid not in self._known:
            self._known[output.oid] = self._look(output.oid)
        return self._known[output.oid]

    def _look(self, oid: Oid) -> State:
        if not self._cache.has(oid):
            return State.MISSING
        if not oid.is_tree:
            return State.HERE
        try:
            data = self._cache.read(oid)
            check_manifest(data, oid)
            entries = parse_manifest(data, str(oid))
        except (ObjectMissing, ObjectCorrupt, CacheUnusable, ManifestInvalid):
            return State.MISSING
        lengths = self._cache.lengths([entry.md5 for entry in entries], oid.algorithm)
        return State.PARTIAL if UNKNOWN in lengths else State.HERE


def describe(logged: Run, presence: Presence) -> dict[str, Any]:
    """What `--json` prints of a run; `here` says that every output that is kept is here whole."""
    states = [presence.of(output) for output in logged.outs]
    return {
        "key": logged.key,
        "value": logged.value,
        "date": datetime.fromtimestamp(logged.mtime, UTC).isoformat(),
        "command": logged.command,
        "deps": [_describe_file(dep) for dep in logged.deps],
        "outs": [
            {**_describe_file(out), "state": state.value}
            for out, state in zip(logged.outs, states, strict=True)
        ],
        "here": set(states) <= {State.HERE, State.NOT_KEPT} and State.HERE in states,
    }


def _describe_file(output: Output) -> dict[str, Any]:
    return {
        "path": output.path,
        "oid": str(output.oid) if output.oid else None,
        "hash": output.oid.algorithm if output.oid else None,
        "bytes": output.size,
        "files": output.nfiles if output.is_dir else 1,
    }


def summarize(logged: Run, presence: Presence) -> Iterator[str]:
    """The lines about a run, for people."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(logged.mtime))
    yield f"{logged.key[:_SHORT]}  {when}  {logged.command}"
    for dep in logged.deps:
        yield f"    dep  {dep.path}  {dep.oid or ''}".rstrip()
    for out in logged.outs:
        size = "?" if out.size is None else format_size(out.size)
        yield f"    out  {out.path}  {out.oid or '-'}  {size}  {presence.of(out).value}"
