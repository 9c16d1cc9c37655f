"""`ContentStore`: bytes by oid, for all versions that a daemon serves. Async; lives on the event loop.

What the cache holds is served first without leaving the loop (the kernel's caches hold what is
read again), else through a thread. It counts what it does for the status.

Thread rule: every attribute belongs to the loop; threads get descriptors, oids and buffers that
no one else touches while they run.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from errno import EAGAIN, EINVAL, EOPNOTSUPP
from typing import Final

from store.cache_chain import ObjectCache
from store.errors import ObjectCorrupt, ObjectMissing
from store.fetcher import Fetcher, Source
from store.oid import DVC_ALGORITHMS, Oid
from store.threads import Threads
from store.tree import UNKNOWN

BUFFER_BYTES: Final = 1 << 20


@dataclass(slots=True)
class Counters:
    """What the status shows; plain numbers that only grow."""

    hits: int = 0
    misses: int = 0
    errors: int = 0
    bytes_cache: int = 0
    bytes_remote: int = 0


@dataclass(slots=True)
class OpenObject:
    """An object that a reader holds open: it keeps its bytes whatever happens in the cache."""

    oid: Oid
    descriptor: int
    size: int


class ContentStore:
    """The objects of DVC's cache, and those of git that `blobs`, a directory of our own, keeps."""

    def __init__(self, cache: ObjectCache, blobs: ObjectCache, threads: Threads, fetcher: Fetcher) -> None:
        self.counters = Counters()
        self._cache = cache
        self._blobs = blobs
        self._threads = threads
        self._fetcher = fetcher
        self._nowait = True
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    async def open(self, oid: Oid, known: int = UNKNOWN, source: Source | None = None) -> OpenObject:
        """Open an object of `known` length; what is missing is brought by `source`, where there is one.

        Raises `ObjectMissing`, `ObjectCorrupt`, `CacheUnusable`, `StoreTimeout`.
        """
        home = self._home(oid)
        try:
            opened = await self._open(oid, home)
            missed = False
        except ObjectMissing:
            self.counters.misses += 1
            if source is None:
                raise
            await self._fetcher.bring(oid, source)
            opened = await self._open(oid, home)
            missed = True
        if known not in (UNKNOWN, opened.size) and home is self._blobs and source is not None:
            # What a crash left of a file of our own, which nothing else depends on.
            self.close(opened)
            await self._fetcher.bring(oid, source)
            opened = await self._open(oid, home)
        if known not in (UNKNOWN, opened.size):
            self.close(opened)
            raise ObjectCorrupt(
                f"object {oid} in the cache has {opened.size} bytes and not {known}; remove it"
            )
        self.counters.hits += not missed
        return opened

    async def _open(self, oid: Oid, home: ObjectCache) -> OpenObject:
        try:
            descriptor, size = home.try_open(oid)
        except BlockingIOError:
            descriptor, size = await self._threads.on_disk(
                home.open, oid, discard=lambda opened: os.close(opened[0])
            )
        return OpenObject(oid, descriptor, size)

    def start_soon(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Run something in the store's nursery, which no reader's leaving ends. It must not raise."""
        self._fetcher.start_soon(work, *arguments)

    def close(self, opened: OpenObject) -> None:
        os.close(opened.descriptor)

    async def read(self, opened: OpenObject, offset: int, length: int) -> bytes | memoryview:
        """Up to `length` bytes from `offset`, all that there are; nothing beyond the end.

        What is returned is valid until the caller's next checkpoint: it may be a view of a buffer
        that the next read uses again. Raises `ObjectCorrupt` where the file has become shorter.
        """
        wanted = min(length, opened.size - offset)
        if wanted <= 0:
            return b""
        got = 0
        if self._nowait and wanted <= BUFFER_BYTES:
            try:
                got = os.preadv(opened.descriptor, [self._buffer[:wanted]], offset, os.RWF_NOWAIT)
            except OSError as error:
                if error.errno in (EOPNOTSUPP, EINVAL):
                    self._nowait = False  # the cache's file system cannot: always a thread from here on
                elif error.errno != EAGAIN:
                    raise
        if got == wanted:
            self.counters.bytes_cache += got
            return self._buffer[:wanted]
        data = await self._threads.on_disk(_read_fully, opened.descriptor, offset, wanted)
        if len(data) != wanted:
            raise ObjectCorrupt(f"object {opened.oid} became shorter while it was read")
        self.counters.bytes_cache += wanted
        return data

    def size_now(self, oid: Oid) -> int:
        """An object's size. Raises `BlockingIOError` where telling it would wait, else as `size` does."""
        return self._home(oid).try_size(oid)

    async def size(self, oid: Oid) -> int:
        """An object's size in bytes. Raises as `open` does; a miss is counted."""
        home = self._home(oid)
        try:
            try:
                return home.try_size(oid)
            except BlockingIOError:
                return await self._threads.on_disk(home.size, oid)
        except ObjectMissing:
            self.counters.misses += 1
            raise

    async def lengths(self, digests: list[str], algorithm: str) -> list[int]:
        """The lengths of many of DVC's objects, in one hop; `UNKNOWN` for what cannot be told."""
        return await self._threads.on_disk(self._cache.lengths, digests, algorithm)

    async def has(self, oid: Oid) -> bool:
        """Does the cache hold the object?"""
        return await self._threads.on_disk(self._home(oid).has, oid)

    def _home(self, oid: Oid) -> ObjectCache:
        return self._cache if oid.algorithm in DVC_ALGORITHMS else self._blobs


def _read_fully(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
