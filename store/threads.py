"""The only door between the event loop and worker threads.

Plain blocking code (disk, remotes, later decoders) runs in threads behind a limiter of its
kind, so that one kind cannot starve another. Threads get frozen values and return values. A wait
has a deadline: behind it the reader gets an error, and the thread is left to finish on its own
(it cannot be killed); what it then returns is handed to `discard`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import trio

from store.errors import StoreTimeout
from store.metrics import Queue

T = TypeVar("T")

DISK_THREADS: Final = 16
DISK_DEADLINE: Final = 60.0
"""Seconds. A local disk answers long before; a hung network file system never does."""
REMOTE_THREADS: Final = 72
"""For the bytes of objects: 64 readers, and what is read ahead."""
QUESTION_THREADS: Final = 16
"""For sizes and listings, which must neither wait for bytes nor keep them waiting."""


class _Result(Generic[T]):
    """What a thread returns: for the waiter, or for `discard` where that has gone.

    A waiter may be cancelled when the thread has returned and the loop has not heard of it yet, so
    whichever of the two comes second sees to the value.
    """

    def __init__(self, discard: Callable[[T], object] | None) -> None:
        self._lock = threading.Lock()
        self._discard = discard
        self._returned: list[T] = []
        self._abandoned = False

    def finish(self, value: T) -> T:
        with self._lock:
            self._returned.append(value)
            self._clean_up()
        return value

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            self._clean_up()

    def _clean_up(self) -> None:
        if self._abandoned and self._returned and self._discard is not None:
            self._discard(self._returned.pop())


class Threads:
    """The limiters. One per daemon, made inside the event loop."""

    def __init__(self) -> None:
        self._disk = trio.CapacityLimiter(DISK_THREADS)
        self._remote = trio.CapacityLimiter(REMOTE_THREADS)
        self._questions = trio.CapacityLimiter(QUESTION_THREADS)

    def queues(self) -> dict[str, Queue]:
        """The work of each kind at this moment, for the metrics. On the loop."""
        limiters = {"disk": self._disk, "remote": self._remote, "questions": self._questions}
        found = {}
        for name, limiter in limiters.items():
            now = limiter.statistics()
            found[name] = Queue(int(now.total_tokens), now.borrowed_tokens, now.tasks_waiting)
        return found

    async def on_disk(
        self, work: Callable[..., T], *arguments: object, discard: Callable[[T], object] | None = None
    ) -> T:
        """Run `work(*arguments)` in a thread and return what it returns.

        Raises what it raises, and `StoreTimeout` when it has not ended by the deadline.
        """
        late = f"the disk did not answer within {DISK_DEADLINE:.0f} s"
        return await self._run(work, arguments, discard, self._disk, DISK_DEADLINE, late)

    async def on_remote(
        self,
        work: Callable[..., T],
        *arguments: object,
        deadline: float,
        discard: Callable[[T], object] | None = None,
    ) -> T:
        """As `on_disk`, for a remote's bytes, with `deadline` in seconds, the wait for a thread included.

        `work` itself must end within limits of its own (`store.remotes.storage.Limits`).
        """
        late = f"the remote did not answer within {deadline:.0f} s"
        return await self._run(work, arguments, discard, self._remote, deadline, late)

    async def ask_remote(self, work: Callable[..., T], *arguments: object, deadline: float) -> T:
        """As `on_remote`, for sizes and listings."""
        late = f"the remote did not answer within {deadline:.0f} s"
        return await self._run(work, arguments, None, self._questions, deadline, late)

    async def _run(
        self,
        work: Callable[..., T],
        arguments: tuple[object, ...],
        discard: Callable[[T], object] | None,
        limiter: trio.CapacityLimiter,
        deadline: float,
        late: str,
    ) -> T:
        result = _Result(discard)

        def run() -> T:
            return result.finish(work(*arguments))

        with trio.move_on_after(deadline):
            try:
                return await trio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=limiter)
            except trio.Cancelled:
                result.abandon()
                raise
        raise StoreTimeout(late)
