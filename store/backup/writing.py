"""`write_backup`: objects of a cache into a backup, each proved by its hash on the way.

Small objects are read and hashed by a few threads ahead of the one that writes; a large one is hashed by one
of them while it is read. What is not what its name says ends the backup: a damaged object must not be
found out when it is needed. Blocking; the threads end with the call.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, Final

import xxhash

from store.backup.format import (
    BLOCK,
    END_BLOCKS,
    HEADER_NAME,
    TRAILER_NAME,
    Header,
    Sum,
    member_header,
    member_name,
    padding,
    product_name,
)
from store.cache_chain import ObjectCache
from store.errors import ObjectCorrupt, ObjectMissing
from store.hashing import Hasher
from store.making.product import Damaged
from store.making.products import Products
from store.manifest import check_manifest
from store.oid import Oid

SMALL: Final = 4 << 20
"""Bytes of an object that is read as a whole."""
THREADS: Final = 2
AHEAD: Final = 16
"""Small objects that are in memory at most."""
_PIECE: Final = 4 << 20

Told = Callable[[int, int], None]
"""Told how many objects, and bytes of them, have been written."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A product that a cache keeps: its key, and the bytes of its file."""

    products: Products
    key: str
    size: int


def write_backup(
    header: Header,
    objects: Sequence[tuple[Oid, int]],
    products: Sequence[Kept],
    cache: ObjectCache,
    file: BinaryIO,
    told: Told,
) -> None:
    """Write a backup: `objects` are those of the header with their lengths, manifests last.

    Raises `ObjectCorrupt` for one that has other bytes or another length, `ObjectMissing` (also for a
    product that was evicted meanwhile), `CacheUnusable`, and `OSError` of the file.
    """
    writer = _Writer(file)
    writer.add(HEADER_NAME, header.to_bytes())
    done = written = 0
    with ThreadPoolExecutor(THREADS, thread_name_prefix="backup") as threads:
        for oid, size, pieces in read_all(objects, cache, threads):
            writer.begin(member_name(oid), size)
            for piece in pieces:
                writer.put(piece)
            writer.end()
            done, written = done + 1, written + size
            told(done, written)
    for kept in products:
        _write_product(kept, writer)
        done, written = done + 1, written + kept.size
        told(done, written)
    file.write(writer.trailer())
    file.write(bytes(END_BLOCKS * BLOCK))


def _write_product(kept: Kept, writer: _Writer) -> None:
    product = kept.products.open(kept.key, 0)
    if product is None or product.size != kept.size or not kept.products.is_sound(product):
        raise ObjectMissing(f"the product {kept.key} was evicted or is damaged; back up again to do without")
    writer.begin(product_name(kept.key), kept.size)
    try:
        for part in product.parts():
            writer.put(part)
    except Damaged:
        raise ObjectCorrupt(f"the product {kept.key} cannot be read; back up again to do without") from None
    writer.end()


class _Writer:
    """Members, and the checksum of them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sum = Sum()
        self._name, self._size = "", 0
        self._state = xxhash.xxh3_128()

    def begin(self, name: str, size: int) -> None:
        self._name, self._size = name, size
        self._state.reset()
        self._file.write(member_header(name, size))

    def put(self, data: bytes | memoryview) -> None:
        self._state.update(data)
        self._file.write(data)

    def end(self) -> None:
        self._file.write(bytes(padding(self._size)))
        self._sum.add(self._name, self._size, self._state)

    def add(self, name: str, data: bytes) -> None:
        self.begin(name, len(data))
        self.put(data)
        self.end()

    def trailer(self) -> bytes:
        data = self._sum.trailer()
        return member_header(TRAILER_NAME, len(data)) + data + bytes(padding(len(data)))


Pieces = Iterable[bytes | memoryview]


def read_all(
    objects: Sequence[tuple[Oid, int]], cache: ObjectCache, threads: ThreadPoolExecutor
) -> Iterator[tuple[Oid, int, Pieces]]:
    """Objects in their order, with their lengths and bytes, which are proved when the last have come.

    Raises as `write_backup`.
    """
    ahead: deque[tuple[Oid, int, Future[bytes] | None]] = deque()
    coming = iter(objects)
    try:
        while True:
            while len(ahead) < AHEAD and (following := next(coming, None)) is not None:
                oid, size = following
                is_small = size <= SMALL or oid.is_tree
                reading = threads.submit(read_object, cache, oid, size) if is_small else None
                ahead.append((oid, size, reading))
            if not ahead:
                return
            oid, size, reading = ahead.popleft()
            yield (
                oid,
                size,
                _read_large(cache, oid, size, threads) if reading is None else (reading.result(),),
            )
    finally:
        for _, _, reading in ahead:
            if reading is not None:
                reading.cancel()


def _open(cache: ObjectCache, oid: Oid, size: int) -> int:
    descriptor, length = cache.open(oid)
    if length != size:
        os.close(descriptor)
        raise ObjectCorrupt(
            f"object {oid} has {length} bytes and not {size}; `fusefs cache verify` looks at all"
        )
    return descriptor


def read_object(cache: ObjectCache, oid: Oid, size: int) -> bytes:
    """An object that is small, proved. Raises as `write_backup`."""
    descriptor = _open(cache, oid, size)
    try:
        data = b""
        while len(data) < size and (piece := os.pread(descriptor, size - len(data), len(data))):
            data = data + piece if data else piece
    finally:
        os.close(descriptor)
    if oid.is_tree:
        check_manifest(data, oid)
        return data
    hasher = Hasher(oid.algorithm)
    hasher.update(data)
    _check(hasher, oid, len(data) == size)
    return data


def _read_large(cache: ObjectCache, oid: Oid, size: int, threads: ThreadPoolExecutor) -> Pieces:
    """Pieces of an object; the last one comes when all have been hashed."""
    descriptor = _open(cache, oid, size)
    try:
        hasher = Hasher(oid.algorithm)
        hashing: Future[None] | None = None
        offset = 0
        while offset < size:
            piece = os.pread(descriptor, min(_PIECE, size - offset), offset)
            if hashing is not None:
                hashing.result()
            if not piece:
                break
            offset += len(piece)
            hashing = threads.submit(hasher.update, piece)
            if offset == size:
                hashing.result()
                _check(hasher, oid, True)
            yield piece
        if offset != size:
            _check(hasher, oid, False)
    finally:
        os.close(descriptor)


def _check(hasher: Hasher, oid: Oid, is_whole: bool) -> None:
    if not is_whole or not hasher.matches(oid):
        raise ObjectCorrupt(
            f"object {oid} in the cache is damaged; `fusefs cache repair` brings it from a remote"
        )
