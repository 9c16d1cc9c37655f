"""`Product`: pieces in a file, told from garbage.

The bytes of the pieces come in the order in which they were made; then a table, msgpack's list of a version,
the key, and an entry for every piece ([begin, length, xxh3-64], a text where the content does not allow the
piece, nil where it was not made); and 32 bytes: where the table begins, its length and its xxh3-64 (u64
each), and a magic. A piece is held against its hash whenever it is read.

`Product.read_now` belongs to the event loop and does not wait; the rest is blocking, any thread.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgpack
import xxhash

VERSION: Final = 1
MOST_PIECES: Final = 1 << 20
LARGEST_TABLE: Final = 64 << 20
LONGEST_REASON: Final = 1000
"""Characters."""

_MAGIC: Final = b"fsprodt1"
_FOOT: Final = struct.Struct("<QQQ8s")
_TAIL: Final = 16 << 10
"""Bytes at the end that are read at once: with a table of some hundred entries."""
AT_ONCE: Final = 1 << 20
"""Bytes that are read in one call, and that the loop itself reads of what the kernel has in memory."""


class Damaged(Exception):
    """A kept product is not what was written."""


class Entry(NamedTuple):
    """A piece in the file."""

    begin: int
    length: int
    digest: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A piece that the content does not allow, and why."""

    reason: str


class Product:
    """Pieces in an open file, which is closed with the last reference. Belongs to the loop; threads read."""

    __slots__ = (
        "count",
        "descriptor",
        "end",
        "entries",
        "grows",
        "in_memory",
        "key",
        "next",
        "path",
        "streak",
        "used",
    )

    def __init__(self, key: str, descriptor: int, path: Path | None, count: int, *, grows: bool) -> None:
        self.key = key
        self.descriptor = descriptor
        self.path = path
        """Where it lies as long as it has not been published; None: in its place, or in memory only."""
        self.grows = grows
        """More pieces can be written to it."""
        self.in_memory = grows and path is None
        self.count = count
        """How many pieces there are; 0: nobody knows yet."""
        self.entries: dict[int, Entry | Refused] = {}
        self.end = 0
        """Where the next piece begins."""
        self.next = 0
        """The piece behind the one that was read last."""
        self.streak = 0
        """How many were read one after the other."""
        self.used = 0

    def __del__(self) -> None:
        os.close(self.descriptor)

    @property
    def is_whole(self) -> bool:
        return 0 < self.count == len(self.entries)

    @property
    def sizes(self) -> list[int]:
        """Bytes by piece, -1 where that is not known or there are none."""
        found = [self.entries.get(number) for number in range(self.count)]
        return [entry.length if isinstance(entry, Entry) else -1 for entry in found]

    @property
    def size(self) -> int:
        """Bytes of the file, of a product that is kept."""
        return os.fstat(self.descriptor).st_size

    def parts(self) -> Iterator[bytes]:
        """The file of a product that is kept. Blocking; any thread. Raises `Damaged`."""
        size = self.size
        for begin in range(0, size, AT_ONCE):
            yield read_at(self.descriptor, begin, min(size - begin, AT_ONCE), 0)

    def read_now(self, entry: Entry) -> bytes:
        """A piece, if the kernel has it in memory. Raises `BlockingIOError`, `Damaged`."""
        if entry.length > AT_ONCE:
            raise BlockingIOError
        view = _buffer[: entry.length]
        try:
            got = os.preadv(self.descriptor, [view], entry.begin, os.RWF_NOWAIT)
        except OSError:
            raise BlockingIOError from None
        if got != entry.length:
            raise BlockingIOError
        if xxhash.xxh3_64_intdigest(view) != entry.digest:
            raise Damaged
        return bytes(view)

    def read(self, entry: Entry) -> bytes:
        """A piece, from the disk. Blocking; any thread. Raises `Damaged`."""
        data = read_at(self.descriptor, entry.begin, entry.length, 0)
        if xxhash.xxh3_64_intdigest(data) != entry.digest:
            raise Damaged
        return data


_buffer = memoryview(bytearray(AT_ONCE))


def pack_table(product: Product) -> bytes:
    """What comes behind the pieces."""
    entries = [product.entries.get(number) for number in range(product.count)]
    packed = [
        list(entry) if isinstance(entry, Entry) else entry.reason if entry else None for entry in entries
    ]
    table: bytes = msgpack.packb([VERSION, product.key, packed], unicode_errors="surrogateescape")
    return table + _FOOT.pack(product.end, len(table), xxhash.xxh3_64_intdigest(table), _MAGIC)


def read_table(product: Product, flags: int) -> None:
    """Learn of the pieces of a file; `flags` as of preadv(2). Raises `Damaged`, `BlockingIOError`."""
    status = os.fstat(product.descriptor)
    size = status.st_size
    if not stat.S_ISREG(status.st_mode) or size < _FOOT.size:
        raise Damaged
    tail = read_at(product.descriptor, max(size - _TAIL, 0), min(size, _TAIL), flags)
    end, length, digest, magic = _FOOT.unpack(tail[-_FOOT.size :])
    if magic != _MAGIC or end + length + _FOOT.size != size or length > LARGEST_TABLE:
        raise Damaged
    if length + _FOOT.size <= len(tail):
        table = tail[-_FOOT.size - length : -_FOOT.size]
    else:
        table = read_at(product.descriptor, end, length, flags)
    if xxhash.xxh3_64_intdigest(table) != digest:
        raise Damaged
    try:
        version, key, entries = msgpack.unpackb(table, unicode_errors="surrogateescape")
        if version != VERSION or key != product.key or not 0 < len(entries) <= MOST_PIECES:
            raise Damaged
        if product.count not in (0, len(entries)):
            raise Damaged
        product.entries = {
            number: _entry(entry, end) for number, entry in enumerate(entries) if entry is not None
        }
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise Damaged from error
    product.count = len(entries)
    product.end = end


def _entry(entry: Any, end: int) -> Entry | Refused:
    if isinstance(entry, str):
        return Refused(entry)
    begin, length, digest = map(int, entry)
    if not 0 <= begin <= begin + length <= end:
        raise Damaged
    return Entry(begin, length, digest)


def read_at(descriptor: int, begin: int, length: int, flags: int) -> bytes:
    """So many bytes, all of them. Raises as `read_table`."""
    data = bytearray(length)
    view = memoryview(data)
    while view:
        try:
            got = os.preadv(descriptor, [view], begin, flags)
        except OSError:
            raise BlockingIOError if flags else Damaged from None
        if not got or (flags and got < len(view)):
            raise BlockingIOError if flags else Damaged
        begin += got
        view = view[got:]
    return bytes(data)


def write_fully(descriptor: int, data: bytes, begin: int) -> None:
    """Write all of it. Raises `OSError`."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, begin)
        begin += written
        view = view[written:]
