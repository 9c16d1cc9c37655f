"""`Layout`: a version as tar shards of which every byte is known where it comes from, and none is made.

A shard is its members' headers, which are computed when they are read, their bodies, which are the objects
themselves, and zeros. So its size is exact as soon as its files' sizes are known, any range of it costs what
the range costs, and two versions that have a sample in common share its bytes.

`Layout` cuts the samples, `Shard` is one of them with the sizes that its files had when it was laid out.
Blocking and pure: laying out takes a microsecond or two a file, some more where paths are longer than 100
bytes. Any worker thread; of a `Shard` any thread, the loop included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from store.errors import InputError, StoreError
from store.manifest import SIZE_MAX
from store.shards.recipe import ShardsRecipe
from store.shards.samples import Rows, group_samples, path_of
from store.shards.tar_format import (
    BLOCK,
    NAME_BYTES,
    RECORD,
    SIZE_LIMIT,
    archive_length,
    member_header,
    member_header_length,
    padding,
)
from store.tree import UNKNOWN, Tree

_NAME = re.compile(r"([0-9]{6}|[1-9][0-9]{6,9})\.tar")


class SizesUnknown(StoreError):
    """Sizes have to be learnt before something can be laid out: those of `count` files."""

    def __init__(self, what: str, count: int) -> None:
        super().__init__(f"{what} cannot be laid out: the sizes of {count} files are not known yet")
        self.count = count


@dataclass(frozen=True, slots=True)
class Header:
    """Bytes of a header."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """`length` bytes from `offset` on of the file of `row`, which has `size` bytes."""

    row: int
    offset: int
    length: int
    size: int


@dataclass(frozen=True, slots=True)
class Zeros:
    """`length` bytes, all of them 0."""

    length: int


Piece = Header | Body | Zeros


def shard_name(number: int) -> str:
    """The name of a shard, counted from 0."""
    return f"{number:06d}.tar"


def shard_number(name: str) -> int | None:
    """The shard that is called so; None for what is no shard's name."""
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[1])


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Shard:
    """One shard: files `rows`, their `sizes`, where their headers `starts`; `size` is that of all of it."""

    tree: Tree
    rows: Rows
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]
    size: int

    def pieces(self, offset: int, length: int) -> list[Piece]:
        """What the bytes from `offset` on are, in order: `length` of them, less where the shard ends.

        One or two pieces a member, so at most one for 256 bytes asked for. No zeros stand beside zeros.
        """
        if offset < 0 or length < 0:
            raise ValueError(f"no range of bytes: {length} from {offset} on")
        found: list[Piece] = []
        stop = min(offset + length, self.size)
        place = self.place(offset)
        while offset < stop and place < len(self.rows):
            end = int(self.starts[place + 1])
            self._add_member(found, place, offset, min(stop, end))
            offset = end
            place += 1
        _add_zeros(found, stop - offset)
        return found

    def place(self, offset: int) -> int:
        """The member that the byte at `offset` belongs to; behind the last one how many there are."""
        return int(np.searchsorted(self.starts, offset, "right")) - 1

    def digest(self) -> int:
        """64 bits (xxh3) that follow from the members' paths and contents, and so from all bytes.

        Takes a few microseconds a file.
        """
        hasher = xxhash.xxh3_64()
        for row in self.rows.tolist():
            hasher.update(path_of(self.tree, row) + b"\0" + self.tree.digest_of(row))
        return hasher.intdigest()

    def _add_member(self, found: list[Piece], place: int, offset: int, stop: int) -> None:
        """Add what there is of a member between two places of the shard."""
        row, size = int(self.rows[place]), int(self.sizes[place])
        body = int(self.starts[place + 1]) - size - padding(size)
        if offset < body:
            start = int(self.starts[place])
            header = member_header(path_of(self.tree, row), size)
            found.append(Header(header[offset - start : stop - start]))
            offset = min(body, stop)
        here = min(body + size, stop) - offset
        if here > 0:
            found.append(Body(row, offset - body, here, size))
            offset += here
        _add_zeros(found, stop - offset)


