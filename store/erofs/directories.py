"""Directories of an EROFS image: blocks of entries, each sorted by name in itself and among each other.

A block has the entries' heads first and their names behind, so that a look-up is a binary search among
blocks and then within one. Pure; any thread.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.erofs.layout import BLOCK, DIRECTORY, DIRENT, REGULAR, SYMLINK
from store.tree import DIRECTORY as DIRECTORY_FLAG
from store.tree import ROOT_ROW, Tree
from store.tree import SYMLINK as SYMLINK_FLAG

_DOTS = (b".", b"..")
_KINDS: NDArray[np.uint8] = np.full(DIRECTORY_FLAG | SYMLINK_FLAG | 1, REGULAR, np.uint8)
_KINDS[DIRECTORY_FLAG] = DIRECTORY
_KINDS[SYMLINK_FLAG] = SYMLINK


@dataclass(frozen=True, slots=True, eq=False)
class Directory:
    """A directory's names in their order, with `.` and `..` among them, and how they are cut into blocks."""

    row: int
    dots: tuple[int, int]
    """How many children come before `.` and before `..`."""
    lengths: NDArray[np.int64]
    firsts: tuple[int, ...]
    """The first entry of every block, and how many entries there are."""

    @property
    def size(self) -> int:
        """Bytes: whole blocks, and what the last one needs."""
        first, last = self.firsts[-2:]
        return (len(self.firsts) - 2) * BLOCK + _cost(self.lengths[first:last])


def plan_directory(tree: Tree, row: int) -> Directory:
    """How the directory `row` is laid out."""
    children = tree.children(row)
    dots = tuple(bisect_left(children, name, key=tree.name) for name in _DOTS)
    ends = np.frombuffer(tree.name_end, np.uint32)[max(children.start - 1, 0) : children.stop]
    of_children: NDArray[np.int64] = np.zeros(0, np.int64)
    if len(children):
        of_children = ends[1:].astype(np.int64) - ends[:-1] - 1
    lengths = np.insert(of_children, dots, [len(name) for name in _DOTS])
    return Directory(row, (dots[0], dots[1]), lengths, _cut(lengths))


def directory_bytes(tree: Tree, planned: Directory, nids: NDArray[np.uint64]) -> bytes:
    """The directory's `size` bytes. `nids` are the numbers of all inodes by row."""
    row, children = planned.row, tree.children(planned.row)
    entries: NDArray[Any] = np.zeros(len(planned.lengths), DIRENT)
    above = tree.parent[row] if row != ROOT_ROW else row
    rows = slice(children.start, children.stop)
    flags = np.frombuffer(tree.flags, np.uint8)[rows] & (DIRECTORY_FLAG | SYMLINK_FLAG)
    entries["nid"] = np.insert(nids[rows], planned.dots, [nids[row], nids[above]])
    entries["kind"] = np.insert(_KINDS[flags], planned.dots, DIRECTORY)
    names = _names(tree, planned, children)
    ends = np.cumsum(planned.lengths)
    blocks: list[bytes] = []
    for first, last in zip(planned.firsts[:-1], planned.firsts[1:], strict=True):
        part = entries[first:last]
        start = int(ends[first] - planned.lengths[first])
        part["name"] = DIRENT.itemsize * len(part) + ends[first:last] - planned.lengths[first:last] - start
        block = part.tobytes() + names[start : int(ends[last - 1])]
        blocks.append(block if last == len(entries) else block.ljust(BLOCK, b"\0"))
    return b"".join(blocks)


def _names(tree: Tree, planned: Directory, children: range) -> bytes:
    """All names of a directory one behind the other, in the order of its entries."""
    pieces: list[bytes] = []
    start = children.start
    for before, dot in zip(planned.dots, _DOTS, strict=True):
        stop = children.start + before
        pieces += [_run(tree, start, stop), dot]
        start = stop
    return b"".join([*pieces, _run(tree, start, children.stop)])


def _run(tree: Tree, start: int, stop: int) -> bytes:
    if start == stop:
        return b""
    return bytes(tree.names[tree.name_end[start - 1] : tree.name_end[stop - 1]]).replace(b"\0", b"")


def _cut(lengths: NDArray[np.int64]) -> tuple[int, ...]:
    """As many entries a block as fit."""
    costs = np.concatenate(([0], np.cumsum(lengths + DIRENT.itemsize)))
    firsts = [0]
    while firsts[-1] < len(lengths):
        firsts.append(int(np.searchsorted(costs, costs[firsts[-1]] + BLOCK, "right")) - 1)
    return tuple(firsts)


def _cost(lengths: NDArray[np.int64]) -> int:
    return int(lengths.sum()) + DIRENT.itemsize * len(lengths)
