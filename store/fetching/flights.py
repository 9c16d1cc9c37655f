"""`Flights`: a missing object is fetched once, however many readers, mounts and processes want it.

Readers of one daemon share a flight; daemons that share a cache hold a lock for as long as they fetch.
Flights live in the daemon's nursery: a reader that gives up takes nobody's object along. Belongs to the loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import trio

from store.cache_chain import ObjectCache
from store.errors import CacheUnusable, ObjectCorrupt, ObjectMissing, StoreError
from store.fetching.asking import NotAsked
from store.fetching.courier import Courier
from store.fetching.download import NOTHING, WHOLE_LIMIT, Downloader, Fetched, Large, Wanted
from store.fetching.flight import BUSY, Answer, Bring, Busy, Flight, Hold
from store.fetching.flight_locks import FlightLocks
from store.fetching.neighbours import let_go, take_along
from store.fetching.publisher import Publisher
from store.fetching.remote_set import WHOLE_SECONDS, RemoteSet
from store.fetching.short_way import ShortWay
from store.metrics import Metrics
from store.oid import Oid
from store.pace import DiskPace
from store.remotes.remote import Remote
from store.threads import Job, Threads
from store.tree import UNKNOWN

log = logging.getLogger(__name__)

FIRST_POLL: Final = 0.01
LONGEST_POLL: Final = 0.1
LOCK_SECONDS: Final = 10.0
"""How long another process may take for a small object before it is fetched a second time."""
SLOWEST_RATE: Final = 1 << 20
"""Bytes a second: what a large object that is fetched whole has time for."""


class Flights:
    """Of one daemon. `caches` is where objects are looked for; `publisher` puts them into the first."""

    def __init__(
        self,
        threads: Threads,
        nursery: trio.Nursery,
        caches: ObjectCache,
        downloader: Downloader,
        publisher: Publisher,
        locks: FlightLocks,
        metrics: Metrics,
        *,
        pace: DiskPace | None = None,
        courier: Courier | None = None,
    ) -> None:
        self._threads = threads
        self._nursery = nursery
        self._caches = caches
        self._downloader = downloader
        self._publisher = publisher
        self._locks = locks
        self._metrics = metrics
        self._pace = pace or DiskPace(is_local=False)
        self._courier = courier
        self._flights: dict[Oid, Flight] = {}
        self._short_way: ShortWay | None = None
        if courier is not None:
            self._short_way = ShortWay(nursery, courier, publisher, self._pace, self._arrive, self._give_task)

    def __len__(self) -> int:
        """How many objects are being fetched."""
        return len(self._flights)

    def find(self, oid: Oid) -> Fetched | None:
        """An object that was fetched and is not in its place yet."""
        return self._publisher.find(oid)

    async def await_published(self, oid: Oid) -> None:
        """Wait until a fetched object has come to its place, or cannot."""
        await self._publisher.await_published(oid)

    async def fetch(
        self, oid: Oid, known: int, remotes: RemoteSet, *, limit: int = WHOLE_LIMIT, keep: bool = True
    ) -> Fetched | Large:
        """The object, out of the caches or, whole and verified, from one of the remotes.

        `Large`, where it is not cached and has more than `limit` bytes. `known` is its length or `UNKNOWN`;
        a cached file of another length does not count, and what comes with another one, or without `keep`,
        is not kept. Raises `ObjectMissing`, `Offline`, `RemoteError`,
        `CacheUnusable`, `StoreTimeout`: to every waiter alike, and not to who comes later.
        """
        pending = self._publisher.find(oid)
        if pending is not None:
            return pending
        flight = self._flights.get(oid)
        if flight is None:
            flight = self._flights[oid] = Flight(oid, known, remotes, limit, Hold(self._locks, oid), keep)
            try:
                if self._short_way is None or not self._short_way.take(flight):
                    self._give_task(flight)
            except BaseException:
                del self._flights[oid]  # a bug must not keep those waiting who come later, here or elsewhere
                flight.hold.end(release=True)
                raise
        await flight.landed.wait()
        if flight.error is not None:
            raise type(flight.error)(*flight.error.args)
        assert flight.result is not None  # one of the two is set
        return flight.result

    def _give_task(self, flight: Flight) -> None:
        self._nursery.start_soon(self._fly, flight)

    def _arrive(self, flight: Flight, result: Fetched | Large) -> None:
        """What came on the short way."""
        try:
            self._pass_on(result, flight.hold)
        finally:
            self._land(flight, result)

    def _land(self, flight: Flight, result: Fetched | Large | None) -> None:
        flight.result = result
        del self._flights[flight.oid]
        flight.landed.set()

    async def _fly(self, flight: Flight) -> None:
        oid, known, remotes = flight.oid, flight.known, flight.remotes
        result: Fetched | Large | None = None
        try:
            # When remotes keep their threads waiting, what is cached must not wait with them.
            if flight.attempt is None and not (self._threads.remote_is_idle and remotes.is_ready(oid)):
                result = await self._threads.on_disk(self._look, oid, known)
            if result is None:
                result = await self._fetch(flight)
        except StoreError as error:
            flight.error = error
        except Exception as error:  # a bug must reach the readers as an error, not end the daemon
            log.exception("object %s could not be fetched", oid)
            flight.error = StoreError(f"object {oid}: {type(error).__name__}")
        finally:
            self._land(flight, result)

    async def _fetch(self, flight: Flight) -> Fetched | Large:
        oid, known, remotes, limit = flight.oid, flight.known, flight.remotes, flight.limit
        hold = flight.hold
        seconds = WHOLE_SECONDS + (known / SLOWEST_RATE if known > WHOLE_LIMIT else 0.0)
        keep = flight.keep and (flight.attempt is not None or await self._publisher.has_room())
        patience = trio.current_time() + (LOCK_SECONDS if known <= WHOLE_LIMIT else seconds)
        poll = FIRST_POLL
        result: Fetched | Large | Busy = BUSY
        try:
            while isinstance(result, Busy):
                wanted = Wanted(oid, limit, keep, time.monotonic() + seconds, flight.in_memory, known)
                alone = trio.current_time() >= patience
                bring = partial(self._bring, known=known, wanted=wanted, hold=hold, alone=alone)
                courier = self._courier if limit <= WHOLE_LIMIT else None
                if courier is not None and (flight.attempt is not None or courier.is_ready()):
                    result = await self._send(courier, bring, wanted, flight, alone=alone)
                else:
                    result = await remotes.run(
                        oid, bring, deadline=seconds, hedge=known <= WHOLE_LIMIT, discard=self._discard
                    )
                if isinstance(result, Busy):
                    brought = self._publisher.find(oid)
                    if brought is not None:  # it came along with another one
                        return brought
                    await trio.sleep(poll)
                    poll = min(2 * poll, LONGEST_POLL)
            self._pass_on(result, hold)
        finally:
            hold.end(release=True)
        if isinstance(result, Fetched) and result.remote is not None and result.along:
            along, result.along = result.along, NOTHING
            if keep:
                self._nursery.start_soon(self._take_along, along, result.remote)
        return result

    def _pass_on(self, result: Fetched | Large, hold: Hold) -> None:
        """What came is to be published, if it can be kept."""
        is_kept = isinstance(result, Fetched) and result.keep
        hold.end(release=not is_kept)
        if isinstance(result, Fetched) and result.remote is not None:
            self._metrics.remote(result.remote.name).fetched()
            if is_kept:
                self._publisher.add(result)

    async def _take_along(self, along: Mapping[Oid, bytes], remote: Remote) -> None:
        """Publish what came along with an object, as far as nobody else fetches it."""
        try:
            taken = await self._threads.on_disk(
                take_along,
                *(along, remote, self._caches, self._locks, self._downloader),
                discard=lambda late: let_go(late, self._locks),
            )
        except StoreError as error:
            log.warning("what came along is not kept: %s", error)
            return
        except Exception:  # a bug costs us what came along, not the mount
            log.exception("what came along is not kept")
            return
        for fetched in taken:
            self._metrics.remote(remote.name).fetched()
            self._publisher.add(fetched)

    async def _send(
        self,
        courier: Courier,
        bring: Bring,
        wanted: Wanted,
        flight: Flight,
        *,
        alone: bool,
    ) -> Answer:
        """As `_bring`, by the courier as far as it can; it is asked only for what is not here."""

        async def begin(remote: Remote, ended: Callable[[Job[Answer]], object]) -> Job[Answer]:
            errand = await courier.call(remote, wanted, ended) if courier.is_ready() else None
            if errand is not None:
                return errand
            return await self._threads.call_remote(bring, remote, ended=ended, discard=self._discard)

        remotes = flight.remotes
        under_way, flight.attempt = flight.attempt, None
        if under_way is not None:
            left = under_way.began + WHOLE_SECONDS - trio.current_time()
            return await remotes.run(wanted.oid, bring, begin=begin, deadline=left, under_way=under_way)
        if self._pace.is_local and flight.hold.take():
            wanted = wanted._replace(look=True)
        else:
            holds, found = await self._threads.on_disk(self._look_first, flight)
            if found is not None:
                return found
            if not holds and not alone:
                return BUSY
        return await remotes.run(wanted.oid, bring, begin=begin)

    def _look_first(self, flight: Flight) -> tuple[bool, Fetched | None]:
        """Whether we have the object's lock, and what there is of it then."""
        return flight.hold.take(), self._look(flight.oid, flight.known)

    def _bring(self, remote: Remote, *, known: int, wanted: Wanted, hold: Hold, alone: bool) -> Answer:
        """In a thread: look once more, under the lock, and then ask the remote."""
        holds = hold.take()
        found = self._look(wanted.oid, known)
        if found is not None:
            raise NotAsked(found)
        if not holds and not alone:
            raise NotAsked(BUSY)
        return self._downloader.download(remote, wanted)

    def _look(self, oid: Oid, known: int) -> Fetched | None:
        """The object from the caches. What cannot be served from there may be had elsewhere."""
        try:
            descriptor, size = self._caches.open(oid)
        except (ObjectMissing, ObjectCorrupt, CacheUnusable):
            return None
        found = Fetched(oid, descriptor, size)
        return found if known in (UNKNOWN, size) else None

    def _discard(self, result: Fetched | Large | Busy) -> None:
        if not isinstance(result, Busy):
            self._downloader.discard(result)
