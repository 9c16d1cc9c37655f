"""`Crew`: threads that do a piece of work together, while the caller's thread watches and can be interrupted.

They are daemon threads: a process whose user has had enough does not wait for a server that stalls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

TICK_SECONDS: Final = 0.2
LAST_SECONDS: Final = 5.0
"""For threads that are told to stop, to take back what they have begun."""


class Stopped(Exception):
    """The work was given up; it says nothing about what was worked on."""


class Crew:
    """Made for one piece of work after another, by one thread."""

    def __init__(self, tick: Callable[[], object]) -> None:
        """`tick` is called by the caller's thread, a few times a second."""
        self._tick = tick
        self._stop = threading.Event()

    def check(self) -> None:
        """For the threads, between two steps. Raises `Stopped`."""
        if self._stop.is_set():
            raise Stopped

    def pause(self, seconds: float) -> None:
        """Rest. Raises `Stopped`."""
        self._stop.wait(seconds)
        self.check()

    def run(self, works: Sequence[Callable[[], object]]) -> None:
        """Do all of them, each in a thread. The first error ends the others, and is raised when they have."""
        failures: list[BaseException] = []
        self._stop.clear()

        def guard(work: Callable[[], object]) -> None:
            try:
                work()
            except Stopped:
                pass
            except BaseException as error:
                failures.append(error)
                self._stop.set()

        threads = [
            threading.Thread(target=guard, args=[work], name=f"push-{number}", daemon=True)
            for number, work in enumerate(works)
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(TICK_SECONDS)
                    self._tick()
        except BaseException:
            self._stop.set()
            end = time.monotonic() + LAST_SECONDS
            for thread in threads:
                if thread.ident is not None:
                    thread.join(max(end - time.monotonic(), 0.0))
            raise
        if failures:
            raise failures[0]

    def each(self, things: Sequence[T], work: Callable[[T], object], jobs: int) -> None:
        """Do a work for each of the things, in so many threads. As `run`."""
        waiting, lock = iter(things), threading.Lock()

        def take() -> None:
            while True:
                self.check()
                with lock:
                    thing = next(waiting, None)
                if thing is None:
                    return
                work(thing)

        self.run([take] * min(jobs, len(things)))
