"""Chunks as zips: members stored as they are, named by their number in the chunk, the same bytes every time.

The length and the members' places follow from their sizes alone, so both are known before anything is made.
Pure; any thread.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
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


def build_zip(members: Sequence[tuple[str, bytes]]) -> bytes:
    """The zip of members given by extension and bytes. Raises `InputError` as `ZipLayout` does."""
    layout = ZipLayout(
        tuple(extension for extension, _ in members), tuple(len(content) for _, content in members)
    )
    pieces: list[bytes] = []
    directory: list[bytes] = []
    for name, offset, (_, content) in zip(layout.names, layout.offsets, members, strict=True):
        common = (_VERSION, 0, 0, _TIME, _DATE, zlib.crc32(content), len(content), len(content), len(name), 0)
        begin = offset - _LOCAL.size - len(name)
        pieces += [_LOCAL.pack(0x04034B50, *common), name.encode(), content]
        directory += [
            _CENTRAL.pack(0x02014B50, _UNIX | _VERSION, *common, 0, 0, 0, _MODE, begin),
            name.encode(),
        ]
    start, length = sum(map(len, pieces)), sum(map(len, directory))
    end = _END.pack(0x06054B50, 0, 0, len(members), len(members), length, start, 0)
    return b"".join([*pieces, *directory, end])
