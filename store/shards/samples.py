"""`Samples`: a tree's files grouped to WebDataset samples, and the order of these.

Files of one directory whose names are equal up to the first dot are a sample, as WebDataset groups them:
`a/7.jpg` and `a/7.seg.png`, key `a/7`. A name without a dot is all key, one that begins with a dot has an
empty one; WebDataset skips the former and they are there all the same, for whoever unpacks a shard. Symbolic
links are left out: what a link has for content is no sample's data.

The order is the tree's, which is breadth first and by the bytes of names: a sample stands where its first
file does, with its other files right behind, in their order. Shuffled, samples are sorted by the xxh3-128 of
their key (path from the root, raw bytes) with the seed, equal ones in the tree's order. This is `SHUFFLE`,
which never changes: another order would be another name. What is added to a version or taken away
leaves the others in their order.

Columns of numbers, no object a file: 4 bytes a file, a sample and a row of the tree are kept, several times
that while they are made, which takes about a second a million files. Any worker thread.
`Samples` is immutable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from store.tree import DIRECTORY, SYMLINK, Tree

SHUFFLE: Final = "xxh3-128 v1"

_AT_ONCE: Final = 1 << 14
_NOT_DATA: Final = DIRECTORY | SYMLINK

Rows = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Samples:
    """`rows` of the files, sample by sample; those of sample s are from place `first[s]` to `first[s + 1]`.

    `path_length` has the bytes of every row's path from the root.
    """

    rows: Rows
    first: Rows
    path_length: Rows

    def __len__(self) -> int:
        return len(self.first) - 1

    def of(self, start: int, stop: int) -> Rows:
        """The files of samples `start` to `stop`, without the last one."""
        return self.rows[int(self.first[start]) : int(self.first[stop])]


def group_samples(tree: Tree, seed: int | None = None) -> Samples:
    """The tree's samples, in the tree's order or shuffled with a seed of 64 bits."""
    rows, numbers = _number(tree)
    # Mostly in order already; what is not are files without an extension and with others between.
    order = np.argsort(numbers, kind="stable")
    rows, numbers = rows[order], numbers[order]
    first = np.searchsorted(numbers, np.arange(int(numbers[-1]) + 2 if len(numbers) else 1))
    samples = Samples(rows, first.astype(np.uint32), _path_lengths(tree))
    return samples if seed is None else _shuffle(tree, samples, seed)


def sample_key(path: bytes) -> bytes:
    """The key of the sample that the file at `path` belongs to."""
    above, slash, name = path.rpartition(b"/")
    return above + slash + name.partition(b".")[0]


def path_of(tree: Tree, row: int) -> bytes:
    """A row's path from the root, as the bytes it is made of."""
    parts: list[bytes] = []
    while row:
        parts.append(tree.name(row))
        row = tree.parent[row]
    return b"/".join(reversed(parts))


def _number(tree: Tree) -> tuple[Rows, Rows]:
    """The files' rows, ascending, and the number of the sample that each belongs to."""
    rows = np.empty(tree.files, np.uint32)
    numbers = np.empty(tree.files, np.uint32)
    place, sample, latest = 0, -1, -1
    flags = np.frombuffer(tree.flags, np.uint8)
    for directory in np.flatnonzero(flags & DIRECTORY).tolist():
        stem: bytes | None = None
        # Names without a dot that the next ones begin with: files of their samples come behind all
        # that sort before a dot, `a`, `a-1.jpg`, `a.jpg`. As many as a name has bytes at the most.
        bare: list[tuple[bytes, int]] = []
        for row, name in _files(tree, tree.children(directory)):
            while bare and not name.startswith(bare[-1][0]):
                bare.pop()
            key, dot, _ = name.partition(b".")
            if not dot:
                sample += 1
                bare.append((name, sample))
                number = sample
            elif key == stem:
                number = latest
            else:
                stem = key
                if bare and bare[-1][0] == key:
                    number = bare[-1][1]
                else:
                    sample += 1
                    number = sample
                latest = number
            rows[place], numbers[place] = row, number
            place += 1
    return rows[:place], numbers[:place]


def _files(tree: Tree, children: range) -> Iterator[tuple[int, bytes]]:
    """The regular files among a directory's children, with their names, in their order."""
    for start in range(children.start, children.stop, _AT_ONCE):
        stop = min(start + _AT_ONCE, children.stop)
        names = bytes(tree.names[tree.name_end[start - 1] : tree.name_end[stop - 1] - 1]).split(b"\0")
        kinds = bytes(tree.flags[start:stop])
        for row, name, kind in zip(range(start, stop), names, kinds, strict=True):
            if not kind & _NOT_DATA:
                yield row, name


def _path_lengths(tree: Tree) -> Rows:
    """The length of every row's path. Breadth first, so that a level's parents are the level before."""
    ends = np.frombuffer(tree.name_end, np.uint32)
    parents = np.frombuffer(tree.parent, np.uint32)
    lengths = np.diff(ends, prepend=np.uint32(0)) - np.uint32(1)
    # Those of the root's children are there; below, a slash and the path above are to be added.
    start = 1
    stop = 1 + tree.count[0]
    while stop < tree.rows:
        start, stop = stop, int(np.searchsorted(parents, np.uint32(stop)))
        lengths[start:stop] += lengths[parents[start:stop]] + np.uint32(1)
    return lengths


def _shuffle(tree: Tree, samples: Samples, seed: int) -> Samples:
    high = np.empty(len(samples), np.uint64)
    low = np.empty(len(samples), np.uint64)
    above, prefix = -1, b""
    heads = samples.rows[samples.first[:-1].astype(np.intp)]
    for place, row in enumerate(heads.tolist()):
        parent = tree.parent[row]
        if parent != above:
            above, prefix = parent, path_of(tree, parent) + b"/" if parent else b""
        key = prefix + tree.name(row).partition(b".")[0]
        digest = xxhash.xxh3_128_intdigest(key, seed)
        high[place], low[place] = digest >> 64, digest & 0xFFFF_FFFF_FFFF_FFFF
    order = np.lexsort((low, high))
    lengths = np.diff(samples.first)[order]
    first = np.concatenate(([0], np.cumsum(lengths))).astype(np.uint32)
    # Place by place: where its sample began, and how far into it.
    begin = np.repeat(samples.first[:-1][order].astype(np.int64) - first[:-1], lengths)
    rows = samples.rows[begin + np.arange(len(samples.rows))]
    return Samples(rows, first, samples.path_length)
