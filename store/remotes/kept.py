"""`Kept`: a value that is slow to get (a connection, credentials), got once for all threads that wait for it.

When getting it fails, those who waited share the error, and the next one to ask tries again: a remote that is
away costs each thread one wait, not one after another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

from store.errors import RemoteSlow

T = TypeVar("T")

FOREVER: Final = float("inf")


class Kept(Generic[T]):
    """Any thread may call `get`; `make` runs in the thread of the first one."""

    def __init__(self, make: Callable[[], tuple[T, float]], patience: float, late: str) -> None:
        """`make` returns the value and the time (of `time.time`) until which it is good.

        It must end by itself. Who waits for another thread's call waits `patience` seconds at most, and is
        then given `RemoteSlow` with the line `late`.
        """
        self._make = make
        self._patience = patience
        self._late = late
        self._lock = threading.Lock()
        self._current: tuple[T, float] | None = None
        self._flight: Future[T] | None = None

    def get(self) -> T:
        """The value. Raises what `make` raises, and `RemoteSlow`."""
        current = self._current
        if current is not None and time.time() < current[1]:
            return current[0]
        with self._lock:
            current = self._current
            if current is not None and time.time() < current[1]:  # it came while we waited for the lock
                return current[0]
            flight = self._flight
            if flight is None:
                own: Future[T] = Future()
                self._flight = own
        if flight is None:
            return self._fly(own)
        try:
            return flight.result(self._patience)
        except TimeoutError:
            raise RemoteSlow(self._late) from None

    def latest(self) -> T:
        """The value as it was last got, at once. Only after `get` has returned."""
        assert self._current is not None
        return self._current[0]

    def forget(self) -> None:
        """Let go of the value."""
        self._current = None

    def _fly(self, flight: Future[T]) -> T:
        try:
            value, until = self._make()
        except BaseException as error:
            self._flight = None
            flight.set_exception(error)
            raise
        self._current = (value, until)
        self._flight = None
        flight.set_result(value)
        return value
