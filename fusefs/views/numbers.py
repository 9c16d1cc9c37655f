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
        self._finders: list[Callable[[int], Space]] = []

    def take(self, find: Callable[[int], Space], count: int = 1) -> int:
        """The first of `count` numbers; `find(number)` gives the space of each of them, at once.

        Raises `StoreError` where there are not as many left.
        """
        first = self._next
        if count > END_OF_NUMBERS - first:
            raise StoreError("this mount has shown too many views already; mount it anew")
        self._next += count
        self._firsts.append(first)
        self._finders.append(find)
        return first

    def find(self, number: int) -> Space:
        """The space of a number that was taken. Raises KeyError for another one."""
        if not FIRST_VIEW <= number < self._next:
            raise KeyError(number)
        return self._finders[bisect_right(self._firsts, number) - 1](number)
