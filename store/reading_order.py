"""`Follower`: where readers are in an order of rows that they are expected to read, and what comes next.

Readers follow an order loosely: the workers of a loader read a batch each, so an open may be some way before
or behind the last one. What is within `REACH` of the furthest is in order, what is not is a stray. After
`STRAYS` of them the order is *lost*. Then opens are only watched: several in a row that are near each other
in the order, and the readers are followed again from there. Each loss makes that harder, for an order that
fits only now and then costs more than it brings.

Pure; belongs to whoever calls it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

REACH: Final = 2048
"""Files. Nothing further ahead of the furthest reader is handed out."""
STRAYS: Final = 16
NEAR: Final = 1024
"""Files that two opens in a row may be apart in the order while it is searched for."""
PATIENCE: Final = 8
MOST_PATIENCE: Final = 4096
"""Opens in a row that must be near each other: at first, and after many losses."""
FORGIVEN: Final = 256
"""So many opens in order, and earlier losses are forgotten."""
TRIMMED: Final = 1 << 16

_NOWHERE: Final = -1
_ROW_BYTES: Final = 4


class Follower:
    """Follows readers along `order`, rows of a tree with `rows` rows, each row once.

    It begins by following from the first row on, or with `searching` when opens show that the order fits.
    """

    def __init__(self, rows: int, order: Iterable[int], *, searching: bool) -> None:
        self.is_following = not searching
        self.losses = 0
        """Grows when the order is lost, or found again: what was handed out before is out of date then."""
        self._rows = rows
        self._begin(order)
        self._patience = PATIENCE
        self._found: dict[int, None] = {}
        self._last = _NOWHERE

    def _begin(self, order: Iterable[int]) -> None:
        self._order: array[int] = array("I", order)
        self._place: array[int] = array("I", bytes(_ROW_BYTES * self._rows))  # 1 + place; 0: not in the order
        self._passed = bytearray(len(self._order))
        self._next = 0
        self._furthest = _NOWHERE
        self._strays = 0
        self._kept_up = 0
        for place, row in enumerate(self._order, 1):
            self._place[row] = place

    def __len__(self) -> int:
        return len(self._order)

    @property
    def is_at_end(self) -> bool:
        """Has everything been handed out?"""
        return self._next >= len(self._order)

    def extend(self, rows: Iterable[int]) -> int:
        """Put rows behind the others, but for those that are still to come; how many that were."""
        if self._furthest >= TRIMMED:
            self._trim()
        before = len(self._order)
        for row in rows:
            place = self._place[row] - 1
            if place == _NOWHERE or self._passed[place]:
                self._order.append(row)
                self._passed.append(0)
                self._place[row] = len(self._order)
        return len(self._order) - before

    def _trim(self) -> None:
        """Forget what lies far behind."""
        first = self._furthest - REACH
        for place in range(first):
            row = self._order[place]
            if self._place[row] == place + 1:
                self._place[row] = 0
        del self._order[:first]
        del self._passed[:first]
        for place, row in enumerate(self._order):
            self._place[row] = place + 1
        self._next = max(0, self._next - first)
        self._furthest -= first

    def take(self, most: int) -> list[int]:
        """The rows that come next, as far as anybody should look ahead now; each is handed out once."""
        found: list[int] = []
        if not self.is_following:
            return found
        end = min(len(self._order), self._furthest + 1 + REACH)
        while self._next < end and len(found) < most:
            if not self._passed[self._next]:
                found.append(self._order[self._next])
            self._next += 1
        return found

    def is_passed(self, row: int) -> bool:
        """Has it been read, or is it not in the order at all?"""
        place = self._place[row] - 1
        return place == _NOWHERE or bool(self._passed[place])

    def is_behind(self, row: int) -> bool:
        """Has everybody passed it by?"""
        return self._place[row] - 1 < self._furthest - REACH

    def note(self, row: int) -> None:
        """A reader has opened it."""
        place = self._place[row] - 1
        if not self.is_following:
            self._search(place)
            return
        end = max(self._next, self._furthest + 1) + REACH
        if place == _NOWHERE or not self._furthest - REACH <= place < end:
            self.stray()
        elif not self._passed[place]:
            self._passed[place] = 1
            self._furthest = max(self._furthest, place)
            self._strays = max(0, self._strays - 1)
            self._kept_up += 1
            if self._kept_up >= FORGIVEN:
                self._patience = PATIENCE

    def stray(self) -> None:
        """Something does not fit the order: an open, or a file that was passed by."""
        self._strays += 1
        if self.is_following and self._strays >= STRAYS:
            self.lose()

    def lose(self) -> None:
        """The order does not fit any more; look for the readers."""
        self._patience = min(2 * self._patience, MOST_PATIENCE)
        self.search()

    def search(self) -> None:
        """Look for the readers; that they go on where they were is not to be expected."""
        self.is_following = False
        self.losses += 1
        self._found.clear()

    def _search(self, place: int) -> None:
        if place == _NOWHERE:
            self._found.clear()
            return
        if abs(place - self._last) > NEAR:
            self._found.clear()
        self._last = place
        self._found[place] = None
        if len(self._found) >= min(self._patience, max(1, len(self._order) // 4)):
            self._follow()

    def _follow(self) -> None:
        self.is_following = True
        self.losses += 1
        self._passed = bytearray(len(self._order))
        for place in self._found:
            self._passed[place] = 1
        self._next, self._furthest = min(self._found), max(self._found)
        self._strays = self._kept_up = 0
        self._found.clear()
