"""`LoopThread`: an event loop in a thread of its own, for programs that are none: Python without a mount.

`call` is the one door in: any thread hands in a coroutine and waits for what it returns. Whoever stops
waiting (Ctrl-C) takes nothing of others along. The loop does not survive a fork, as no thread does: a child
starts its own.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from store.errors import StoreError

T = TypeVar("T")

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""Whoever waits looks this often whether the loop is still there. All that it does has its own deadline."""
CLOSE_SECONDS: Final = 20.0
_ENDED: Final = "the loop that reads versions has ended; what uses it was closed"


class LoopThread:
    """Starts at once, or raises `StoreError`; `close` ends it and everything in it."""

    def __init__(self) -> None:
        self.nursery: trio.Nursery
        """For what goes on until the loop ends. Whatever it raises ends the loop."""
        self._token: trio.lowlevel.TrioToken | None = None
        self._pid = os.getpid()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fusefs", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._token is None:
            raise StoreError("no event loop could be started for what reads versions; the log says why")

    def call(self, work: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Run `work(*arguments)` on the loop and return what it returns. Any thread but the loop's own.

        Raises what it raises, and `StoreError` where the loop has ended.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        scope = trio.CancelScope()
        if not self.tell(self._begin, work, arguments, future, scope):
            raise StoreError(_ENDED)
        try:
            while not concurrent.futures.wait([future], LOOK_SECONDS).done:
                if not self._thread.is_alive() and not future.done():
                    raise StoreError(_ENDED)
        except BaseException:
            self.tell(scope.cancel)
            raise
        return future.result()

    @property
    def is_here(self) -> bool:
        """Does it run, and in this process?"""
        return self._pid == os.getpid() and self._thread.is_alive()

    def tell(self, callback: Callable[..., object], *arguments: object) -> bool:
        """Have the loop call something that does not raise, soon. Any thread. Is there a loop at all?"""
        if self._token is None or self._pid != os.getpid():
            return False  # what a fork copied of the loop must not be touched
        try:
            self._token.run_sync_soon(callback, *arguments)
        except trio.RunFinishedError:
            return False
        return True

    def close(self) -> None:
        """End everything that runs on the loop, and wait for that, not for long. Any thread but its own."""
        self.tell(lambda: self.nursery.cancel_scope.cancel())
        if self._pid == os.getpid():
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException:
            log.exception("the loop that reads versions has failed")
        finally:
            self._started.set()

    async def _serve(self) -> None:
        async with trio.open_nursery() as self.nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._started.set()
            await trio.sleep_forever()

    def _begin(
        self,
        work: Callable[..., Awaitable[T]],
        arguments: tuple[object, ...],
        future: concurrent.futures.Future[T],
        scope: trio.CancelScope,
    ) -> None:
        self.nursery.start_soon(_fulfil, work, arguments, future, scope)


async def _fulfil(
    work: Callable[..., Awaitable[T]],
    arguments: tuple[object, ...],
    future: concurrent.futures.Future[T],
    scope: trio.CancelScope,
) -> None:
    with scope:
        try:
            future.set_result(await work(*arguments))
        except Exception as error:
            future.set_exception(error)
        finally:
            if not future.done():
                future.set_exception(StoreError(_ENDED))
