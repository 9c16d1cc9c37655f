"""`Window`: how much all prefetchers of a daemon together may have ahead of their readers.

Bytes, files, memory, and requests under way, fewer while readers wait for misses of their own. It is also
what eviction is told (`store.budget.Foresight`): what will be read soon stays, and what was just read in an
order goes first, since it comes again last.

Belongs to the event loop, but for `is_wanted` and `take_spent`, which sweeps call in threads.
"""

from __future__ import annotations

import resource
from collections import deque
from collections.abc import Callable
from typing import Final

from store.budget import Limits
from store.oid import Oid

AT_ONCE: Final = 32
"""Requests; readers' own misses take their places, but for `FEWEST`."""
FEWEST: Final = 2
WINDOW_BYTES: Final = 256 << 20
WINDOW_FILES: Final = 1024
SHARE: Final = 0.25
"""Of what the cache may hold: the window at most."""
MEMORY_BYTES: Final = 32 << 20
"""Of memory, for what is ahead of readers and not in the cache, or not yet."""
SPENT: Final = 1 << 16
LATEST: Final = 64
"""Of what was just read: it may still be open."""


class Window:
    """How much all prefetchers of a daemon together may have ahead of their readers.

    `flights` tells how many objects are being fetched for anybody, `has_room` whether the cache may keep so
    many bytes more.
    """

    def __init__(
        self, limits: Limits, flights: Callable[[], int], has_room: Callable[[int], bool] = lambda _: True
    ) -> None:
        share = int(SHARE * limits.size) if limits.size else WINDOW_BYTES
        self.most_bytes = min(WINDOW_BYTES, share)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most_files = WINDOW_FILES if soft == resource.RLIM_INFINITY else min(WINDOW_FILES, soft // 4)
        self.flights = flights
        self.has_room = has_room
        self.files = 0
        self.bytes = 0
        self.memory = 0
        self.running = 0
        self._wanted: set[Oid] = set()
        self._spent: deque[Oid] = deque(maxlen=SPENT)

    def is_full(self, size: int) -> bool:
        """Is there no room for one more file of so many bytes?"""
        if self.files >= self.most_files or (self.files and self.bytes + size > self.most_bytes):
            return True
        return not self.has_memory(size) and not self.has_room(size)

    def has_memory(self, size: int) -> bool:
        """May so many bytes more wait in memory?"""
        return self.memory + size <= MEMORY_BYTES

    @property
    def is_busy(self) -> bool:
        """Are as many requests under way as may be?"""
        misses = max(0, self.flights() - self.running)
        return self.running >= max(FEWEST, AT_ONCE - misses)

    def want(self, oid: Oid) -> None:
        self._wanted.add(oid)

    def unwant(self, oid: Oid) -> None:
        self._wanted.discard(oid)

    def spend(self, oid: Oid) -> None:
        """It was read, and is expected again only after everything else."""
        self._spent.append(oid)

    def forget_spent(self) -> None:
        self._spent.clear()

    def is_wanted(self, oid: Oid) -> bool:
        """Will it be read soon? Any thread."""
        return oid in self._wanted

    def take_spent(self, most: int) -> list[Oid]:
        """Up to `most` objects that were read in an order, those first that were read first; each is told
        once. Any thread."""
        taken: list[Oid] = []
        try:
            while len(taken) < most and len(self._spent) > LATEST:
                taken.append(self._spent.popleft())
        except IndexError:
            pass  # the loop has just forgotten them
        return taken
