"""`ContentStore`: bytes by oid, for all versions that a daemon serves. Async; lives on the event loop.

What the cache holds is served first without leaving the loop (the kernel's caches hold what is read again,
and a quick disk is waited for: `store.pace`), else through a thread. What it lacks is fetched: small objects
whole, before they are open, large ones as they are read. It counts what it does for the status.

Thread rule: every attribute belongs to the loop; threads get descriptors, oids and buffers that
no one else touches while they run.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from errno import EAGAIN, EINVAL, EOPNOTSUPP
from time import monotonic
from typing import Final, Generic, TypeVar

from store.cache_chain import ObjectCache
from store.errors import CacheUnusable, ObjectCorrupt, ObjectMissing, StoreError
from store.fetcher import Fetcher, Source
from store.fetching.download import WHOLE_LIMIT, Fetched, Large
from store.fetching.flights import Flights
from store.fetching.remote_set import RemoteSet
from store.keeping.leases import hold
from store.oid import DVC_ALGORITHMS, Oid
from store.open_objects import (
    Brought,
    OpenFile,
    OpenObject,
    RangedObjects,
    open_fetched,
)
from store.pace import DiskPace
from store.threads import Threads
from store.tree import UNKNOWN

T = TypeVar("T")

BUFFER_BYTES: Final = 1 << 20


@dataclass(slots=True)
class Counters:
    """What the status shows; plain numbers that only grow."""

    hits: int = 0
    misses: int = 0
    errors: int = 0
    bytes_cache: int = 0


class _Timed(Generic[T]):
    """How long a question took the disk, whoever asked it and whatever it answered: not how long the loop
    had no time to hear of it."""

    def __init__(self, work: Callable[[Oid], T]) -> None:
        self._work = work
        self.began = self.ended = 0.0

    def __call__(self, oid: Oid) -> T:
        self.began = monotonic()
        try:
            return self._work(oid)
        finally:
            self.ended = monotonic()


class ContentStore:
    """The objects of DVC's cache, and those of git that `blobs`, a directory of our own, keeps."""

    def __init__(
        self, cache: ObjectCache, blobs: ObjectCache, threads: Threads, fetcher: Fetcher, pace: DiskPace
    ) -> None:
        self.counters = Counters()
        self.pace = pace
        self.on_open: Callable[[Oid, int], object] | None = None
        """Told of every object that was opened as a file, with its descriptor."""
        self.was_hashed: Callable[[Oid, int], bool] = lambda *_: False
        """Did we hash the object of that length that lies in the cache? Blocking, any thread."""
        self._flights: Flights | None = None
        self._ranged: RangedObjects | None = None
        self._cache = cache
        self._blobs = blobs
        self._threads = threads
        self._fetcher = fetcher
        self._nowait = True
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    def fetch_with(self, flights: Flights, ranged: RangedObjects) -> None:
        """Fetch from remotes from now on: small objects by `flights`, large ones by `ranged`."""
        self._flights = flights
        self._ranged = ranged

    async def open(
        self,
        oid: Oid,
        known: int = UNKNOWN,
        source: Source | None = None,
        remotes: RemoteSet | None = None,
        *,
        keep: bool = True,
        is_missing: bool = False,
    ) -> OpenObject:
        """Open an object of `known` length; what is missing is brought by `source` or
        fetched from `remotes`, and with `keep` comes into the cache. `is_missing` says that
        the cache did not have it a moment ago.

        Raises `ObjectMissing`, `ObjectCorrupt`, `CacheUnusable`, `StoreTimeout`, `RemoteError`, `Offline`.
        """
        opened: OpenObject
        if remotes and self._flights is not None and oid.algorithm in DVC_ALGORITHMS:
            here = None if is_missing else self._try_to_open(oid, known)
            opened = here or await self._open_or_fetch(oid, known, remotes, self._flights, keep=keep)
        else:
            opened = await self._open_or_bring(oid, known, source)
        if known not in (UNKNOWN, opened.size):
            opened.close()
            raise ObjectCorrupt(
                f"object {oid} in the cache has {opened.size} bytes and not {known}; remove it"
            )
        if self.on_open is not None and isinstance(opened, OpenFile):
            self.on_open(oid, opened.descriptor)
        return opened

    async def _open_or_bring(self, oid: Oid, known: int, source: Source | None) -> OpenFile:
        home = self._home(oid)
        try:
            opened = await self._open(oid, home)
            self.counters.hits += known in (UNKNOWN, opened.size)
        except ObjectMissing:
            self.counters.misses += 1
            if source is None:
                raise
            await self._fetcher.bring(oid, source, home.has)
            opened = await self._open(oid, home)
        if known not in (UNKNOWN, opened.size) and home is self._blobs and source is not None:
            # What a crash left of a file of our own, which nothing else depends on.
            opened.close()
            await self._fetcher.bring(oid, source)
            opened = await self._open(oid, home)
        return opened

    def _try_to_open(self, oid: Oid, known: int) -> OpenFile | None:
        try:
            descriptor, size = self._cache.try_open(oid)
        except (BlockingIOError, ObjectMissing, ObjectCorrupt, CacheUnusable):
            return None
        if known in (UNKNOWN, size):
            self.counters.hits += 1
            return OpenFile(oid, descriptor, size)
        os.close(descriptor)
        return None

    async def _open_or_fetch(
        self, oid: Oid, known: int, remotes: RemoteSet, flights: Flights, *, keep: bool
    ) -> OpenObject:
        """What cannot be opened at once; it is looked for again, and the disk is waited for."""
        found: Fetched | Large
        if known > WHOLE_LIMIT:
            assert self._ranged is not None  # set with the flights
            opened = await self._look(oid, known)
            if opened is None and await self._ranged.await_kept(oid):
                opened = await self._look(oid, known)
            if opened is not None:
                self.counters.hits += 1
                return opened
            found = Large(known)
        else:
            try:
                found = await flights.fetch(oid, known, remotes, keep=keep)
            except StoreError:
                self.counters.misses += 1
                raise
        if isinstance(found, Large):
            assert self._ranged is not None  # set with the flights
            self.counters.misses += 1
            return await self._ranged.open(oid, found.size, remotes)
        if found.remote is None:
            self.counters.hits += 1
        else:
            self.counters.misses += 1
        return open_fetched(found)

    async def bring(
        self, oid: Oid, known: int, remotes: RemoteSet | None, largest: int | None = None
    ) -> Brought | None:
        """Bring an object of DVC's into the cache ahead of its readers, and hold it open: a file that is held
        is not evicted. None where it has more than `largest` bytes. Nothing is counted.

        Raises as `open` does, and `CacheUnusable` for a large one that the cache has no room for.
        """
        if largest is not None and known > largest:
            return None
        found: Fetched | Large = Large(known)
        if not remotes or self._flights is None or self._ranged is None or known > WHOLE_LIMIT:
            here = await self._look(oid, known)
            if here is not None:
                return _held(here, came=False)
            if not remotes or self._flights is None or self._ranged is None:
                raise ObjectMissing(f"object {oid} is not in the cache, and there is no remote")
        else:  # which looks there, too; a reader who comes now takes part in it
            found = await self._flights.fetch(oid, known, remotes)
        if isinstance(found, Large):
            if largest is not None and found.size > largest:
                return None
            return await self._bring_large(oid, found.size, remotes, self._ranged)
        if known not in (UNKNOWN, found.size):
            raise ObjectCorrupt(f"object {oid} has {found.size} bytes and not {known}")
        came = found.remote is not None
        opened = open_fetched(found)
        if isinstance(opened, OpenFile) and (found.keep or not came):
            return _held(opened, came)
        return Brought(opened, came, kept=found.keep, memory=found.size)

    async def _bring_large(self, oid: Oid, size: int, remotes: RemoteSet, ranged: RangedObjects) -> Brought:
        coming = await ranged.open(oid, size, remotes)
        try:
            await coming.bring()
            opened = await self._look(oid, size)
        except BaseException:
            coming.close()
            raise
        if opened is None:  # what nobody hashes is served from where it came to
            return Brought(coming, came=True, kept=True, memory=0)
        coming.close()
        return _held(opened, came=True)

    def hand_over(self, opened: OpenObject) -> None:
        """A reader opens what was brought: count it as if it had been opened now."""
        self.counters.hits += 1
        if self.on_open is not None and isinstance(opened, OpenFile):
            self.on_open(opened.oid, opened.descriptor)

    async def _look(self, oid: Oid, known: int) -> OpenFile | None:
        """An object of the cache that has its length. What is wrong there may be had from elsewhere."""
        try:
            opened = await self._open(oid, self._cache)
        except (ObjectMissing, ObjectCorrupt, CacheUnusable):
            return None
        if known in (UNKNOWN, opened.size):
            return opened
        opened.close()
        return None

    async def _open(self, oid: Oid, home: ObjectCache) -> OpenFile:
        try:
            descriptor, size = home.try_open(oid)
        except BlockingIOError:
            descriptor, size = await self._wait_for_disk(
                home.open, oid, discard=lambda opened: os.close(opened[0])
            )
        return OpenFile(oid, descriptor, size)

    async def _wait_for_disk(
        self, work: Callable[[Oid], T], oid: Oid, discard: Callable[[T], object] | None = None
    ) -> T:
        """What only the disk knows: on the loop, if that is quick, else in a thread."""
        timed = _Timed(work)
        try:
            if self.pace.is_quick(monotonic()):
                return timed(oid)
            return await self._threads.on_disk(timed, oid, discard=discard)
        finally:
            if timed.ended:
                self.pace.took(timed.ended - timed.began, timed.ended)

    def start_soon(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Run something in the store's nursery, which no reader's leaving ends. It must not raise."""
        self._fetcher.start_soon(work, *arguments)

    def close(self, opened: OpenObject) -> None:
        opened.close()

    async def read(self, opened: OpenObject, offset: int, length: int) -> bytes | memoryview:
        """Up to `length` bytes from `offset`, all that there are; nothing beyond the end.

        What is returned is valid until the caller's next checkpoint: it may be a view of a buffer
        that the next read uses again. Raises `ObjectCorrupt` where the file has become shorter, and for
        what is fetched as it is read what `open` raises.
        """
        if not isinstance(opened, OpenFile):
            return await opened.read(offset, length)
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
        if wanted <= BUFFER_BYTES:
            return await self._read_disk(opened, offset, wanted)
        data = await self._threads.on_disk(_read_fully, opened.descriptor, offset, wanted)
        if len(data) != wanted:
            raise ObjectCorrupt(f"object {opened.oid} became shorter while it was read")
        self.counters.bytes_cache += wanted
        return data

    async def _read_disk(self, opened: OpenFile, offset: int, wanted: int) -> bytes | memoryview:
        """Bytes that the kernel has not cached, at most `BUFFER_BYTES`."""
        data: bytes | memoryview
        began = monotonic()
        if self.pace.is_quick(began):
            got = os.preadv(opened.descriptor, [self._buffer[:wanted]], offset)
            data = self._buffer[:got]
        else:
            data = await self._threads.on_disk(_read_fully, opened.descriptor, offset, wanted)
        ended = monotonic()
        self.pace.took(ended - began, ended)
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
                return await self._wait_for_disk(home.size, oid)
        except ObjectMissing:
            self.counters.misses += 1
            raise

    async def lengths(self, digests: list[str], algorithm: str) -> list[int]:
        """The lengths of many of DVC's objects, in one hop; `UNKNOWN` for what cannot be told."""
        return await self._threads.on_disk(self._cache.lengths, digests, algorithm)

    async def length(self, oid: Oid) -> int:
        """The length of what lies in the cache for an object; `UNKNOWN` for what cannot be served."""
        home = self._home(oid)
        try:
            try:
                return home.try_size(oid)
            except BlockingIOError:
                return await self._wait_for_disk(home.size, oid)
        except (ObjectMissing, ObjectCorrupt, CacheUnusable):
            return UNKNOWN

    async def await_kept(self, oid: Oid) -> None:
        """Wait until an object that was fetched is in the cache, or cannot be kept."""
        if self._flights is not None:
            await self._flights.await_published(oid)

    def is_on_its_way(self, oid: Oid) -> bool:
        """Was the object fetched, and comes into the cache when the disk has it?"""
        return self._flights is not None and self._flights.find(oid) is not None

    async def has(self, oid: Oid) -> bool:
        """Does the cache hold the object?"""
        return await self._threads.on_disk(self._home(oid).has, oid)

    async def proof(self, oid: Oid) -> str:
        """What speaks for the bytes that a reader would get: `hash`, where we hashed them; `length`; `none`,
        where they are not here."""
        if oid.algorithm not in DVC_ALGORITHMS:
            return "hash"  # git's are hashed as they are brought
        being_read = self._ranged.proof(oid) if self._ranged is not None else ""
        return being_read or await self._threads.on_disk(self._prove, oid)

    def _prove(self, oid: Oid) -> str:
        (length,) = self._cache.lengths([oid.digest], oid.algorithm)
        if length == UNKNOWN:
            return "none"
        return "hash" if self.was_hashed(oid, length) else "length"

    def _home(self, oid: Oid) -> ObjectCache:
        return self._cache if oid.algorithm in DVC_ALGORITHMS else self._blobs


def _held(opened: OpenFile, came: bool) -> Brought:
    hold(opened.descriptor)
    return Brought(opened, came, kept=True, memory=0)


def _read_fully(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
