"""`Surroundings`: what all large objects of a daemon share. Belongs to the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

import trio

from store.fetching.completion import Gate
from store.fetching.flight_locks import FlightLocks
from store.fetching.partials import Partials
from store.fetching.unkept import UnkeptBlocks
from store.oid import Oid
from store.remotes.remote import Remote
from store.threads import Threads

T = TypeVar("T")

READ_BYTES: Final = 1 << 20
"""What is read at once without a thread."""


class Remotes(Protocol):
    """What is needed of `store.fetching.remote_set.RemoteSet`."""

    async def run(
        self, oid: Oid, work: Callable[[Remote], T], *, deadline: float, hedge: bool = True
    ) -> T: ...


@dataclass(slots=True, eq=False)
class Surroundings:
    """Made once, by `RangedObjects`."""

    threads: Threads
    nursery: trio.Nursery
    locks: FlightLocks
    partials: Partials
    gate: Gate
    slots: trio.CapacityLimiter
    """One for each flight: they bound the memory."""
    unkept: UnkeptBlocks
    hashes: bool
    """Whether whole objects are hashed at all."""
    deadline: float
    """Seconds for a request, and for a block that a reader waits for."""
    may_keep: Callable[[int], bool]
    """Whether so many more bytes may come to the cache."""
    on_corrupt: Callable[[Oid], object]
    on_arrival: Callable[[Oid, int], object]
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(READ_BYTES)))
    reads_now: bool = True
    """Until a file system says that it cannot read without waiting."""
    flights: int = 0
