"""What differs between two compiled trees: files added, removed, changed and renamed.

Equal subtrees are seen by their digests and never walked, equal stretches of a directory by comparing
the columns' bytes: of a million files, only what changed costs Python's time.

Content is compared by digest. Equal digests of DVC's two algorithms count as equal content (they can
only differ in line ends); a file that moved from git to DVC has another kind of digest and counts as
changed. Directories are no paths of their own here: one that is empty is not seen.

Callers: `store.history`, the command `diff`. Pure but for the sizes that a cache is asked for; any thread.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Final, NamedTuple

from store.cache_chain import ObjectCache
from store.oid import DVC_ALGORITHMS, MD5, Oid
from store.tree import ALGORITHM_SHIFT, DIRECTORY, EXECUTABLE, ROOT_ROW, SYMLINK, Tree
from store.tree_sizes import Tally, learn_sizes, measure

NOTHING: Final = -1
"""The row on the side where there is no such file."""

_STRETCH: Final = 64
"""Rows that are compared at once, before their differences are looked for one by one."""
_SIZED_AT_ONCE: Final = 1024
_EMPTY: Final = frozenset(
    hashlib.new(name, data, usedforsecurity=False).digest()
    for name, data in (("md5", b""), ("sha1", b"blob 0\0"), ("sha256", b"blob 0\0"))
)
"""The digests of an empty file."""
_KIND: Final = (1 << ALGORITHM_SHIFT) - 1
"""The flags of a row without the number of its algorithm."""


class Kind(Enum):
    """What happened to a path."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    RENAMED = "renamed"


class Side(NamedTuple):
    """A file as one of the two versions has it. A tuple, because there may be millions."""

    path: str
    """`/`-separated, from the root; undecodable bytes are lone surrogates."""
    oid: Oid
    size: int | None
    """Bytes; None where nothing tells it."""
    executable: bool
    symlink: bool


class Change(NamedTuple):
    """A difference. `old` is None for what was added, `new` for what was removed."""

    kind: Kind
    old: Side | None
    new: Side | None


class _Pairs:
    """Pairs of rows in sixteen bytes each: two versions may have nothing in common."""

    __slots__ = ("_news", "_olds")

    def __init__(self) -> None:
        self._olds, self._news = array("q"), array("q")

    def append(self, old: int, new: int) -> None:
        self._olds.append(old)
        self._news.append(new)

    def __len__(self) -> int:
        return len(self._olds)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._olds, self._news, strict=True)


@dataclass(frozen=True, slots=True)
class Differences:
    """The differences of two trees, as rows: `NOTHING` on one side for what was added or removed.

    In the order of the paths, name by name (so that what is in a directory stays together); a rename
    stands where the new path does.
    """

    old: Tree
    new: Tree
    pairs: _Pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def tally(self, cache: ObjectCache) -> dict[Kind, Tally]:
        """How many differences there are of each kind, and the bytes of the new files, or those removed."""
        rows = {kind: array("q") for kind in Kind}
        for old, new in self.pairs:
            rows[self._kind(old, new)].append(old if new == NOTHING else new)
        return {
            kind: Tally(len(some), measure(self.old if kind is Kind.REMOVED else self.new, some, cache))
            for kind, some in rows.items()
        }

    def count_by_directory(self) -> dict[str, Counter[Kind]]:
        """How many differences there are of each kind by the directory that the file is, or was, in."""
        counts: dict[tuple[bool, int], Counter[Kind]] = defaultdict(Counter)
        for old, new in self.pairs:
            gone = new == NOTHING
            counts[gone, self.old.parent[old] if gone else self.new.parent[new]][self._kind(old, new)] += 1
        directories: dict[str, Counter[Kind]] = defaultdict(Counter)
        for (gone, row), some in counts.items():
            directories[(self.old if gone else self.new).path(row)] += some
        return directories

    def changes(self, cache: ObjectCache) -> Iterator[Change]:
        """The differences with paths and sizes; `cache` is asked for the sizes that the trees lack."""
        rows = iter(self.pairs)
        while some := list(islice(rows, _SIZED_AT_ONCE)):
            olds = _sides(self.old, [row for row, _ in some], cache)
            news = _sides(self.new, [row for _, row in some], cache)
            for (row, other), old, new in zip(some, olds, news, strict=True):
                yield Change(self._kind(row, other), old, new)

    def _kind(self, old: int, new: int) -> Kind:
        if old == NOTHING:
            return Kind.ADDED
        if new == NOTHING:
            return Kind.REMOVED
        return Kind.CHANGED if self.old.path(old) == self.new.path(new) else Kind.RENAMED


def diff_trees(old: Tree, new: Tree, *, renames: bool = True) -> Differences:
    """The differences between two trees.

    A rename is a removed and an added file of one content, where no other file that was removed or
    added has that content; without `renames` it stays a removal and an addition.
    """
    pairs = _Pairs()
    for pair in _walk(old, new):
        pairs.append(*pair)
    return Differences(old, new, _join_renames(old, new, pairs) if renames else pairs)


def _sides(tree: Tree, rows: list[int], cache: ObjectCache) -> list[Side | None]:
    present = [row for row in rows if row != NOTHING]
    sizes = iter(learn_sizes(tree, present, cache))
    return [None if row == NOTHING else _side(tree, row, next(sizes)) for row in rows]


