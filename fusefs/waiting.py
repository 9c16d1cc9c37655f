"""pyfuse3's wait for the next request, with fewer turns of the event loop.

pyfuse3's tasks take turns: each waits for a `trio.Lock`, then for `/dev/fuse` to be readable. Both are
checkpoints, and the lock goes to the other task, so every request costs several turns of the loop, even where
the next one has long arrived. Here a free lock is taken at once by whoever is there, and the device is asked
before the loop is: half of the processor time that an `open` and its `release` took.

pyfuse3 finds `trio` by the name in its own module, which is where this is put in. Nothing else of it is
touched, and should it look elsewhere one day, it is only as slow again as it was.
"""

from __future__ import annotations

import select
from types import ModuleType
from typing import Any, Final

import pyfuse3
import trio

TURNS: Final = 16
"""So many requests may be taken in a row before others on the loop get their turn for certain."""


class FirstComeLock:
    """For `async with`, in `trio.Lock`'s place: whoever comes first has it, not whoever has waited longest.

    Who lets go of it mostly answers a request without a wait and is back before anybody else has a turn. Then
    it goes on, instead of waiting behind a task that has to be woken first.
    """

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting = trio.lowlevel.ParkingLot()
        self._is_called = False
        """One of those who wait is about to look whether the lock is free."""

    async def __aenter__(self) -> None:
        while self._is_taken:
            await self._waiting.park()
            self._is_called = False
        self._is_taken = True

    async def __aexit__(self, *_: object) -> None:
        self._is_taken = False
        if self._waiting and not self._is_called:
            self._is_called = True
            self._waiting.unpark()


class _Reader:
    """Waits for one descriptor."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._known = -1
        self._turns = 0

    async def wait_readable(self, fd: int) -> None:
        if fd != self._known:
            self._poll.register(fd, select.POLLIN)
            self._known = fd
        self._turns = (self._turns + 1) % TURNS
        if not self._turns or not self._poll.poll(0):
            await trio.lowlevel.wait_readable(fd)


class _Stand(ModuleType):
    """A module that is another one but for a few names."""

    def __init__(self, module: ModuleType, **names: object) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(names)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def shorten_waits() -> None:
    """Let pyfuse3 wait so from now on, for the one session that a process has."""
    lowlevel = _Stand(trio.lowlevel, wait_readable=_Reader().wait_readable)
    vars(pyfuse3)["trio"] = _Stand(trio, Lock=FirstComeLock, lowlevel=lowlevel)
