"""`Numbers`: who has which of the numbers of spaces that views take, and whom an inode leads to.

A view takes one number, or a run of them for directories that are spaces of their own: the frames of a video
are its rows, so that their inodes follow from the video's row in the tree and no table of inodes is kept. The
spaces of a run are asked for by number whenever one is needed, and may be forgotten in between. Lives on the
event loop.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Final

from fusefs.spaces import Space
from store.errors import StoreError

FIRST_VIEW: Final = 1 << 21
"""Behind all other spaces (`fusefs.spaces`)."""
END_OF_NUMBERS: Final = (1 << 31) - 1
"""With 32 bits of rows, an inode stays within 63 bits."""


class Numbers:
    """Numbers are given once, in ascending order."""

    def __init__(self) -> None:
        self._next = FIRST_VIEW
        self._firsts: list[int] = []
        self._ends: list[int] = []
        self._finders: list[Callable[[int], Space]] = []

    @property
    def following(self) -> int:
        """The number that is given next."""
        return self._next

    def move_to(self, number: int) -> None:
        """Give this number next: those before it were given by a daemon before us."""
        self._next = max(self._next, number)

    def take(self, find: Callable[[int], Space], count: int = 1) -> int:
        """The first of `count` numbers; `find(number)` gives the space of each of them, at once.

        Raises `StoreError` where there are not as many left.
        """
        first = self._next
        if count > END_OF_NUMBERS - first:
            raise StoreError("this mount has shown too many views already; mount it anew")
        self._next += count
        self._firsts.append(first)
        self._ends.append(self._next)
        self._finders.append(find)
        return first

    def find(self, number: int) -> Space:
        """The space of a number that was taken. Raises KeyError for another one."""
        place = bisect_right(self._firsts, number) - 1
        if place < 0 or number >= self._ends[place]:
            raise KeyError(number)
        return self._finders[place](number)