def _side(tree: Tree, row: int, size: int | None) -> Side:
    flags = tree.flags[row]
    return Side(tree.path(row), tree.oid(row), size, bool(flags & EXECUTABLE), bool(flags & SYMLINK))


def _walk(old: Tree, new: Tree) -> Iterator[tuple[int, int]]:
    """The rows of files that differ, in the order of their paths, renames not looked for."""
    if _is_same(old, ROOT_ROW, new, ROOT_ROW):
        return
    # Not recursive: a tree is as deep as its author liked.
    waiting = [_compare_directories(old, ROOT_ROW, new, ROOT_ROW)]
    while waiting:
        pair = next(waiting[-1], None)
        if pair is None:
            waiting.pop()
            continue
        old_row, new_row = pair
        old_is_dir = old_row != NOTHING and old.is_directory(old_row)
        new_is_dir = new_row != NOTHING and new.is_directory(new_row)
        # Where a file took a directory's place, or the other way round, it comes before what is below.
        if (old_row != NOTHING and not old_is_dir) or (new_row != NOTHING and not new_is_dir):
            yield NOTHING if old_is_dir else old_row, NOTHING if new_is_dir else new_row
        if old_is_dir or new_is_dir:
            below = (old_row if old_is_dir else NOTHING, new_row if new_is_dir else NOTHING)
            waiting.append(_compare_directories(old, below[0], new, below[1]))


def _compare_directories(old: Tree, old_row: int, new: Tree, new_row: int) -> Iterator[tuple[int, int]]:
    """The children that differ, by name; `NOTHING` for a directory is one without children."""
    olds = old.children(old_row) if old_row != NOTHING else range(0)
    news = new.children(new_row) if new_row != NOTHING else range(0)
    old_labels, new_labels = _labels(old, olds), _labels(new, news)
    if old_labels == new_labels:
        yield from _compare_rows(old, olds, new, news)
        return
    one, other = old_labels.split(b"\0"), new_labels.split(b"\0")
    place = theirs = 0
    while place < len(olds) or theirs < len(news):
        if theirs == len(news) or (place < len(olds) and one[place] < other[theirs]):
            yield olds[place], NOTHING
            place += 1
        elif place == len(olds) or other[theirs] < one[place]:
            yield NOTHING, news[theirs]
            theirs += 1
        else:
            if not _is_same(old, olds[place], new, news[theirs]):
                yield olds[place], news[theirs]
            place, theirs = place + 1, theirs + 1


def _compare_rows(old: Tree, olds: range, new: Tree, news: range) -> Iterator[tuple[int, int]]:
    """The rows that differ of two directories with the same names."""
    alike = old.digest_width == new.digest_width
    for start in range(0, len(olds), _STRETCH):
        some, others = olds[start : start + _STRETCH], news[start : start + _STRETCH]
        if alike and _columns(old, some) == _columns(new, others):
            continue
        for row, other in zip(some, others, strict=True):
            if not _is_same(old, row, new, other):
                yield row, other


def _labels(tree: Tree, rows: range) -> bytes:
    """The names of a directory's children, with a NUL between two."""
    if not rows:
        return b""
    return bytes(tree.names[tree.name_end[rows[0] - 1] : tree.name_end[rows[-1]] - 1])


def _columns(tree: Tree, rows: range) -> tuple[bytes, bytes]:
    begin, end, width = rows[0], rows[-1] + 1, tree.digest_width
    return bytes(tree.digest[begin * width : end * width]), bytes(tree.flags[begin:end])


def _is_same(old: Tree, old_row: int, new: Tree, new_row: int) -> bool:
    """Whether two rows have the same content, or the same below them."""
    flags, others = old.flags[old_row], new.flags[new_row]
    if flags != others and (flags & _KIND != others & _KIND or not _are_comparable(flags, others)):
        return False
    if flags & DIRECTORY and old.digest_width != new.digest_width:
        return False  # what stands for a directory depends on the width; look below
    return old.digest_of(old_row) == new.digest_of(new_row)


def _are_comparable(flags: int, others: int) -> bool:
    return max(flags, others) >> ALGORITHM_SHIFT < len(DVC_ALGORITHMS)


def _join_renames(old: Tree, new: Tree, pairs: _Pairs) -> _Pairs:
    """The same pairs with renames joined, if there are any."""
    removed = [row for row, other in pairs if other == NOTHING]
    added = [other for row, other in pairs if row == NOTHING]
    gone, come = _by_content(old, removed), _by_content(new, added)
    moved = {row: gone[content] for content, row in come.items() if content in gone}
    if not moved:
        return pairs
    sources = set(moved.values())
    joined = _Pairs()
    for row, other in pairs:
        if other != NOTHING:
            joined.append(moved.get(other, NOTHING) if row == NOTHING else row, other)
        elif row not in sources:
            joined.append(row, NOTHING)
    return joined


def _by_content(tree: Tree, rows: list[int]) -> dict[tuple[str, bytes], int]:
    """The files whose content no other of them has. Empty ones are all alike: they are not followed."""
    contents = [(_family(tree.algorithm(row)), tree.digest_of(row)) for row in rows]
    times = Counter(contents)
    return {
        content: row
        for content, row in zip(contents, rows, strict=True)
        if times[content] == 1 and content[1] not in _EMPTY
    }


def _family(algorithm: str) -> str:
    return MD5 if algorithm in DVC_ALGORITHMS else algorithm
