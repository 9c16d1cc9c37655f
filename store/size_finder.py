"""`SizeFinder`: how long an object is, without its bytes: the cache, the index of sizes, then the remotes.

What a remote says is remembered in the index; that it has no such object, only for seconds. One question
is asked however many wait for it, and it lives in the finder's nursery: who gives up takes no other's
answer along. A size that only a file had that is gone by now is the last resort: it is told where no
remote can tell better.

Thread rule: belongs to the event loop; one per daemon.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeVar

import trio

from store.cache_chain import CacheChain
from store.errors import CacheUnusable, ObjectMissing, RemoteCorrupt, RemoteSlow, StoreError
from store.hashing import Hasher, file_matches
from store.manifest import SIZE_MAX
from store.oid import DVC_ALGORITHMS, Oid
from store.open_objects import OpenBytes, OpenFile
from store.oplog.hints import Hints
from store.pins import HOME as PINS
from store.remotes.remote import Remote, SizeQuestion
from store.sizes import How, Learnt, Size, SizeIndex
from store.sizes_here import look_here
from store.threads import Threads

log = logging.getLogger(__name__)

T = TypeVar("T")

QUESTION_SECONDS: Final = 10.0
"""How long a `stat` waits for remotes."""
MISSING_SECONDS: Final = 10.0
"""For so long a remote is not asked again for what none has."""
MISSING_OIDS: Final = 10_000


class AskedRemotes(Protocol):
    """The remotes of a version, as `store.fetching.remote_set.RemoteSet` has them."""

    @property
    def remotes(self) -> tuple[Remote, ...]:
        """Those that may be asked."""

    def __bool__(self) -> bool: ...

    async def run(
        self, oid: Oid, work: Callable[[Remote], T], *, deadline: float, question: bool = False
    ) -> T:
        """What `work` returns for the first remote that it does not raise for, in a worker thread."""


@dataclass(slots=True)
class _Flight:
    landed: trio.Event = field(default_factory=trio.Event)
    size: Size | None = None
    error: StoreError | None = None


class _Missing(NamedTuple):
    at: float
    message: str


class SizeFinder:
    """Finds sizes. Objects of DVC's only: git's are as long as their trees say."""

    def __init__(
        self,
        caches: CacheChain,
        index: SizeIndex,
        threads: Threads,
        nursery: trio.Nursery,
        hints: Hints | None = None,
    ) -> None:
        self._caches = caches
        self.hints = hints
        """What the logs of remotes say; it counts as if the remotes had said it."""
        self._index = index
        self.threads = threads
        self.swept_with: Path | None = None
        """Where the index is, for processes that look for a large tree's sizes; None: there may be none."""
        self._nursery = nursery
        self._flights: dict[tuple[Oid, AskedRemotes | None], _Flight] = {}
        self._missing: OrderedDict[tuple[Oid, AskedRemotes | None], _Missing] = OrderedDict()
        self._fresh: dict[str, list[Learnt]] = {}

    def start_soon(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Run something in the finder's nursery. It must not raise."""
        self._nursery.start_soon(work, *arguments)

    def roots(self) -> list[Path]:
        """The directories of the caches, in the order in which they are asked.

        Without this daemon's pins: they hold what was in a cache and begins to be missing there, which shows
        on the cache's own directories.
        """
        roots = [cache.root for cache in self._caches.caches]
        return [root for root in roots if root.parent.parts[-len(PINS) :] != PINS]

    async def look(
        self, digests: Sequence[bytes], algorithm: str, *, remember: bool = False
    ) -> list[Size | None]:
        """The sizes of many objects as far as this machine knows them, in one hop; no remote is asked.

        With `remember`, the index learns what only the files in the cache tell. Raises `StoreTimeout`.
        """
        return await self.threads.on_disk(
            look_here, self._caches, self._index, tuple(digests), algorithm, remember, self.hints
        )

    async def recall(self, digests: Sequence[bytes], algorithm: str) -> list[Size | None]:
        """What is remembered of the sizes of objects; nobody and nothing is asked. Raises `StoreTimeout`."""
        return await self.threads.on_disk(self._index.find, tuple(digests), algorithm)

    async def size(self, oid: Oid, remotes: AskedRemotes | None = None) -> int:
        """An object's size in bytes. Raises as `find` does."""
        return (await self.find(oid, remotes)).size

    async def find(
        self, oid: Oid, remotes: AskedRemotes | None = None, *, is_nowhere_here: bool = False
    ) -> Size:
        """An object's size, and how it is known. With `is_nowhere_here`, this machine has just been asked.

        Raises `ObjectMissing` where nobody has the object, `RemoteSlow` after `QUESTION_SECONDS`, other
        `RemoteError` where no remote can be asked, `StoreTimeout`.
        """
        key = (oid, remotes)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            self._nursery.start_soon(self._fly, oid, remotes, flight, is_nowhere_here)
        with trio.move_on_after(QUESTION_SECONDS):
            await flight.landed.wait()
        if flight.error is not None:
            raise type(flight.error)(*flight.error.args)
        if flight.size is None:
            raise RemoteSlow(f"no remote said within {QUESTION_SECONDS:.0f} s how long object {oid} is")
        return flight.size

    async def check(self, opened: OpenFile | OpenBytes) -> bool:
        """Whether an open object's bytes have its hash. Raises `CacheUnusable`, `StoreTimeout`."""
        if isinstance(opened, OpenBytes):
            hasher = Hasher(opened.oid.algorithm)
            hasher.update(opened.data)
            return hasher.matches(opened.oid)
        try:
            return await self.threads.on_disk(file_matches, opened.descriptor, opened.oid)
        except OSError as error:
            raise CacheUnusable(f"object {opened.oid} cannot be read: {error.strerror}") from None

    def learn(self, rows: Iterable[Learnt], algorithm: str) -> None:
        """Have the index remember sizes, in the background: also for whoever has hashed an object."""
        idle = not self._fresh
        self._fresh.setdefault(algorithm, []).extend(rows)
        if idle:
            self._nursery.start_soon(self._write_index)

    async def _write_index(self) -> None:
        try:
            while self._fresh:
                algorithm, rows = next(iter(self._fresh.items()))
                self._fresh[algorithm] = []
                await self.threads.on_disk(self._index.learn, rows, algorithm)
                if not self._fresh[algorithm]:
                    del self._fresh[algorithm]
        except StoreError as error:
            self._fresh.clear()
            log.warning("sizes are not remembered: %s", error)

    async def _fly(
        self, oid: Oid, remotes: AskedRemotes | None, flight: _Flight, is_nowhere_here: bool
    ) -> None:
        try:
            flight.size = await self._ask(oid, remotes, is_nowhere_here=is_nowhere_here)
        except StoreError as error:
            flight.error = error
        except Exception as error:  # a bug must reach those who wait as an error, not end the daemon
            log.exception("the size of object %s cannot be found", oid)
            flight.error = StoreError(f"object {oid}: {type(error).__name__}")
        finally:
            del self._flights[oid, remotes]
            flight.landed.set()

    async def _ask(self, oid: Oid, remotes: AskedRemotes | None, *, is_nowhere_here: bool) -> Size:
        if not is_nowhere_here:
            (here,) = await self.look([oid.raw], oid.algorithm)
            if here is not None:
                return here
        try:
            told = await self._ask_remotes(oid, remotes)
        except StoreError:
            (once,) = await self.threads.on_disk(self._index.find, [oid.raw], oid.algorithm)
            if once is None:
                raise
            return once
        if not 0 <= told <= SIZE_MAX:
            raise RemoteCorrupt(f"a remote says that object {oid} has {told} bytes")
        self.learn([Learnt(oid.raw, told, How.REMOTE)], oid.algorithm)
        return Size(told, How.REMOTE)

    async def _ask_remotes(self, oid: Oid, remotes: AskedRemotes | None) -> int:
        if not remotes or oid.algorithm not in DVC_ALGORITHMS:
            raise ObjectMissing(f"object {oid} is not in the cache {self.roots()[0]}")
        key = (oid, remotes)
        missing = self._missing.get(key)
        if missing is not None and trio.current_time() - missing.at < MISSING_SECONDS:
            raise ObjectMissing(missing.message)
        try:
            return await remotes.run(oid, SizeQuestion(oid), deadline=QUESTION_SECONDS, question=True)
        except ObjectMissing as error:
            self._missing[key] = _Missing(trio.current_time(), str(error))
            self._missing.move_to_end(key)
            while len(self._missing) > MISSING_OIDS:
                self._missing.popitem(last=False)
            raise
