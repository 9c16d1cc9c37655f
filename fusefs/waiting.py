"""pyfuse3's wait for the next request, with fewer turns of the event loop.

pyfuse3's tasks take turns: each waits for a `trio.Lock`, then for `/dev/fuse` to be readable. Both are
checkpoints, and the lock goes to the other task, so every request costs several turns of the loop, even where
the next one has long arrived. Here a free lock is taken at once by whoever is there, and the device is asked
before the loop is: half of the processor time that an `open` and its `release` took.

A reader alone sends its next request some 20 µs after an answer. To sleep until then costs more than to
look again and again for as long as it would take to fall asleep and wake up: so that is what is done,
unless requests wait for something, which the loop has to see to, or the last one took its time. Nothing is
looked for when nobody reads.

pyfuse3 finds `trio` by the name in its own module, which is where this is put in. Nothing else of it is
touched, and should it look elsewhere one day, it is only as slow again as it was.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from time import monotonic
from types import ModuleType
from typing import Any, Final

import pyfuse3
import trio

TURNS: Final = 16
"""So many requests may be taken in a row before others on the loop get their turn for certain."""
LOOKS: Final = 32
"""So often the device is asked again: some 40 µs, as long as one turn through a loop that falls asleep."""
SOON_SECONDS: Final = 0.0001
"""A wait in the loop that was no longer shows that to look again is worth it."""


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


class Device:
    """Waits for one descriptor. `is_busy` says that requests wait for something, so the loop has other work;
    `can_spin`, that there is a processor on which a reader goes on meanwhile.
    """

    def __init__(self, is_busy: Callable[[], object], *, can_spin: bool) -> None:
        self._is_busy = is_busy
        self._can_spin = can_spin
        self._poll = select.poll()
        self._known = -1
        self._turns = 0
        self._is_soon = False
        """The last request that was waited for in the loop came soon."""

    async def wait_readable(self, fd: int) -> None:
        """In `trio.lowlevel.wait_readable`'s place, but a checkpoint only once in a while."""
        if fd != self._known:
            self._poll.register(fd, select.POLLIN)
            self._known = fd
        self._turns = (self._turns + 1) % TURNS
        if self._turns:
            look = self._poll.poll  # which lets go of the interpreter: threads are not kept waiting
            if look(0):
                return
            if self._is_soon and not self._is_busy():
                for _ in range(LOOKS):
                    if look(0):
                        return
        began = monotonic()
        await trio.lowlevel.wait_readable(fd)
        self._is_soon = self._can_spin and monotonic() - began < SOON_SECONDS


class _Stand(ModuleType):
    """A module that is another one but for a few names."""

    def __init__(self, module: ModuleType, **names: object) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(names)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def shorten_waits(is_busy: Callable[[], object]) -> None:
    """Let pyfuse3 wait so from now on, for the one session of a process; `is_busy` as `Device` has it."""
    device = Device(is_busy, can_spin=len(os.sched_getaffinity(0)) > 1)
    lowlevel = _Stand(trio.lowlevel, wait_readable=device.wait_readable)
    vars(pyfuse3)["trio"] = _Stand(trio, Lock=FirstComeLock, lowlevel=lowlevel)
