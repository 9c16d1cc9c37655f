"""`fusefs diff TARGET REV REV`: what differs between two versions. Needs no mount, and no data."""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fusefs.cli import print_error
from fusefs.cli.commit import format_size
from fusefs.cli.json_array import print_array
from fusefs.cli.target_flags import add_place_flags, add_remote_flags, make_request
from fusefs.dataset import Dataset, open_dataset
from fusefs.logs import escape
from store.cache_chain import CacheChain, ObjectCache
from store.errors import InputError, StoreError
from store.local_cache import LocalCache
from store.tree import Tree
from store.tree_diff import Change, Differences, Kind, Side, diff_trees
from store.tree_sizes import Tally

EPILOG = """\
The manifests of both versions must be in the cache, the files need not be; a size that nothing tells is
`?`. Without a second REV the version that the working tree's metafile names is compared. A file is renamed
if no other one that was removed or added has its content.

examples:
  fusefs diff data v1.0 v2.0
  fusefs diff --stat . HEAD~1 HEAD
  fusefs diff --json data v1.0 v2.0 | jq -r '.[] | select(.change == "added") | .path'
  fusefs diff --exit-code data v1.0 v2.0 > /dev/null && echo the same
"""
_MARKS: Final = {Kind.ADDED: "+", Kind.REMOVED: "-", Kind.CHANGED: "~", Kind.RENAMED: ">"}
_STATUS_DIFFERENT: Final = 1
_STATUS_TROUBLE: Final = 2
_NARROWEST_BAR: Final = 10


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "diff",
        help="say what differs between two versions",
        description="List the paths that were added, removed, changed and renamed between two versions.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="TARGET", help="a tracked path, with --repo from its root")
    parser.add_argument("old", metavar="REV", help="the revision to compare from")
    parser.add_argument("new", metavar="REV", nargs="?", default="", help="the revision to compare with")
    add_place_flags(parser, rev=False)
    parser.add_argument("--stat", action="store_true", help="a summary by directory")
    parser.add_argument("--no-renames", action="store_true", help="renamed files as removed and added")
    parser.add_argument(
        "--exit-code",
        action="store_true",
        help="exit with 1 if there are differences and with 2 if they could not be looked for",
    )
    add_remote_flags(parser)
    parser.add_argument("--json", action="store_true", help="an array of objects; with --stat one object")


def run(options: argparse.Namespace) -> int:
    try:
        different = _run(options)
    except StoreError as error:
        if not options.exit_code:
            raise
        print_error(str(error))
        return _STATUS_TROUBLE
    return _STATUS_DIFFERENT if different and options.exit_code else 0


def _run(options: argparse.Namespace) -> bool:
    if options.repo and not options.new:
        raise InputError("with --repo two revisions are compared; name the second one as well")
    old, new = (
        open_dataset(make_request(options, options.target, rev)) for rev in (options.old, options.new)
    )
    for warning in dict.fromkeys((*old.warnings, *new.warnings)):
        print_error(f"warning: {warning}")
    found = diff_trees(_tree(old), _tree(new), renames=not options.no_renames)
    cache = CacheChain(*map(LocalCache, dict.fromkeys((*new.caches, *old.caches))))
    if options.stat:
        statistics = Statistics.gather(found, cache)
        if options.json:
            print(json.dumps(statistics.describe(), indent=2))
        else:
            for line in statistics.summarize(shutil.get_terminal_size().columns):
                print(escape(line))
    elif options.json:
        print_array(describe(change) for change in found.changes(cache))
    else:
        for change in found.changes(cache):
            print(escape(summarize(change)))
    return len(found) > 0


def _tree(dataset: Dataset) -> Tree:
    assert dataset.tree is not None  # only revisions side by side have none
    return Tree.open(dataset.tree)


def describe(change: Change) -> dict[str, Any]:
    """What `--json` prints of a difference; `old` and `new` are null where there is no such file."""
    side = change.new or change.old
    assert side is not None
    return {
        "change": change.kind.value,
        "path": side.path,
        "old": _describe_side(change.old),
        "new": _describe_side(change.new),
    }


