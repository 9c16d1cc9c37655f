"""The boxes of MP4 and MOV: finding them, and their fields. Pure but for `read_moov`.

Everything is held within the bytes that are there: a box that claims more than its parent has is `NotSimple`,
and whatever is not understood in full is left to libav, by the same exception.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final

from store.media.source import MediaSource, SourceFile

_FIRST: Final = frozenset((b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"))
_LARGEST_MOOV: Final = 256 << 20
_MOST_BOXES: Final = 10_000
"""In one parent."""


class NotSimple(Exception):
    """This file is for libav to read: it is no MP4, a broken one, or has what is not read here."""


def read_moov(source: MediaSource) -> memoryview:
    """The content of the file's `moov`, wherever it stands; payload is stepped over.

    Raises `NotSimple` where there is none, and as the source does.
    """
    file = SourceFile(source)
    for number in range(_MOST_BOXES):
        at = file.tell()
        header = file.read(16)
        if len(header) < 8:
            break
        size, kind = struct.unpack_from(">I4s", header)
        if number == 0 and kind not in _FIRST:
            break
        begin = 8
        if size == 1 and len(header) == 16:
            begin, size = 16, int.from_bytes(header[8:], "big")
        elif size == 0:
            size = source.size - at
        if size < begin or (kind == b"moov" and (size > _LARGEST_MOOV or at + size > source.size)):
            break
        if kind == b"moov":
            file.seek(at + begin)
            return memoryview(file.read(size - begin))
        file.seek(at + size, os.SEEK_SET)
    raise NotSimple


def children(parent: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The boxes in a box: types and contents. Raises `NotSimple` for one that is longer than its parent."""
    at = 0
    for _ in range(_MOST_BOXES):
        if len(parent) - at < 8:  # QuickTime ends some lists by 4 zero bytes
            return
        size, kind = struct.unpack_from(">I4s", parent, at)
        begin = 8
        if size == 1 and len(parent) - at >= 16:
            begin, size = 16, struct.unpack_from(">Q", parent, at + 8)[0]
        elif size == 0:
            size = len(parent) - at
        if size < begin or size > len(parent) - at:
            raise NotSimple
        yield kind, parent[at + begin : at + size]
        at += size
    raise NotSimple


def find(parent: memoryview, *path: bytes) -> memoryview | None:
    """The content of the one box on a path, None where there is none. Raises `NotSimple` for several."""
    for kind in path:
        found = [content for name, content in children(parent) if name == kind]
        if len(found) > 1:
            raise NotSimple
        if not found:
            return None
        parent = found[0]
    return parent


def need(parent: memoryview, *path: bytes) -> memoryview:
    """The same for a box that must be there."""
    found = find(parent, *path)
    if found is None:
        raise NotSimple
    return found


def fields(box: memoryview, form: str, at: int = 0) -> tuple[int, ...]:
    """Big-endian numbers in a box. Raises `NotSimple` when it is too short."""
    try:
        return struct.unpack_from(">" + form, box, at)
    except struct.error as error:
        raise NotSimple from error
