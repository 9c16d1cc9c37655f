"""`Products`: what was made, kept in a cache by key: one file each, evictable at will, told from garbage.

The file is `fusefs/derived/<kk>/<rest of the key>` below the cache: the bytes of the pieces, in the order in
which they were made; a table, msgpack's list of a version, the key, and an entry for every piece ([begin,
length, xxh3-64], a text where the content does not allow the piece, nil where it was not made); and 32 bytes:
where the table begins, its length and its xxh3-64 (u64 each), and a magic. A piece is held against its hash
whenever it is read. What is damaged is dropped and made again.

`open_now` and `Product.read_now` belong to the event loop and do not wait; the rest is blocking, any thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgpack
import xxhash

from store.errors import CacheUnusable
from store.fetching.arrivals import Arrivals
from store.keeping.leases import hold
from store.openat2 import open_beneath

BELOW: Final = "fusefs/derived"
VERSION: Final = 1
MOST_PIECES: Final = 1 << 20
LARGEST_TABLE: Final = 64 << 20
LONGEST_REASON: Final = 1000
"""Characters."""
MARKED_SECONDS: Final = 3600.0
"""A product that is used is marked so at most so often, for whoever evicts."""

_MAGIC: Final = b"fsprodt1"
_FOOT: Final = struct.Struct("<QQQ8s")
_TAIL: Final = 16 << 10
"""Bytes at the end that are read at once: with a table of some hundred entries."""
_AT_ONCE: Final = 1 << 20
"""Bytes that the loop itself reads of what the kernel has in memory."""


log = logging.getLogger(__name__)


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
        for begin in range(0, size, _AT_ONCE):
            yield _read_at(self.descriptor, begin, min(size - begin, _AT_ONCE), 0)

    def read_now(self, entry: Entry) -> bytes:
        """A piece, if the kernel has it in memory. Raises `BlockingIOError`, `Damaged`."""
        if entry.length > _AT_ONCE:
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
        data = _read_at(self.descriptor, entry.begin, entry.length, 0)
        if xxhash.xxh3_64_intdigest(data) != entry.digest:
            raise Damaged
        return data


_buffer = memoryview(bytearray(_AT_ONCE))


class Products:
    """The products that are kept in the cache at `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._arrivals = Arrivals(root, below=BELOW)
        self._lock = threading.Lock()
        self._directory = -1

    def new(self, key: str, count: int) -> Product:
        """An empty one; in memory where the cache cannot be written to. Raises `CacheUnusable`."""
        try:
            descriptor, path = self._arrivals.new_file()
        except CacheUnusable:
            return self.new_in_memory(key, count)
        return Product(key, descriptor, path, count, grows=True)

    def new_in_memory(self, key: str, count: int) -> Product:
        """An empty one that is never kept. Raises `CacheUnusable`."""
        try:
            descriptor = os.memfd_create("fusefs-product")
        except OSError as error:
            raise CacheUnusable(f"there is no room for what is made: {error.strerror}") from None
        return Product(key, descriptor, None, count, grows=True)

    def grown(self, product: Product) -> Product:
        """A copy to which more pieces can be written; an empty one where it cannot be copied. Raises
        `CacheUnusable`."""
        copy = self.new(product.key, product.count)
        try:
            for begin in range(0, product.end, _AT_ONCE):
                part = _read_at(product.descriptor, begin, min(product.end - begin, _AT_ONCE), 0)
                _write_fully(copy.descriptor, part, begin)
        except (OSError, Damaged):
            self.discard(copy)
            return self.new_in_memory(product.key, product.count)
        copy.entries, copy.end = dict(product.entries), product.end
        return copy

    def publish(self, product: Product) -> int:
        """Keep what there is of it: how many bytes the file has. Raises `CacheUnusable`; then it is dropped
        and can be read as long as it is open."""
        assert product.path is not None
        entries = [product.entries.get(number) for number in range(product.count)]
        packed = [
            list(entry) if isinstance(entry, Entry) else entry.reason if entry else None for entry in entries
        ]
        table: bytes = msgpack.packb([VERSION, product.key, packed], unicode_errors="surrogateescape")
        foot = _FOOT.pack(product.end, len(table), xxhash.xxh3_64_intdigest(table), _MAGIC)
        path, product.path = product.path, None
        product.grows = False
        size = product.end + len(table) + _FOOT.size
        try:
            _write_fully(product.descriptor, table + foot, product.end)
            os.ftruncate(product.descriptor, size)  # a worker that was killed may have written more
            self._arrivals.put(place(product.key), path, product.descriptor)
        except (OSError, CacheUnusable) as error:
            self._arrivals.discard(path)
            if isinstance(error, CacheUnusable):
                raise
            raise CacheUnusable(f"a product cannot be kept: {error.strerror}") from None
        hold(product.descriptor)
        return size

    def receive(
        self, key: str, count: int, parts: Iterable[bytes], largest: int, *, to_keep: bool = True
    ) -> Product:
        """A product from elsewhere, of at most so many bytes: its file in parts. All of it is verified; it
        can be read and, where it is to be kept, published.

        Raises `Damaged` for what is not a whole product of that key and of `count` pieces (0: any number),
        `CacheUnusable`, and what iterating raises.
        """
        product = self.new(key, count) if to_keep else self.new_in_memory(key, count)
        try:
            size = 0
            for part in parts:
                size += len(part)
                if size > largest:
                    raise Damaged
                _write_fully(product.descriptor, part, size - len(part))
            _read_table(product, 0)
            if not product.is_whole or not self.is_sound(product):
                raise Damaged
        except OSError as error:
            self.discard(product)
            raise CacheUnusable(f"there is no room for a product: {error.strerror}") from None
        except BaseException:
            self.discard(product)
            raise
        product.grows = False
        return product

    def is_sound(self, product: Product) -> bool:
        """Are all pieces what their hashes say, and no more than the file? Blocking; any thread."""
        entries = [entry for entry in product.entries.values() if isinstance(entry, Entry)]
        if sum(entry.length for entry in entries) > product.end:
            return False
        try:
            for entry in entries:
                product.read(entry)
        except Damaged:
            return False
        return all(
            len(entry.reason) <= LONGEST_REASON
            for entry in product.entries.values()
            if isinstance(entry, Refused)
        )

    def discard(self, product: Product) -> None:
        """It will not be published. It can be read as long as it is open."""
        product.grows = False
        if product.path is not None:
            self._arrivals.discard(product.path)
            product.path = None

    def open_now(self, key: str, count: int) -> Product | None:
        """As `open`. Raises `BlockingIOError` where that would wait for the disk."""
        if self._directory < 0:
            raise BlockingIOError
        try:
            descriptor = open_beneath(self._directory, os.fsencode(f"{BELOW}/{place(key)}"), cached=True)
        except FileNotFoundError:
            return None
        except OSError:
            raise BlockingIOError from None
        return self._read(key, count, descriptor, os.RWF_NOWAIT)

    def open(self, key: str, count: int) -> Product | None:
        """A product of `count` pieces, 0 for any number, that is kept; None where there is none, or a damaged
        one, which is dropped."""
        try:
            descriptor = open_beneath(self._open_root(), os.fsencode(f"{BELOW}/{place(key)}"))
        except OSError:
            return None
        return self._read(key, count, descriptor, 0)

    def drop(self, key: str) -> None:
        """Delete a product that is damaged."""
        with contextlib.suppress(OSError):
            (self._root / BELOW / place(key)).unlink()

    def prepare(self) -> None:
        """Clear away what dead processes left of products. Raises `CacheUnusable`."""
        self._arrivals.prepare()

    def close(self) -> None:
        self._arrivals.close()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def _open_root(self) -> int:
        with self._lock:
            if self._directory < 0:
                self._directory = os.open(self._root, os.O_PATH | os.O_CLOEXEC)
            elif not os.path.samestat(os.fstat(self._directory), self._root.stat()):
                # The cache was moved away. The number stays: the loop may be about to use it.
                moved = os.open(self._root, os.O_PATH | os.O_CLOEXEC)
                os.dup2(moved, self._directory, inheritable=False)
                os.close(moved)
            return self._directory

    def _read(self, key: str, count: int, descriptor: int, flags: int) -> Product | None:
        product = Product(key, descriptor, None, count, grows=False)
        try:
            _read_table(product, flags)
        except BlockingIOError:
            raise
        except (OSError, Damaged):
            log.warning("a kept product, %s, is damaged; it is made again", key)
            self.drop(key)
            return None
        hold(descriptor)
        with contextlib.suppress(OSError):  # somebody else's
            if time.time() - os.fstat(descriptor).st_mtime > MARKED_SECONDS:
                os.utime(descriptor)
        return product


def place(key: str) -> str:
    """Where the product of a key lies below `BELOW`."""
    return f"{key[:2]}/{key[2:]}"


def _read_table(product: Product, flags: int) -> None:
    status = os.fstat(product.descriptor)
    size = status.st_size
    if not stat.S_ISREG(status.st_mode) or size < _FOOT.size:
        raise Damaged
    tail = _read_at(product.descriptor, max(size - _TAIL, 0), min(size, _TAIL), flags)
    end, length, digest, magic = _FOOT.unpack(tail[-_FOOT.size :])
    if magic != _MAGIC or end + length + _FOOT.size != size or length > LARGEST_TABLE:
        raise Damaged
    if length + _FOOT.size <= len(tail):
        table = tail[-_FOOT.size - length : -_FOOT.size]
    else:
        table = _read_at(product.descriptor, end, length, flags)
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


def _read_at(descriptor: int, begin: int, length: int, flags: int) -> bytes:
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


def _write_fully(descriptor: int, data: bytes, begin: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, begin)
        begin += written
        view = view[written:]
