"""`ContentStore`: what a mount asks for bytes and sizes. Async; lives on the event loop.

Today every byte comes from the local cache: first without leaving the loop (the kernel's caches
hold what is read again), else through a thread. It counts what it does for the status.

Thread rule: every attribute belongs to the loop; threads get descriptors, oids and buffers that
no one else touches while they run.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EAGAIN, EINVAL, EOPNOTSUPP
from typing import Final

from store.errors import ObjectCorrupt, ObjectMissing, StoreError
from store.local_cache import LocalCache
from store.oid import DIGEST_BYTES, DVC_ALGORITHMS
from store.threads import Threads
from store.tree import ALGORITHM_SHIFT, UNKNOWN, Tree

BUFFER_BYTES: Final = 1 << 20
MEASURED_AT_ONCE: Final = 4096
"""Rows. Between two such batches readers get their turn."""


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

    row: int
    descriptor: int
    size: int


class ContentStore:
    """The bytes and sizes of one tree's files, by row."""

    def __init__(self, tree: Tree, cache: LocalCache, threads: Threads) -> None:
        self.counters = Counters()
        self._tree = tree
        self._cache = cache
        self._threads = threads
        self._nowait = True
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        # The tree's own column is read-only and costs no memory of ours: copied only if it has gaps.
        self.sizes: Sequence[int] | memoryview = tree.size
        self._learnt = array("q")
        self.sizes_unknown = tree.sizes_unknown
        self.bytes_known = tree.bytes_known
        if tree.sizes_unknown:
            self.sizes = self._learnt = array("q", tree.size.tobytes())

    async def open(self, row: int) -> OpenObject:
        """Open a file's object. Raises `ObjectMissing`, `ObjectCorrupt`, `CacheUnusable`, `StoreTimeout`."""
        oid = self._tree.oid(row)
        try:
            try:
                descriptor, size = self._cache.try_open(oid)
            except BlockingIOError:
                descriptor, size = await self._threads.on_disk(
                    self._cache.open, oid, discard=lambda opened: os.close(opened[0])
                )
        except StoreError as error:
            raise self._explain(row, error) from None
        known = self.sizes[row]
        if known == UNKNOWN:
            self._learn(row, size)
        elif known != size:
            os.close(descriptor)
            wrong = ObjectCorrupt(f"object {oid} in the cache has {size} bytes and not {known}; remove it")
            raise self._explain(row, wrong)
        self.counters.hits += 1
        return OpenObject(row, descriptor, size)

    def close(self, opened: OpenObject) -> None:
        os.close(opened.descriptor)

    async def read(self, opened: OpenObject, offset: int, length: int) -> bytes | memoryview:
        """Up to `length` bytes from `offset`, all that there are; nothing beyond the end.

        What is returned is valid until the caller's next checkpoint: it may be a view of a buffer
        that the next read uses again.
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
            oid = self._tree.oid(opened.row)
            raise self._explain(opened.row, ObjectCorrupt(f"object {oid} became shorter while it was read"))
        self.counters.bytes_cache += wanted
        return data

    async def size(self, row: int) -> int:
        """A file's size in bytes. Raises as `open` does where nothing can tell it."""
        known = self.sizes[row]
        if known != UNKNOWN:
            return known
        oid = self._tree.oid(row)
        try:
            try:
                size = self._cache.try_size(oid)
            except BlockingIOError:
                size = await self._threads.on_disk(self._cache.size, oid)
        except StoreError as error:
            raise self._explain(row, error) from None
        self._learn(row, size)
        return size

    def size_now(self, row: int) -> int:
        """A file's size, or `UNKNOWN` where it cannot be told without waiting. 0 for a directory."""
        known = self.sizes[row]
        if known != UNKNOWN:
            return known
        try:
            size = self._cache.try_size(self._tree.oid(row))
        except (BlockingIOError, StoreError):
            return UNKNOWN
        self._learn(row, size)
        return size

    async def learn_sizes(self, rows: range) -> None:
        """Ask the cache for those of the rows' sizes that are not known; some may stay so."""
        sizes = self.sizes
        await self._ask_lengths([row for row in rows if sizes[row] == UNKNOWN], self._learn)

    async def is_cached(self, row: int) -> bool:
        """Does the cache hold the file's object?"""
        return await self._threads.on_disk(self._cache.has, self._tree.oid(row))

    async def measure_cached(self) -> int:
        """How many bytes the objects of this tree's files have that the cache holds, each file counted."""
        total = 0

        def count(_: int, size: int) -> None:
            nonlocal total
            total += size

        for start in range(0, self._tree.rows, MEASURED_AT_ONCE):
            rows = range(start, min(start + MEASURED_AT_ONCE, self._tree.rows))
            await self._ask_lengths([row for row in rows if not self._tree.is_directory(row)], count)
        return total

    async def _ask_lengths(self, rows: list[int], told: Callable[[int, int], None]) -> None:
        """Ask the cache for the lengths of the rows' objects in one hop; `told(row, size)` what it has."""
        flags, digest, width = self._tree.flags, self._tree.digest, self._tree.digest_width
        for place, algorithm in enumerate(DVC_ALGORITHMS):
            length = DIGEST_BYTES[algorithm]
            of_kind = [row for row in rows if flags[row] >> ALGORITHM_SHIFT == place]
            if of_kind:
                digests = [digest[row * width : row * width + length].hex() for row in of_kind]
                lengths = await self._threads.on_disk(self._cache.lengths, digests, algorithm)
                for row, size in zip(of_kind, lengths, strict=True):
                    if size != UNKNOWN:
                        told(row, size)

    def _explain(self, row: int, error: StoreError) -> StoreError:
        """The same error with the file's path and what would help; counted where it is a miss."""
        message = f"{self._tree.path(row)!r}: {error}"
        if isinstance(error, ObjectMissing):
            self.counters.misses += 1
            message += "; `dvc fetch` would bring it"
        return type(error)(message)

    def _learn(self, row: int, size: int) -> None:
        if self._learnt and self._learnt[row] == UNKNOWN:
            self._learnt[row] = size
            self.sizes_unknown -= 1
            self.bytes_known += size


def _read_fully(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
