"""Products that become zips: piece 0 are the checksums of the members, which are the pieces behind it.

So who reads the zip from its beginning asks for the pieces in their order. Pure; any thread or process.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from store.making.makers import Piece
from store.media.zips import pack_checksums

CHECKSUMS_PIECE: Final = 0
FIRST_MEMBER: Final = 1


def zipped(members: Iterable[bytes]) -> Iterator[Piece]:
    """Members as they are made, and in the end their checksums."""
    checksums: list[int] = []
    for content in members:
        checksums.append(zlib.crc32(content))
        yield Piece(len(checksums), content)
    yield Piece(CHECKSUMS_PIECE, pack_checksums(checksums))
