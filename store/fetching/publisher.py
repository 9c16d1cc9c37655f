"""`Publisher`: makes fetched objects durable and gives them their places, behind their readers' backs.

A reader gets an object as soon as it is verified; the disk is waited for afterwards, for many at once. Until
then an object is not in the cache, whose users trust that what lies there survives a crash: who asks for it
meanwhile gets the same open file. Belongs to the event loop; `_publish` runs in a thread.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import trio

from store.errors import StoreError, StoreTimeout
from store.fetching.arrivals import Arrivals
from store.fetching.asking import CallLost
from store.fetching.courier import Courier
from store.fetching.download import Downloader, Fetched
from store.fetching.flight_locks import FlightLocks
from store.fetching.publishing import publish
from store.oid import Oid
from store.threads import Threads

log = logging.getLogger(__name__)

BATCH: Final = 256
GATHER_SECONDS: Final = 0.05
"""For so long more are waited for: a sync costs about as much for many as for one."""
GATHERED: Final = 64
"""With so many, or when somebody waits for one of them, no longer."""
OUTSTANDING: Final = 1024
OUTSTANDING_BYTES: Final = 256 << 20
"""Of the disk's cache, that wait to be written: what comes beyond waits for room."""
ROOM_SECONDS: Final = 5.0

OnArrival = Callable[[Oid, int, str], None]
"""Told, in a thread, of every object that has come into the cache: its length, its remote's identity."""


class Publisher:
    """One per cache that is fetched into."""

    def __init__(
        self,
        threads: Threads,
        nursery: trio.Nursery,
        arrivals: Arrivals,
        downloader: Downloader,
        locks: FlightLocks,
        on_arrival: OnArrival,
        courier: Courier | None = None,
        *,
        on_settled: Callable[[Oid], object] = lambda _: None,
    ) -> None:
        """`on_settled` is told, on the loop, of each that is not on its way any more."""
        self._threads = threads
        self._nursery = nursery
        self._arrivals = arrivals
        self._downloader = downloader
        self._locks = locks
        self._on_arrival = on_arrival
        self._courier = courier
        self._on_settled = on_settled
        self._pending: dict[Oid, Fetched] = {}
        self._queue: deque[Fetched] = deque()
        self._bytes = 0
        self._is_running = False
        self._working = trio.CancelScope()
        self._progress = trio.Event()
        self._hurry = trio.Event()
        self._awaited: dict[Oid, trio.Event] = {}
        """Of those of `_pending` that somebody waits for."""
        self._has_failed = False

    def __len__(self) -> int:
        """How many objects are on their way."""
        return len(self._pending)

    def find(self, oid: Oid) -> Fetched | None:
        """An object that is on its way."""
        return self._pending.get(oid)

    def add(self, fetched: Fetched) -> None:
        """Publish a file, and let go of its flight's lock then."""
        self._pending[fetched.oid] = fetched
        self._queue.append(fetched)
        self._bytes += fetched.size
        if len(self._queue) >= GATHERED:
            self._hurry.set()
        if not self._is_running:
            self._is_running = True
            self._nursery.start_soon(self._run)

    async def has_room(self) -> bool:
        """Whether more may be added; waits for that, but not for long."""
        if self.has_room_now():
            return True
        with trio.move_on_after(ROOM_SECONDS):
            while not self.has_room_now():
                self._hurry.set()
                await self._progress.wait()
        return self.has_room_now()

    async def await_published(self, oid: Oid) -> None:
        """Wait until the object is not on its way any more, if it is."""
        if oid in self._pending:
            self._hurry.set()
            await self._awaited.setdefault(oid, trio.Event()).wait()

    async def drain(self) -> None:
        """Wait until everything is published."""
        while self._pending:
            self._hurry.set()
            await self._progress.wait()

    def has_room_now(self) -> bool:
        """Whether more may be added."""
        return len(self._pending) < OUTSTANDING and self._bytes < OUTSTANDING_BYTES

    def stop(self) -> None:
        """Publish no more."""
        self._working.cancel()

    async def _run(self) -> None:
        # What is fetched is published although everything else has been told to end: `drain` waits for it.
        with trio.CancelScope(shield=True) as self._working:
            while self._queue:
                with trio.move_on_after(GATHER_SECONDS):
                    await self._hurry.wait()
                self._hurry = trio.Event()
                await self._publish_batch()
                if len(self._queue) >= GATHERED or self._awaited:
                    self._hurry.set()
        self._is_running = False

    async def _publish_batch(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
        try:
            courier = self._courier
            carried = [fetched for fetched in batch if courier is not None and courier.holds(fetched)]
            failure = ""
            if courier is not None and carried:
                failure = await self._have_published(courier, carried)
            own = [fetched for fetched in batch if fetched not in carried]
            if own:
                failure = await self._threads.on_disk(self._publish, own) or failure
        except StoreError as error:
            failure = str(error)
        if failure and not self._has_failed:
            log.warning("%s; what is fetched is served and not kept", failure)
        self._has_failed = bool(failure)
        for fetched in batch:
            del self._pending[fetched.oid]
            self._on_settled(fetched.oid)
            self._bytes -= fetched.size
            awaited = self._awaited.pop(fetched.oid, None)
            if awaited is not None:
                awaited.set()
        self._progress.set()
        self._progress = trio.Event()

    async def _have_published(self, courier: Courier, batch: list[Fetched]) -> str:
        try:
            said = await courier.publish(batch)
        except CallLost:
            return await self._threads.on_disk(self._publish, batch)
        except StoreTimeout:
            await self._threads.on_disk(self._release, batch)
            raise
        return await self._threads.on_disk(self._settle, batch, said)

    def _publish(self, batch: Sequence[Fetched]) -> str:
        """In a thread; what went wrong with one of them, if anything."""
        try:
            outcomes = publish(batch, self._downloader, self._arrivals)
            said = [str(outcome.failure or "") for outcome in outcomes]
            for file, failure in outcomes:
                if file is not None and failure is not None:
                    self._downloader.rescue(file)
                    self._downloader.discard(file)
        except Exception as error:
            self._release(batch)
            return f"{type(error).__name__}: {error}"
        return self._settle(batch, said, rescued=True)

    def _settle(self, batch: Sequence[Fetched], said: Sequence[str], *, rescued: bool = False) -> str:
        """In a thread: what is to be done when it is known what became of each."""
        try:
            for fetched, failure in zip(batch, said, strict=True):
                if not failure:
                    identity = fetched.remote.identity if fetched.remote is not None else ""
                    self._on_arrival(fetched.oid, fetched.size, identity)
                elif not rescued and fetched.path is not None:
                    self._downloader.rescue(fetched)
            return next(filter(None, said), "")
        except Exception as error:  # whoever is told of arrivals may have bugs: they end no mount
            return f"{type(error).__name__}: {error}"
        finally:
            self._release(batch)

    def _release(self, batch: Sequence[Fetched]) -> None:
        for fetched in batch:
            self._locks.release(fetched.oid)
