"""`Flights`: a missing object is fetched once, however many readers, mounts and processes want it.

Readers of one daemon share a flight; daemons that share a cache hold a lock for as long as they fetch.
Flights live in the daemon's nursery: a reader that gives up takes nobody's object along. Belongs to the loop.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

import trio

from store.cache_chain import ObjectCache
from store.errors import CacheUnusable, ObjectCorrupt, ObjectMissing, StoreError
from store.fetching.asking import NotAsked
from store.fetching.courier import Courier
from store.fetching.download import IN_MEMORY, NOTHING, WHOLE_LIMIT, Downloader, Fetched, Large, Wanted
from store.fetching.flight_locks import FlightLocks
from store.fetching.neighbours import let_go, take_along
from store.fetching.publisher import Publisher
from store.fetching.remote_set import WHOLE_SECONDS, RemoteSet
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


class _Hold:
    """This process's lock on an object, taken by the first call of a flight. A late call takes none."""

    def __init__(self, locks: FlightLocks, oid: Oid) -> None:
        self._locks = locks
        self._oid = oid
        self._guard = threading.Lock()
        self._is_held = False
        self._has_ended = False

    def take(self) -> bool:
        with self._guard:
            if not self._has_ended and not self._is_held:
                self._is_held = self._locks.try_hold(self._oid)
            return self._is_held

    def end(self, *, release: bool) -> None:
        with self._guard:
            self._has_ended = True
            if self._is_held and release:
                self._locks.release(self._oid)


@dataclass(slots=True, eq=False)
class _Flight:
    landed: trio.Event = field(default_factory=trio.Event)
    result: Fetched | Large | None = None
    error: StoreError | None = None


class _Busy:
    """Another process fetches the object."""


_BUSY: Final = _Busy()
Answer = Fetched | Large | _Busy
Bring = Callable[[Remote], Answer]


