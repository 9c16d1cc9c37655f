"""`Handles`: the numbers of what readers have open, and the inode of each, in memory that outlives a daemon.

The kernel names an open file by its handle alone. So that another daemon can go on where one was killed, the
table lies in memory that their supervisor holds (`fusefs.supervisor`): a store into it is all that an `open`
pays. A handle is never given twice: a release that is sent again must not close somebody else's file.

    words 0, 1      the last serial, and the last slot that was ever given
    words 2n, 2n+1  of slot n, from 1 on: handle, which is serial · 2²⁴ + slot (0: free), and inode (for
                    directories with 2⁶³ added)

Lives on the event loop.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

SLOTS: Final = 1 << 20
"""What is open beyond that is not known to another daemon."""

_SLOT_BITS: Final = 24
_NO_SLOT: Final = (1 << _SLOT_BITS) - 1
_DIRECTORY: Final = 1 << 63
_BYTES: Final = 16 * (SLOTS + 1)


class Handles:
    """Over the memory file `descriptor`, or over memory of one's own (-1)."""

    def __init__(self, descriptor: int = -1) -> None:
        if descriptor >= 0:
            os.ftruncate(descriptor, _BYTES)  # what nobody writes takes no memory
        self._words = memoryview(mmap.mmap(descriptor, _BYTES)).cast("Q")
        self._free: list[int] = []
        self._used = 0
        self.files = 0
        """How many files are open, of those in the table."""
        self._find_left()

    def _find_left(self) -> None:
        """Take note of what another daemon's readers have open."""
        words = self._words
        self._used = words[1]
        for slot in range(1, self._used + 1):
            if not words[2 * slot]:
                self._free.append(slot)
            elif not words[2 * slot + 1] & _DIRECTORY:
                self.files += 1

    def take(self, inode: int, *, directory: bool = False) -> int:
        """A handle for what is opened now."""
        words = self._words
        serial = words[0] = words[0] + 1
        if self._free:
            slot = self._free.pop()
        elif self._used < SLOTS:
            slot = self._used = words[1] = self._used + 1
        else:
            return serial << _SLOT_BITS | _NO_SLOT
        self.files += not directory
        handle = serial << _SLOT_BITS | slot
        words[2 * slot + 1] = inode | _DIRECTORY if directory else inode
        words[2 * slot] = handle
        return handle

    def find(self, handle: int) -> int:
        """The inode of an open file or directory. Raises KeyError."""
        slot = handle & _NO_SLOT
        if not 0 < slot <= SLOTS or self._words[2 * slot] != handle:
            raise KeyError(handle)
        return self._words[2 * slot + 1] & ~_DIRECTORY

    def give_back(self, handle: int, *, directory: bool = False) -> None:
        """Let go of what was closed; what is not open is no error."""
        slot = handle & _NO_SLOT
        if 0 < slot <= SLOTS and self._words[2 * slot] == handle:
            self._words[2 * slot] = 0
            self._free.append(slot)
            self.files -= not directory
