"""The only door between the event loop and worker threads.

Plain blocking code (disk, remotes, later decoders) runs in threads behind a limiter of its
kind, so that one kind cannot starve another. Threads get frozen values and return values. A wait
has a deadline: behind it the reader gets an error, and the thread is left to finish on its own
(it cannot be killed); what it then returns is handed to `discard`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

import trio

from store.errors import StoreError, StoreTimeout
from store.metrics import Queue

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

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


class Job(Protocol[T_co]):
    """Work under way somewhere else, for a waiter who waits for other things as well. Belongs to the loop."""

    def value(self) -> T_co:
        """What the work returned. Raises what it raised. Only when it has ended."""

    def abandon(self) -> None:
        """Nobody waits for it any longer: what it brings is discarded."""


class Call(Generic[T]):
    """Work under way in a thread, for a waiter who waits for other things as well. Belongs to the loop.

    `ended` is called on the loop when the work has ended; whoever loses interest says `abandon`.
    """

    __slots__ = ("_ended", "_error", "_limiter", "_result", "_token", "_value")

    def __init__(
        self,
        limiter: trio.CapacityLimiter,
        ended: Callable[[Call[T]], object],
        discard: Callable[[T], object] | None,
    ) -> None:
        self._limiter = limiter
        self._ended = ended
        self._result = _Result(discard)
        self._token = trio.lowlevel.current_trio_token()
        self._value: T
        self._error: BaseException | None = None

    def start(self, work: Callable[..., T], arguments: tuple[object, ...]) -> None:
        def run() -> None:
            try:
                self._value = self._result.finish(work(*arguments))
            except StoreError as error:
                # It may be remembered: what its traceback leads to would be kept, open files for instance.
                self._error = error.with_traceback(None)
            except BaseException as error:
                self._error = error

        trio.lowlevel.start_thread_soon(run, self._deliver)

    def value(self) -> T:
        """What the work returned. Raises what it raised. Only when it has ended."""
        if self._error is not None:
            raise self._error
        return self._value

    def abandon(self) -> None:
        """Leave the thread to finish on its own; what it returns is discarded."""
        self._result.abandon()

    def _deliver(self, _: object) -> None:
        try:
            self._token.run_sync_soon(self._arrive)
        except trio.RunFinishedError:
            self._result.abandon()

    def _arrive(self) -> None:
        self._limiter.release_on_behalf_of(self)
        self._ended(self)


class Threads:
    """The limiters. One per daemon, made inside the event loop."""

    def __init__(self) -> None:
        self._disk = trio.CapacityLimiter(DISK_THREADS)
        self._remote = trio.CapacityLimiter(REMOTE_THREADS)
        self._questions = trio.CapacityLimiter(QUESTION_THREADS)
        self._token = trio.lowlevel.current_trio_token()

    def tell_loop(self, listener: Callable[..., object], *arguments: object) -> None:
        """Have the loop call `listener`, which must not raise, soon. For worker threads; nothing is waited
        for, and a loop that has ended is told nothing."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(listener, *arguments)

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

    async def call_remote(
        self,
        work: Callable[..., T],
        *arguments: object,
        ended: Callable[[Call[T]], object],
        discard: Callable[[T], object] | None = None,
        question: bool = False,
    ) -> Call[T]:
        """Begin what `on_remote` or, with `question`, `ask_remote` would do; waits only for a thread."""
        limiter = self._questions if question else self._remote
        call = Call(limiter, ended, discard)
        try:
            limiter.acquire_on_behalf_of_nowait(call)
        except trio.WouldBlock:
            await limiter.acquire_on_behalf_of(call)
        try:
            call.start(work, arguments)
        except BaseException:
            limiter.release_on_behalf_of(call)
            raise
        return call

    async def occupy_remote(self, holder: object, *, question: bool = False) -> None:
        """Take a thread's place for work that is done elsewhere, until `vacate_remote`; waits for it."""
        limiter = self._questions if question else self._remote
        try:
            limiter.acquire_on_behalf_of_nowait(holder)
        except trio.WouldBlock:
            await limiter.acquire_on_behalf_of(holder)

    def try_to_occupy_remote(self, holder: object) -> bool:
        """As `occupy_remote`, for bytes; False where that would have to wait."""
        try:
            self._remote.acquire_on_behalf_of_nowait(holder)
        except trio.WouldBlock:
            return False
        return True

    def vacate_remote(self, holder: object, *, question: bool = False) -> None:
        """What `holder` stood for has ended."""
        limiter = self._questions if question else self._remote
        limiter.release_on_behalf_of(holder)

    @property
    def remote_is_idle(self) -> bool:
        """Is there a thread for remotes that has nothing to do?"""
        return self._remote.available_tokens > 0

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
