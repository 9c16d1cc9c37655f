"""`DiskPace`: whether the disk is quick enough to be waited for on the event loop itself.

To hand a read to a thread and take its result back costs more than the read does where the disk is an
SSD: for random reads of 4 KiB twice to three times as much, and threads that overtake each other break
the kernel's read-ahead of sequential ones. A disk that takes its time, or hangs, must not hold up
everybody else, though. So the loop waits itself only for a local file system (a server that is gone
hangs for minutes), only after threads have shown the disk to be quick, and no more for a while after a
single answer that was not. Pure but for what the clock tells its caller; belongs to the loop.
"""

from __future__ import annotations

from typing import Final

QUICK_SECONDS: Final = 0.004
"""An answer within it is quick: some reads of an SSD's, less than one seek of a disk's."""
QUICK_ONES: Final = 8
"""So many in a row, by threads, and the disk is trusted."""
REST_SECONDS: Final = 1.0
"""For so long threads do the waiting after the first slow answer; twice as long after each further one."""
LONGEST_REST_SECONDS: Final = 60.0
FORGIVEN_ONES: Final = 4096
"""So many quick answers after a slow one, and it is forgotten."""


class DiskPace:
    """How quick one disk has been. `is_local` says that waiting for it can be thought of at all."""

    def __init__(self, *, is_local: bool) -> None:
        self._is_local = is_local
        self._quick = 0
        self._rest = REST_SECONDS
        self._resting_until = 0.0

    def distrust(self) -> None:
        """Never wait on the loop from now on: something that is read lies elsewhere."""
        self._is_local = False

    def is_quick(self, now: float) -> bool:
        """Whether the loop may wait for the disk itself at `now`, in seconds of a monotonic clock."""
        return self._is_local and self._quick >= QUICK_ONES and now >= self._resting_until

    def took(self, seconds: float, now: float) -> None:
        """Take note of an answer that came `now`, after `seconds`, whoever waited for it."""
        if seconds <= QUICK_SECONDS:
            self._quick += 1
            if self._quick >= FORGIVEN_ONES:
                self._rest = REST_SECONDS
            return
        self._quick = 0
        self._resting_until = now + self._rest
        self._rest = min(2 * self._rest, LONGEST_REST_SECONDS)
