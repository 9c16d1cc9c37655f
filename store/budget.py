"""The budget of what we keep: how much there may be, and what goes first. Pure; nothing here touches a disk.

**What goes first** is decided as by a segmented LRU (R. Karedla, J. S. Love, B. G. Wherry, "Caching
Strategies to Improve Disk System Performance", IEEE Computer 27(3), 1994). What was used once lies in the
first segment; what was used again moves to the second, which may have `PROTECTED` of the bound. Victims
come from the first segment, least recently used first. So a scan (one look through a dataset that is
larger than the cache) only pushes out what was used once, such as the scan itself, and never what epochs
come back to. What the second segment has too much of, least recently used first, competes with the first
segment by time, so that what was once popular gives way in the end.

Uses close together are one use (`store.ledger.CORRELATED`), as in 2Q (T. Johnson, D. Shasha, VLDB 1994).
Where readers follow an order that is known (`Foresight`), what they have just read comes again last, and goes
before all others, and what they will read soon stays.

**How much** is `Limits`: a bound on what we keep, and room to leave free on the disk. `Budget` answers,
between two measurements, whether one more object may be kept. It does not know what others bring meanwhile
who share the cache: the bound may be passed by as much until the next measurement.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from store.oid import Oid

T = TypeVar("T")

BLOCK: Final = 4096
"""What the bytes of an object are rounded up to: what it takes on the disk."""
PROTECTED: Final = 0.8
"""Of the bound: what the segment of things that were used again may have."""
PRESSED: Final = 0.97
"""Of the bound: with so much a sweep begins, before new objects must be refused."""
SWEPT: Final = 0.92
"""Of the bound: a sweep of a daemon's goes on until no more is there."""
SPARE: Final = 1.05
"""Times the room to leave free: what a sweep of a daemon's frees, and how early it begins."""
LAPSE: Final = 60.0
"""Seconds for which granted room is kept for what does not come, at least."""


def on_disk(size: int) -> int:
    """What a file of so many bytes takes of the disk."""
    return -(-size // BLOCK) * BLOCK


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes; 0: no such limit."""

    size: int = 0
    """What we may keep at most."""
    free: int = 0
    """What we leave free on the cache's disk at least."""

    @property
    def are_set(self) -> bool:
        return bool(self.size or self.free)


@dataclass(frozen=True, slots=True)
class Candidate(Generic[T]):
    """Something that could go: what it takes on the disk, and when it was last used."""

    thing: T
    on_disk: int
    used: float


def order_victims(
    once: Iterable[Candidate[T]], again: Iterable[Candidate[T]], again_bytes: int, bound: int
) -> Iterator[Candidate[T]]:
    """Everything, what should go first first. Both come least recently used first; `again_bytes` is what
    `again` takes together, and `bound` what all of it may take. Nothing is read before it is needed."""
    surplus = again_bytes - int(PROTECTED * bound)
    first, second = iter(once), iter(again)
    young, old = next(first, None), next(second, None)
    while old is not None and surplus > 0:
        if young is not None and young.used <= old.used:
            yield young
            young = next(first, None)
        else:
            yield old
            surplus -= old.on_disk
            old = next(second, None)
    if young is not None:
        yield young
        yield from first
    if old is not None:
        yield old
        yield from second


class Foresight(Protocol):
    """Somebody who knows what will be read (`store.prefetcher`). Any thread; waits for nothing."""

    def is_wanted(self, oid: Oid) -> bool:
        """Will the object be read soon? Then it stays."""

    def take_spent(self, most: int) -> list[Oid]:
        """Up to `most` objects that go before all others: they have just been read, and come again last."""


class Blindness:
    """Nobody knows what will be read."""

    def is_wanted(self, oid: Oid) -> bool:
        return False

    def take_spent(self, most: int) -> list[Oid]:
        return []


BLIND: Final = Blindness()


class Budget:
    """What is kept and free by the last measurement, and what came since. Any thread; waits for nothing.

    A measurement takes its time: what comes between `begin_measurement` and `measured` counts in addition,
    whether it was seen or not. Room that was granted counts until it is used; what nobody uses lapses when a
    measurement begins `LAPSE` seconds later, or later still.
    """

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self._mutex = threading.Lock()
        self._kept = 0
        self._since = 0
        self._promised = 0
        self._earlier = 0
        self._turned = clock()
        self._free = -1
        self._refused = False
        self._lacking = 0
        """Bytes of the largest that was refused since the last measurement and could have room."""

    def begin_measurement(self) -> None:
        """Somebody begins to look at what is kept and free."""
        with self._mutex:
            self._since = 0
            now = self._clock()
            if now - self._turned >= LAPSE:
                # What was granted before the last turn has not come in all that time.
                self._turned = now
                self._promised -= self._earlier
                self._earlier = self._promised

    def measured(self, kept: int, free: int) -> None:
        """So many bytes are kept, and so many free on the disk, -1 where nobody can tell."""
        with self._mutex:
            self._kept, self._free, self._refused, self._lacking = kept + self._since, free, False, 0
            if free >= 0:
                self._free = max(0, free - self._since)

    def added(self, size: int) -> None:
        """An object of so many bytes has come since; as a rule it had been asked for."""
        size = on_disk(size)
        with self._mutex:
            self._promised = max(0, self._promised - size)
            self._earlier = max(0, self._earlier - size)
            self._since += size
            self._kept += size
            if self._free >= 0:
                self._free = max(0, self._free - size)

    def freed(self, size: int, free: int) -> None:
        """So many bytes have been deleted since, and so many are free on the disk now, -1 where nobody can
        tell. What somebody still holds is no room yet."""
        with self._mutex:
            self._kept = max(0, self._kept - size)
            if self._free >= 0:
                self._free = max(self._free, min(self._free + size, free))

    def may_keep(self, size: int) -> bool:
        """May so many bytes more be kept, of an object or of a part? If not, they are to be served and
        forgotten. What was granted counts from now on."""
        limits, size = self.limits, on_disk(size)
        with self._mutex:
            wanted = self._promised + size
            over = bool(limits.size) and self._kept + wanted > limits.size
            if over or (limits.free and 0 <= self._free < limits.free + wanted):
                self._refused = True
                if not limits.size or size <= limits.size:
                    self._lacking = max(self._lacking, size)
                return False
            self._promised = wanted
        return True

    def has_room(self, size: int) -> bool:
        """Would `may_keep` say so? Nothing is granted."""
        limits, size = self.limits, on_disk(size)
        with self._mutex:
            wanted = self._promised + size
            over = bool(limits.size) and self._kept + wanted > limits.size
            return not over and not (limits.free and 0 <= self._free < limits.free + wanted)

    @property
    def is_pressed(self) -> bool:
        """Is it time for a sweep?"""
        limits = self.limits
        with self._mutex:
            over = bool(limits.size) and self._kept + self._promised > PRESSED * limits.size
            room = self._free - self._promised
            return (
                self._refused or over or (self._free >= 0 and limits.free > 0 and room < SPARE * limits.free)
            )

    @property
    def goal(self) -> Limits:
        """What a sweep of a daemon's is to reach: somewhat better than the limits, so that it has peace, and
        room for what had none."""
        limits = self.limits
        with self._mutex:
            size = min(int(SWEPT * limits.size), limits.size - self._lacking)
            free = max(int(SPARE * limits.free), limits.free + self._lacking) if limits.free else 0
        return Limits(max(size, 1) if limits.size else 0, free)