class Layout:
    """The shards of `tree` as `recipe` wants them. `sizes` are by row, `UNKNOWN` where they are not known.

    The sizes are looked at whenever something is asked for, so they may be learnt later.
    """

    def __init__(self, tree: Tree, recipe: ShardsRecipe, sizes: Sequence[int]) -> None:
        self.tree = tree
        self.recipe = recipe
        self._sizes = sizes
        self._samples = group_samples(tree, recipe.seed)

    @property
    def shards(self) -> int:
        """How many there are; they are counted from 0."""
        return -(-self.samples // self.recipe.samples)

    @property
    def samples(self) -> int:
        return len(self._samples)

    @property
    def files(self) -> int:
        return len(self._samples.rows)

    def rows(self, number: int) -> Rows:
        """The files of a shard, in their order. Raises `IndexError` for a shard that there is not."""
        if not 0 <= number < self.shards:
            raise IndexError(f"no shard {number}: there are {self.shards}")
        start = number * self.recipe.samples
        return self._samples.of(start, min(start + self.recipe.samples, self.samples))

    def shards_of(self, rows: Sequence[int]) -> list[int]:
        """The shards that these files are in. Milliseconds a million files."""
        places = np.flatnonzero(np.isin(self._samples.rows, np.asarray(rows, np.uint32)))
        samples = np.searchsorted(self._samples.first, places, "right") - 1
        return [int(number) for number in np.unique(samples // self.recipe.samples)]

    def unknown(self, number: int) -> list[int]:
        """The files of a shard whose sizes are to be learnt before it can be laid out."""
        return [row for row in self.rows(number).tolist() if self._sizes[row] == UNKNOWN]

    def all_unknown(self) -> list[int]:
        """The files of all shards whose sizes are not known."""
        return [row for row in self._samples.rows.tolist() if self._sizes[row] == UNKNOWN]

    def content_bytes(self) -> int:
        """The sizes of all files together. Raises `SizesUnknown`."""
        return sum(self._known(self._samples.rows, f"shards {self.recipe}").tolist())

    def size(self, number: int) -> int:
        """A shard's exact size in bytes. Raises what `shard` raises."""
        return self.shard(number).size

    def pieces(self, number: int, offset: int, length: int) -> list[Piece]:
        """See `Shard.pieces`; who reads a shard more than once keeps it. Raises what `shard` raises."""
        return self.shard(number).pieces(offset, length)

    def shard(self, number: int) -> Shard:
        """Lay out a shard.

        Raises `SizesUnknown`, `InputError` where it would be larger than a file can be, `IndexError`.
        """
        rows = self.rows(number)
        name = f"shard {shard_name(number)} of {self.recipe}"
        sizes = self._known(rows, name)
        lengths = np.full(len(rows), BLOCK, np.int64)
        for place in np.flatnonzero((self._samples.path_length[rows] > NAME_BYTES) | (sizes >= SIZE_LIMIT)):
            path = path_of(self.tree, int(rows[place]))
            lengths[place] = member_header_length(path, int(sizes[place]))
        # Sizes are what a manifest says: together they may be more than 63 bits hold.
        if sum(sizes.tolist()) + int(lengths.sum()) + len(rows) * BLOCK + 2 * RECORD > SIZE_MAX:
            raise InputError(f"{name} would be larger than a file can be: take fewer samples a shard")
        starts = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths + sizes + -sizes % BLOCK, out=starts[1:])
        return Shard(self.tree, rows.copy(), sizes, starts, archive_length(int(starts[-1])))

    def _known(self, rows: Rows, what: str) -> NDArray[np.int64]:
        sizes = np.fromiter((self._sizes[row] for row in rows.tolist()), np.int64, len(rows))
        unknown = int(np.count_nonzero(sizes == UNKNOWN))
        if unknown:
            raise SizesUnknown(what, unknown)
        return sizes


def _add_zeros(found: list[Piece], length: int) -> None:
    if length <= 0:
        return
    before = found[-1] if found else None
    if isinstance(before, Zeros):
        length += before.length
        found.pop()
    found.append(Zeros(length))
