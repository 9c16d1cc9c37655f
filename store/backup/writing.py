"""`write_backup`: objects of a cache into a backup, each proved by its hash on the way.

Small objects are read and hashed by a few threads, some at a time, ahead of the one that writes; a large one
is hashed by one of them while it is written. What is not what its name says ends the backup: a damaged
object must not be found out when it is needed. Blocking; the threads end with the call.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, Final

import xxhash

from store.backup.format import END_BLOCKS, HEADER_NAME, TRAILER_NAME, Header, Sum
from store.backup.members import BLOCK, member_header, member_name, padding, product_name
from store.cache_chain import ObjectCache
from store.errors import ObjectCorrupt, ObjectMissing
from store.hashing import Hasher
from store.making.product import Damaged
from store.making.products import Products
from store.manifest import check_manifest
from store.oid import Oid
from store.syncing import start_writing

SMALL: Final = 4 << 20
"""Bytes of an object that is read as a whole."""
GROUP_OBJECTS: Final = 64
GROUP_BYTES: Final = 4 << 20
"""Small objects that a thread takes together."""
THREADS: Final = 2
AHEAD: Final = 4
"""Groups of small objects, or large ones, that are looked at before their turn."""
_PIECE: Final = 4 << 20
_BEGUN_BYTES: Final = 32 << 20
"""After so many the disk begins to write them."""

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
        self._written = 0

    def begin(self, name: str, size: int) -> None:
        self._name, self._size = name, size
        self._state.reset()
        self._file.write(member_header(name, size))

    def put(self, data: bytes | memoryview) -> None:
        self._state.update(data)
        self._file.write(data)
        self._written += len(data)
        if self._written >= _BEGUN_BYTES:
            start_writing(self._file.fileno())
            self._written = 0

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
"""To be done with before the next one is asked for."""


def read_all(
    objects: Iterable[tuple[Oid, int]], cache: ObjectCache, threads: ThreadPoolExecutor
) -> Iterator[tuple[Oid, int, Pieces]]:
    """Objects in their order, with their lengths and bytes, which are proved when the last have come.

    Raises as `write_backup`.
    """
    ahead: deque[tuple[Sequence[tuple[Oid, int]], Future[list[bytes]] | None]] = deque()
    coming = _group(objects)
    try:
        while True:
            while len(ahead) < AHEAD and (group := next(coming, None)) is not None:
                is_small = _is_small(*group[0])
                ahead.append((group, threads.submit(read_objects, cache, group) if is_small else None))
            if not ahead:
                return
            group, reading = ahead.popleft()
            if reading is None:
                ((oid, size),) = group
                yield oid, size, _read_large(cache, oid, size, threads)
                continue
            contents = reading.result()
            del reading  # or two groups more than said would be in memory
            for (oid, size), data in zip(group, contents, strict=True):
                yield oid, size, (data,)
    finally:
        for _, reading in ahead:
            if reading is not None:
                reading.cancel()


def _group(objects: Iterable[tuple[Oid, int]]) -> Iterator[Sequence[tuple[Oid, int]]]:
    """Small objects that follow each other, together; each large one alone."""
    group: list[tuple[Oid, int]] = []
    total = 0
    for oid, size in objects:
        is_small = _is_small(oid, size)
        if group and (not is_small or len(group) == GROUP_OBJECTS or total + size > GROUP_BYTES):
            yield group
            group, total = [], 0
        if is_small:
            group.append((oid, size))
            total += size
        else:
            yield [(oid, size)]
    if group:
        yield group


def _is_small(oid: Oid, size: int) -> bool:
    return size <= SMALL or oid.is_tree


def _open(cache: ObjectCache, oid: Oid, size: int) -> int:
    descriptor, length = cache.open(oid)
    if length != size:
        os.close(descriptor)
        raise ObjectCorrupt(
            f"object {oid} has {length} bytes and not {size}; `fusefs cache verify` looks at all"
        )
    return descriptor


def read_objects(cache: ObjectCache, objects: Iterable[tuple[Oid, int]]) -> list[bytes]:
    """As `read_object`, for several."""
    return [read_object(cache, oid, size) for oid, size in objects]


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
    # One is hashed and written while the other is filled: fresh ones would cost more than the reading.
    buffers = deque(memoryview(bytearray(_PIECE)) for _ in range(2))
    hasher = Hasher(oid.algorithm)
    hashing: Future[None] | None = None
    offset = 0
    try:
        while offset < size:
            buffer = buffers[0][: size - offset]
            buffers.rotate()
            got = os.preadv(descriptor, [buffer], offset)
            if hashing is not None:
                hashing.result()
            if not got:
                break
            offset += got
            hashing = threads.submit(hasher.update, buffer[:got])
            if offset == size:
                hashing.result()
                _check(hasher, oid, True)
            yield buffer[:got]
        if offset != size:
            _check(hasher, oid, False)
    finally:
        os.close(descriptor)


def _check(hasher: Hasher, oid: Oid, is_whole: bool) -> None:
    if not is_whole or not hasher.matches(oid):
        raise ObjectCorrupt(
            f"object {oid} in the cache is damaged; `fusefs cache repair` brings it from a remote"
        )