class _Looked(NamedTuple):
    """What there is of an object, under its lock."""

    holds: bool
    """Has this process the lock?"""
    found: Fetched | None
    seconds: float
    """How long the disk took to tell."""


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
        self._flights: dict[Oid, _Flight] = {}

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
        self, oid: Oid, known: int, remotes: RemoteSet, *, limit: int = WHOLE_LIMIT
    ) -> Fetched | Large:
        """The object, out of the caches or, whole and verified, from one of the remotes.

        `Large`, where it is not cached and has more than `limit` bytes. `known` is its length or `UNKNOWN`;
        a cached file of another length does not count. Raises `ObjectMissing`, `Offline`, `RemoteError`,
        `CacheUnusable`, `StoreTimeout`: to every waiter alike, and not to who comes later.
        """
        pending = self._publisher.find(oid)
        if pending is not None:
            return pending
        flight = self._flights.get(oid)
        if flight is None:
            flight = self._flights[oid] = _Flight()
            self._nursery.start_soon(self._fly, flight, oid, known, remotes, limit)
        await flight.landed.wait()
        if flight.error is not None:
            raise type(flight.error)(*flight.error.args)
        assert flight.result is not None  # one of the two is set
        return flight.result

    async def _fly(self, flight: _Flight, oid: Oid, known: int, remotes: RemoteSet, limit: int) -> None:
        try:
            # When remotes keep their threads waiting, what is cached must not wait with them.
            if not (self._threads.remote_is_idle and remotes.is_ready(oid)):
                flight.result = await self._threads.on_disk(self._look, oid, known)
            if flight.result is None:
                flight.result = await self._fetch(oid, known, remotes, limit)
        except StoreError as error:
            flight.error = error
        except Exception as error:  # a bug must reach the readers as an error, not end the daemon
            log.exception("object %s could not be fetched", oid)
            flight.error = StoreError(f"object {oid}: {type(error).__name__}")
        finally:
            del self._flights[oid]
            flight.landed.set()

    async def _fetch(self, oid: Oid, known: int, remotes: RemoteSet, limit: int) -> Fetched | Large:
        seconds = WHOLE_SECONDS + (known / SLOWEST_RATE if known > WHOLE_LIMIT else 0.0)
        keep = await self._publisher.has_room()
        hold = _Hold(self._locks, oid)
        patience = trio.current_time() + (LOCK_SECONDS if known <= WHOLE_LIMIT else seconds)
        poll = FIRST_POLL
        result: Fetched | Large | _Busy = _BUSY
        try:
            while result is _BUSY:
                wanted = Wanted(oid, limit, keep, time.monotonic() + seconds, _memory_for(known))
                alone = trio.current_time() >= patience
                bring = partial(self._bring, known=known, wanted=wanted, hold=hold, alone=alone)
                if self._courier is not None and limit <= WHOLE_LIMIT and self._courier.is_ready():
                    result = await self._send(self._courier, bring, wanted, known, remotes, hold, alone=alone)
                else:
                    result = await remotes.run(
                        oid, bring, deadline=seconds, hedge=known <= WHOLE_LIMIT, discard=self._discard
                    )
                if result is _BUSY:
                    brought = self._publisher.find(oid)
                    if brought is not None:  # it came along with another one
                        return brought
                    await trio.sleep(poll)
                    poll = min(2 * poll, LONGEST_POLL)
        finally:
            is_kept = isinstance(result, Fetched) and result.keep
            hold.end(release=not is_kept)
        assert not isinstance(result, _Busy)
        if isinstance(result, Fetched) and result.remote is not None:
            self._metrics.remote(result.remote.name).fetched()
            if is_kept:
                self._publisher.add(result)
            if result.along:
                along, result.along = result.along, NOTHING
                if keep:
                    self._nursery.start_soon(self._take_along, along, result.remote)
        return result

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
        known: int,
        remotes: RemoteSet,
        hold: _Hold,
        *,
        alone: bool,
    ) -> Fetched | Large | _Busy:
        """As `_bring`, by the courier as far as it can; it is asked only for what is not here."""
        if self._pace.is_quick(time.monotonic()):
            looked = self._look_first(hold, wanted.oid, known)
        else:
            looked = await self._threads.on_disk(self._look_first, hold, wanted.oid, known)
        self._pace.took(looked.seconds, time.monotonic())
        if looked.found is not None:
            return looked.found
        if not looked.holds and not alone:
            return _BUSY

        async def begin(remote: Remote, ended: Callable[[Job[Answer]], object]) -> Job[Answer]:
            errand = await courier.call(remote, wanted, ended) if courier.is_ready() else None
            if errand is not None:
                return errand
            return await self._threads.call_remote(bring, remote, ended=ended, discard=self._discard)

        return await remotes.run(wanted.oid, bring, begin=begin)

    def _look_first(self, hold: _Hold, oid: Oid, known: int) -> _Looked:
        began = time.monotonic()
        holds = hold.take()
        found = self._look(oid, known)
        return _Looked(holds, found, time.monotonic() - began)

    def _bring(
        self, remote: Remote, *, known: int, wanted: Wanted, hold: _Hold, alone: bool
    ) -> Fetched | Large | _Busy:
        """In a thread: look once more, under the lock, and then ask the remote."""
        holds = hold.take()
        found = self._look(wanted.oid, known)
        if found is not None:
            raise NotAsked(found)
        if not holds and not alone:
            raise NotAsked(_BUSY)
        return self._downloader.download(remote, wanted)

    def _look(self, oid: Oid, known: int) -> Fetched | None:
        """The object from the caches. What cannot be served from there may be had elsewhere."""
        try:
            descriptor, size = self._caches.open(oid)
        except (ObjectMissing, ObjectCorrupt, CacheUnusable):
            return None
        found = Fetched(oid, descriptor, size)
        return found if known in (UNKNOWN, size) else None

    def _discard(self, result: Fetched | Large | _Busy) -> None:
        if not isinstance(result, _Busy):
            self._downloader.discard(result)


def _memory_for(known: int) -> int:
    """Bytes of memory that an object may take, of a length that may not be known."""
    return IN_MEMORY if known == UNKNOWN else min(known, IN_MEMORY)
