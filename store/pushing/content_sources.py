"""What is put of contents that are not put whole: their parts, and archives of them; from a cache, proved.

Blocking; any thread.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import xxhash

from store.cache_chain import CacheChain
from store.contents.archiving import Archive, build_archive
from store.contents.chunking import chunks
from store.contents.index import Piece
from store.errors import CacheUnusable, ObjectCorrupt, ObjectMissing, StoreError
from store.oid import Oid
from store.pushing.sources import verified


def cut(caches: CacheChain, oid: Oid, told: Callable[[int], object]) -> list[Piece]:
    """The pieces of a content, which has proved to be what its name says. `told` is told of bytes.

    Raises `ObjectMissing`, `ObjectCorrupt`, `CacheUnusable`.
    """
    pieces: list[Piece] = []
    offset = 0
    descriptor, size = caches.open(oid)
    try:
        for data in chunks(_Reader(verified(descriptor, size, oid, told))):
            part, checksum = hashlib.sha256(data).hexdigest(), xxhash.xxh3_128_digest(data)
            pieces.append(Piece(offset, len(data), part, checksum))
            offset += len(data)
    finally:
        os.close(descriptor)
    return pieces


def read_piece(caches: CacheChain, oid: Oid, piece: Piece) -> bytes:
    """A piece of a content, held against the name of its part. Raises as `cut`."""
    descriptor, _ = caches.open(oid)
    try:
        data = os.pread(descriptor, piece.length, piece.offset)
    except OSError as error:
        raise CacheUnusable(f"object {oid} in the cache: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if hashlib.sha256(data).hexdigest() != piece.part:
        raise ObjectCorrupt(f"object {oid} in the cache has changed while it was pushed")
    return data


def archive_of(
    caches: CacheChain,
    oids: Sequence[Oid],
    fail: Callable[[Oid, StoreError], object],
    told: Callable[[int], object],
) -> Archive | None:
    """An archive of these contents but those that `fail` is told of; None where none is left."""
    found: list[tuple[Oid, bytes]] = []
    for oid in oids:
        try:
            descriptor, size = caches.open(oid)
            try:
                found.append((oid, b"".join(verified(descriptor, size, oid, told))))
            finally:
                os.close(descriptor)
        except (ObjectMissing, ObjectCorrupt, CacheUnusable) as error:
            fail(oid, error)
    return build_archive(found) if found else None


class _Reader:
    """Parts as a stream."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts: Iterator[bytes] = iter(parts)
        self._rest = memoryview(b"")

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._parts, b""))
        length = min(len(buffer), len(self._rest))
        buffer[:length] = self._rest[:length]
        self._rest = self._rest[length:]
        return length
