"""`Lanes`: how many requests go out at once.

A link that bears fewer than there are makes each of them slow: so one that is too slow narrows the lanes,
and many that go well widen them again. Any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from store.pushing.crew import TICK_SECONDS, Crew

WELL: Final = 8
"""Requests in a row that went well, for each lane, until there is one more."""


class Lanes:
    """`crew` ends who waits for one."""

    def __init__(self, crew: Crew, most: int) -> None:
        self._crew = crew
        self._most = most
        self._limit = most
        self._taken = 0
        self._well = 0
        self._changed = threading.Condition()

    @contextmanager
    def lane(self) -> Iterator[int]:
        """A turn; what it yields is for `narrow`. Raises `Stopped`."""
        with self._changed:
            while self._taken >= self._limit:
                self._changed.wait(TICK_SECONDS)
                self._crew.check()
            self._taken += 1
            limit = self._limit
        try:
            yield limit
        finally:
            with self._changed:
                self._taken -= 1
                self._changed.notify()

    def went_well(self) -> None:
        """A request that had a lane is done."""
        with self._changed:
            self._well += 1
            if self._well >= WELL * self._limit and self._limit < self._most:
                self._well = 0
                self._limit += 1
                self._changed.notify()

    def narrow(self, limit: int) -> bool:
        """A request was too slow that had a lane when there were `limit`; whether that may have been why."""
        with self._changed:
            self._well = 0
            if limit == self._limit > 1:
                self._limit = max(1, limit // 2)
            return limit > 1
