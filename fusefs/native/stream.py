"""`Stream`: whether missing objects come so fast that the kernel had better read them through us at first.

To have it find each of them by itself costs more requests than to read it through us does; and to have it
look anew, so that it finds those too, is best done when no more come (`fusefs.native.forgetting`).

Lives on the event loop.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

MANY: Final = 64
MANY_SECONDS: Final = 1.0
"""More in so short a time are a stream."""


class Stream:
    """The small missing objects of one mount. `can_end` says whether the kernel can be told to look anew."""

    def __init__(self, can_end: Callable[[], bool] = lambda: True) -> None:
        self._can_end = can_end
        self._times: deque[float] = deque(maxlen=MANY)
        self.latest = -math.inf
        """When the last one came, in trio's time."""

    def note(self) -> None:
        """One has come."""
        self.latest = trio.current_time()
        self._times.append(self.latest)

    def is_on(self) -> bool:
        """Whether the next one is one of a stream."""
        times = self._times
        return len(times) == MANY and trio.current_time() - times[0] < MANY_SECONDS and self._can_end()
