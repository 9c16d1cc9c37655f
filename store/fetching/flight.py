"""`Flight`: one object on its way from a remote, for all who wait for it. `Hold`: our lock on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from store.errors import StoreError
from store.fetching.asking import Attempt
from store.fetching.download import IN_MEMORY, Fetched, Large
from store.fetching.flight_locks import FlightLocks
from store.fetching.remote_set import RemoteSet
from store.oid import Oid
from store.remotes.remote import Remote
from store.tree import UNKNOWN


class Busy:
    """Another process fetches the object."""


BUSY: Final = Busy()
Answer = Fetched | Large | Busy
Bring = Callable[[Remote], Answer]


class Hold:
    """Of one flight, taken by its first call. A late call takes none."""

    def __init__(self, locks: FlightLocks, oid: Oid) -> None:
        self._locks = locks
        self._oid = oid
        self._guard = threading.Lock()
        self._is_held = False
        self._has_ended = False

    def take(self) -> bool:
        """Whether the lock is held now; waits for no other process."""
        with self._guard:
            if not self._has_ended and not self._is_held:
                self._is_held = self._locks.try_hold(self._oid)
            return self._is_held

    def end(self, *, release: bool) -> None:
        """The flight has ended; without `release` the lock stays, for whoever publishes the object."""
        with self._guard:
            if self._is_held and release and not self._has_ended:
                self._locks.release(self._oid)
            self._has_ended = True


@dataclass(slots=True, eq=False)
class Flight:
    """Belongs to the event loop, but for the hold."""

    oid: Oid
    known: int
    """The object's length, or `UNKNOWN`."""
    remotes: RemoteSet
    limit: int
    """A longer object is not fetched whole."""
    hold: Hold
    keep: bool = True
    """Is it to come into the cache, where that has room?"""
    landed: trio.Event = field(default_factory=trio.Event)
    result: Fetched | Large | None = None
    error: StoreError | None = None
    attempt: Attempt[Answer] | None = None
    """Of a remote that was asked before the flight had a task (`store.fetching.short_way`)."""

    @property
    def in_memory(self) -> int:
        """Bytes of memory that the object may take."""
        return IN_MEMORY if self.known == UNKNOWN else min(self.known, IN_MEMORY)
