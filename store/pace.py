"""`DiskPace`: whether the disk is quick enough to be waited for on the event loop itself.

To hand a read to a thread and take its result back costs more than the read does where the disk is an
SSD: for random reads of 4 KiB twice to three times as much, and threads that overtake each other break
the kernel's read-ahead of sequential ones. A disk that takes its time, or hangs, must not hold up
everybody else, though. So the loop waits itself only for a local file system (a server that is gone
hangs for minutes), only after threads have shown the disk to be quick, and no more for a while after a
single answer that was not: the longer that took, the longer. So slow answers hold the loop up for a small
part of its time, and the odd one of an SSD, one in thousands, costs little. Pure but for what the clock tells
its caller; belongs to the loop.
"""

from __future__ import annotations

from typing import Final

QUICK_SECONDS: Final = 0.004
"""An answer within it is quick: some reads of an SSD's, less than one seek of a disk's."""
QUICK_ONES: Final = 8
"""So many in a row, by threads, and the disk is trusted."""
REST_FACTOR: Final = 4
"""For so many times as long as a slow answer took, threads do the waiting; for twice as many after each
further one."""
LARGEST_FACTOR: Final = 1 << 14
LONGEST_REST_SECONDS: Final = 60.0
FORGIVEN_ONES: Final = 128
"""So many quick answers after a slow one, and it is forgotten: one in more than so many is the odd one."""


class DiskPace:
    """How quick one disk has been. `is_local` says that waiting for it can be thought of at all."""

    def __init__(self, *, is_local: bool) -> None:
        self._is_local = is_local
        self._quick = 0
        self._factor = REST_FACTOR
        self._resting_until = 0.0

    @property
    def is_local(self) -> bool:
        """Whether what needs no disk, a lock for instance, needs no network either."""
        return self._is_local

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
                self._factor = REST_FACTOR
            return
        self._quick = 0
        self._resting_until = now + min(self._factor * seconds, LONGEST_REST_SECONDS)
        self._factor = min(2 * self._factor, LARGEST_FACTOR)
