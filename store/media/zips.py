"""Chunks as zips: members stored as they are, named by their number in the chunk, the same bytes every time.

The length and the members' places follow from their sizes alone, so both are known before anything is made;
and with the members' checksums, every byte that is not theirs. Pure; any thread.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from store.errors import InputError

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_VERSION: Final = 20
_UNIX: Final = 3 << 8
_TIME: Final = 0
_DATE: Final = 1 << 5 | 1
"""1 January 1980: the earliest that there is."""
_MODE: Final = 0o100644 << 16
_MOST_BYTES: Final = (1 << 32) - 2
_MOST_MEMBERS: Final = (1 << 16) - 2


@dataclass(frozen=True, slots=True)
class ZipLayout:
    """Where everything lies in a chunk of members of these extensions (without dot) and sizes.

    Raises `InputError` for what a zip without extensions to the format cannot hold.
    """

    extensions: tuple[str, ...]
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.extensions) != len(self.sizes) or len(self.sizes) > _MOST_MEMBERS:
            raise InputError(f"a chunk has at most {_MOST_MEMBERS} members, each with a size")
        if any(not (e.isascii() and e.isalnum() and len(e) <= 16) for e in self.extensions):
            raise InputError("an extension in a chunk is of at most 16 letters and digits")
        if any(size < 0 for size in self.sizes) or self.size > _MOST_BYTES:
            raise InputError("a chunk is smaller than 4 GiB; choose fewer frames for each")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{number:06d}.{extension}" for number, extension in enumerate(self.extensions))

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each member's bytes begin."""
        offsets, end = [], 0
        for name, size in zip(self.names, self.sizes, strict=True):
            offsets.append(end + _LOCAL.size + len(name))
            end = offsets[-1] + size
        return tuple(offsets)

    @property
    def size(self) -> int:
        """The whole zip's length."""
        heads = _LOCAL.size + _CENTRAL.size
        return sum(self.sizes) + sum(heads + 2 * len(name) for name in self.names) + _END.size


@dataclass(frozen=True, slots=True)
class MemberRange:
    """`length` bytes of a member's content from `offset` on."""

    number: int
    offset: int
    length: int


class Zip:
    """A chunk whose members lie elsewhere: what its bytes are, given the members' CRC-32."""

    def __init__(self, layout: ZipLayout, checksums: Sequence[int]) -> None:
        """Raises `InputError` where the checksums are not one a member."""
        if len(checksums) != len(layout.sizes):
            raise InputError(f"a chunk of {len(layout.sizes)} members needs as many checksums")
        self.size: Final = layout.size
        self._names = layout.names
        self._sizes = layout.sizes
        self._checksums = checksums
        self._bodies = layout.offsets
        self._starts = [
            body - _LOCAL.size - len(name) for body, name in zip(self._bodies, self._names, strict=True)
        ]
        self._end = self._bodies[-1] + self._sizes[-1] if self._bodies else 0

    def parts(self, offset: int, length: int) -> Iterator[bytes | MemberRange]:
        """What the bytes from `offset` on are, in order: `length` of them, fewer where the zip ends."""
        stop = min(offset + length, self.size)
        member = max(bisect_right(self._starts, offset) - 1, 0)
        while offset < min(stop, self._end):
            start, body = self._starts[member], self._bodies[member]
            if offset < body:
                yield self._local(member)[offset - start : stop - start]
                offset = min(body, stop)
            here = min(body + self._sizes[member], stop) - offset
            if here > 0:
                yield MemberRange(member, offset - body, here)
                offset += here
            member += 1
        if offset < stop:
            yield self._directory[offset - self._end : stop - self._end]

    def _local(self, number: int) -> bytes:
        return _LOCAL.pack(0x04034B50, *self._common(number)) + self._names[number].encode()

    def _common(self, number: int) -> tuple[int, ...]:
        checksum, size, name = self._checksums[number], self._sizes[number], self._names[number]
        return _VERSION, 0, 0, _TIME, _DATE, checksum, size, size, len(name), 0

    @cached_property
    def _directory(self) -> bytes:
        """Everything behind the last member."""
        entries = b"".join(
            _CENTRAL.pack(0x02014B50, _UNIX | _VERSION, *self._common(number), 0, 0, 0, _MODE, start)
            + self._names[number].encode()
            for number, start in enumerate(self._starts)
        )
        count = len(self._starts)
        return entries + _END.pack(0x06054B50, 0, 0, count, count, len(entries), self._end, 0)


def pack_checksums(checksums: Sequence[int]) -> bytes:
    """Checksums as bytes."""
    return struct.pack(f"<{len(checksums)}I", *checksums)


def checksums_of(piece: bytes) -> tuple[int, ...]:
    """What `pack_checksums` made; of anything else, something."""
    return struct.unpack(f"<{len(piece) // 4}I", piece[: len(piece) // 4 * 4])
