"""`Suspicion`: for how long who gave wrong bytes for an object is not asked for it again.

Longer each time, and never for good: a remote may be mended while a mount goes on, and what it sends is
verified in any case. Plain values; whoever holds one guards it.
"""

from __future__ import annotations

import time
from typing import Final

FIRST_SECONDS: Final = 5.0
LONGEST_SECONDS: Final = 300.0


class Suspicion:
    """Of one remote, about one object."""

    __slots__ = ("_times", "_until")

    def __init__(self) -> None:
        self._times = 0
        self._until = 0.0

    def note(self, *, at_once: int = 1) -> None:
        """The bytes were wrong; only from the time `at_once` on is it not asked any more."""
        self._times += 1
        if self._times >= at_once:
            pause = FIRST_SECONDS * 2 ** min(self._times - at_once, 16)
            self._until = time.monotonic() + min(pause, LONGEST_SECONDS)

    def lasts(self) -> bool:
        """Is it not to be asked now?"""
        return time.monotonic() < self._until
