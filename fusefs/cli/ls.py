"""`fusefs ls TARGET[@REV] [PATH]`: what a version holds. Needs no mount and no data but its manifest."""

from __future__ import annotations

import argparse
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from fusefs.cli import print_error
from fusefs.cli.json_array import print_array
from fusefs.cli.target_flags import add_place_flags, add_remote_flags, make_request
from fusefs.dataset import open_dataset
from fusefs.logs import escape
from store.cache_chain import CacheChain, ObjectCache
from store.local_cache import LocalCache
from store.oid import DVC_ALGORITHMS
from store.tree import EXECUTABLE, SYMLINK, UNKNOWN, Tree
from store.tree_glob import find_rows
from store.tree_sizes import stored_lengths

EPILOG = """\
TARGET is what `fusefs mount` takes. With -l: mode (as a mount shows it by default), bytes (`-` where nothing
tells them), oid, and where the content is: `cached`, `missing` (a mount would have to fetch it), `damaged`
(in the cache, but not as long as it should be) or `git`.

examples:
  fusefs ls data
  fusefs ls -l data@v1.0 'train/*.jpg'
  fusefs ls -R .@main
  fusefs ls --json -R data | jq -r '.[] | select(.state == "missing") | .path'
"""
_AT_ONCE: Final = 1024
_SIZE_WIDTH: Final = 12


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "ls",
        help="list what a version holds",
        description="List a directory or file of a version; without PATH, its root.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="TARGET", help="the version; also TARGET@REV")
    parser.add_argument("path", metavar="PATH", nargs="?", default="", help="a path in it, or a pattern")
    parser.add_argument("-l", dest="long", action="store_true", help="with mode, bytes, oid and state")
    parser.add_argument("-R", dest="recursive", action="store_true", help="with everything below")
    add_place_flags(parser)
    add_remote_flags(parser)
    parser.add_argument("--json", action="store_true", help="an array of objects, with all that -l tells")


def run(options: argparse.Namespace) -> int:
    dataset = open_dataset(make_request(options, options.target, options.rev))
    for warning in dataset.warnings:
        print_error(f"warning: {warning}")
    assert dataset.tree is not None  # only revisions side by side have none
    listing = Listing(Tree.open(dataset.tree), CacheChain(*map(LocalCache, dataset.caches)))
    rows = find_rows(listing.tree, options.path, options.target)
    if options.json:
        print_array(listing.describe(rows, recursive=options.recursive))
        return 0
    for line in listing.lines(rows, long=options.long, recursive=options.recursive):
        print(escape(line))
    return 0


class _Details(NamedTuple):
    mode: int
    size: int | None
    oid: str
    state: str
    """Where the content is; empty for a directory."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A tree, and the cache that is asked what it has of it."""

    tree: Tree
    cache: ObjectCache

    def lines(self, rows: Sequence[int], *, long: bool, recursive: bool) -> Iterator[str]:
        """What `ls` prints of these rows: files first, then the directories with what is in them."""
        files = [row for row in rows if not self.tree.is_directory(row)]
        named = {row: self.tree.path(row) for row in files} if len(rows) > 1 else {}
        yield from self._lines(files, named, long=long)
        headed = recursive or len(rows) > 1
        first = not files
        for directory in self._directories(rows, recursive=recursive):
            if headed:
                if not first:
                    yield ""
                yield f"{self.tree.path(directory) or '.'}:"
            first = False
            yield from self._lines(self.tree.children(directory), {}, long=long)

    def describe(self, rows: Sequence[int], *, recursive: bool) -> Iterator[dict[str, Any]]:
        """What `--json` prints: files, and what is in directories; paths count from the root."""
        yield from self._describe([row for row in rows if not self.tree.is_directory(row)])
        for directory in self._directories(rows, recursive=recursive):
            yield from self._describe(self.tree.children(directory))

    def _directories(self, rows: Sequence[int], *, recursive: bool) -> Iterator[int]:
        """The directories to list, depth first."""
        waiting = [row for row in reversed(rows) if self.tree.is_directory(row)]
        while waiting:
            directory = waiting.pop()
            yield directory
            if recursive:
                below = reversed(self.tree.children(directory))
                waiting += [row for row in below if self.tree.is_directory(row)]

    def _lines(self, rows: Sequence[int], named: Mapping[int, str], *, long: bool) -> Iterator[str]:
        if not long:
            for row in rows:
                yield named.get(row) or self._name(row)
            return
        width = 2 * self.tree.digest_width
        for row, details in self._details(rows):
            size = "-" if details.size is None else str(details.size)
            yield (
                f"{stat.filemode(details.mode)} {size:>{_SIZE_WIDTH}} {details.oid or '-':<{width}} "
                f"{details.state or '-':<7} {named.get(row) or self._name(row)}"
            )

    def _describe(self, rows: Sequence[int]) -> Iterator[dict[str, Any]]:
        for row, details in self._details(rows):
            yield {
                "path": self.tree.path(row),
                "type": _TYPES[stat.S_IFMT(details.mode)],
                "mode": f"{stat.S_IMODE(details.mode):04o}",
                "bytes": details.size,
                "oid": details.oid or None,
                "hash": None if self.tree.is_directory(row) else self.tree.algorithm(row),
                "state": details.state or None,
            }

    def _name(self, row: int) -> str:
        """The row's name, of a directory with a slash behind."""
        name = self.tree.path(row).rpartition("/")[2]
        return f"{name}/" if self.tree.is_directory(row) else name

    def _details(self, rows: Sequence[int]) -> Iterator[tuple[int, _Details]]:
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            stored = stored_lengths(self.tree, some, self.cache)
            for row in some:
                yield row, self._detail(row, stored.get(row))

    def _detail(self, row: int, length: int | None) -> _Details:
        tree = self.tree
        if tree.is_directory(row):
            return _Details(stat.S_IFDIR | 0o755, None, "", "")
        known = None if tree.size[row] == UNKNOWN else tree.size[row]
        size = length if known is None else known
        if tree.algorithm(row) not in DVC_ALGORITHMS:
            state = "missing" if known is None else "git"
        elif length is None:
            state = "missing"
        else:
            state = "cached" if length == size else "damaged"
        flags = tree.flags[row]
        kind = stat.S_IFLNK if flags & SYMLINK else stat.S_IFREG
        mode = 0o777 if flags & SYMLINK else 0o755 if flags & EXECUTABLE else 0o644
        return _Details(kind | mode, size, str(tree.oid(row)), state)


_TYPES: Final = {stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFREG: "file"}
