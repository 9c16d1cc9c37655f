"""Signals that end a process, as an exception: so that a command undoes what it has begun.

Called by the commands that mount, on the main thread. `KeyboardInterrupt` is for Ctrl-C alone, and
the other signals would end Python without a `finally`.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


class Interrupted(Exception):
    """The signal `number` came."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status that a shell gives it."""
        return 128 + self.number


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within, a signal that ends a process raises `Interrupted`; one that is ignored stays so."""
    before = {}
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            before[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Within, those signals wait, until the function that it yields is called or the end.

    For a step that must not be torn from its undoing: call the function inside the `try` that undoes.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)

    def let_go() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        yield let_go
    finally:
        let_go()