def _describe_side(side: Side | None) -> dict[str, Any] | None:
    if side is None:
        return None
    return {
        "path": side.path,
        "oid": str(side.oid),
        "hash": side.oid.algorithm,
        "bytes": side.size,
        "executable": side.executable,
        "symlink": side.symlink,
    }


def summarize(change: Change) -> str:
    """The line about a difference, for people."""
    old, new = change.old, change.new
    if old is None or new is None:
        side = new or old
        assert side is not None
        return f"{change.kind.value:<7}  {_size(side.size):>10}  {side.path}"
    path = new.path if old.path == new.path else abbreviate_rename(old.path, new.path)
    notes = [*_size_notes(old, new), *_mode_notes(old, new)]
    suffix = f"  ({', '.join(notes)})" if notes else ""
    return f"{change.kind.value:<7}  {_size(new.size):>10}  {path}{suffix}"


def _size_notes(old: Side, new: Side) -> Iterator[str]:
    if old.oid != new.oid and old.size != new.size:
        yield f"was {_size(old.size)}"


def _mode_notes(old: Side, new: Side) -> Iterator[str]:
    if old.symlink != new.symlink:
        yield "now a symlink" if new.symlink else "no longer a symlink"
    elif old.executable != new.executable:
        yield "now executable" if new.executable else "no longer executable"


def abbreviate_rename(old: str, new: str) -> str:
    """`a/{b → c}/d`: two paths with what they share, in whole names, written once."""
    olds, news = old.split("/"), new.split("/")
    head = 0
    while head < min(len(olds), len(news)) - 1 and olds[head] == news[head]:
        head += 1
    tail = 0
    while tail < min(len(olds), len(news)) - head - 1 and olds[-1 - tail] == news[-1 - tail]:
        tail += 1
    middles = ("/".join(names[head : len(names) - tail]) for names in (olds, news))
    return "/".join([*news[:head], "{" + " → ".join(middles) + "}", *news[len(news) - tail :]])


def _size(size: int | None) -> str:
    return "?" if size is None else format_size(size)


@dataclass(frozen=True, slots=True)
class Statistics:
    """How many files of each directory differ, and all together with their bytes."""

    totals: Mapping[Kind, Tally]
    directories: Sequence[tuple[str, Counter[Kind]]]
    """Sorted by path, the empty one for the root. A renamed file counts where it is now."""

    @classmethod
    def gather(cls, found: Differences, cache: ObjectCache) -> Statistics:
        """Count the differences."""
        return cls(found.tally(cache), sorted(found.count_by_directory().items(), key=lambda item: item[0]))

    def describe(self) -> dict[str, Any]:
        """What `--stat --json` prints."""
        return {
            **{
                kind.value: {"files": tally.files, "bytes": tally.size} for kind, tally in self.totals.items()
            },
            "directories": [
                {"path": path, **{kind.value: counts[kind] for kind in Kind}}
                for path, counts in self.directories
            ],
        }

    def summarize(self, width: int) -> Iterator[str]:
        """The lines for people, in so many columns; paths are not cut."""
        rows = [(path or ".", counts.total(), counts) for path, counts in self.directories]
        longest = max((len(path) for path, _, _ in rows), default=0)
        most = max((number for _, number, _ in rows), default=0)
        digits = len(str(most))
        room = max(width - longest - digits - 5, _NARROWEST_BAR)
        for path, number, counts in rows:
            yield f" {path:<{longest}} | {number:>{digits}} {_bar(counts, most, room)}"
        told = (
            f"{tally.files:,} {kind.value} ({_size(tally.size)})"
            for kind, tally in self.totals.items()
            if tally.files
        )
        yield " " + (", ".join(told) or "no differences")


def _bar(counts: Counter[Kind], most: int, room: int) -> str:
    """A mark for each file, or in proportion where there are too many; what happened at all has one."""
    scale = min(1.0, room / most)
    return "".join(mark * max(round(counts[kind] * scale), counts[kind] > 0) for kind, mark in _MARKS.items())
