"""`Flight`: one product on its way: what is made of it, what is missing, and who waits for which piece.

Thread rule: belongs to the event loop.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Final

import trio

from store.errors import StoreError, StoreTimeout
from store.making.product import LONGEST_REASON, MOST_PIECES, Entry, Product, Refused
from store.making.tasks import Task
from store.making.wire import WireBroken
from store.oid import Oid

WAIT_SECONDS: Final = 300.0
"""For a piece, with all that is before it."""

_numbers = itertools.count()


class Flight:
    """Made by `Maker`; `Workers` do the work."""

    def __init__(
        self, task: Task, product: Product, needs: Sequence[Product] = (), *, is_ahead: bool = False
    ) -> None:
        self.task = task
        self.product = product
        self.needs = needs
        """The products that the task needs, whole."""
        self.noted: Callable[[Flight], object] = lambda _: None
        """Told of every piece that was made."""
        self.wanted: Callable[[], object] = lambda: None
        """Told when somebody begins to wait."""
        self.is_ahead = is_ahead
        """Nobody has asked for it yet."""
        self.order = next(_numbers)
        self.is_tried_again = False
        """Its worker had died before it was given the task."""
        self.is_read_on = False
        """Its reader goes straight on."""
        self.unproved: set[Oid] = set()
        """What bytes came of that nobody has hashed."""
        self.error: StoreError | None = None
        self.has_ended = trio.Event()
        self._waiting: dict[int, trio.Event] = {}
        self._readers: dict[int, int] = {}
        self._wholes = 0

    @property
    def key(self) -> str:
        return self.task.key

    @property
    def is_wanted(self) -> bool:
        """Does somebody wait for it?"""
        return bool(self._waiting or self._wholes)

    @property
    def is_patient(self) -> bool:
        """Is all of it waited for, and no piece?"""
        return self._wholes > 0 and not self._waiting

    @property
    def missing(self) -> list[int]:
        """What is to be made, what was asked for first at the beginning; empty where nobody knows."""
        made = self.product.entries
        missing = [number for number in range(self.product.count) if number not in made]
        urgent = next(iter(self._waiting), None)
        if urgent in missing:
            missing.remove(urgent)
            missing.insert(0, urgent)
        return missing

    def run(self) -> tuple[str, int]:
        """What a worker goes on with best."""
        series, task = self.task.series, self.task
        return source_of(task), -1 if series is None else series.run_of(task.chunk)

    async def wait_for(self, number: int) -> None:
        """Until a piece is made, or the flight has ended; `error` says of what. Raises `StoreTimeout`."""
        event = self._waiting.setdefault(number, trio.Event())
        self._readers[number] = self._readers.get(number, 0) + 1
        self.is_ahead = False
        try:
            self.wanted()
            await self._wait(event)
        finally:
            self._readers[number] -= 1
            if not self._readers[number]:
                del self._readers[number]
                self._waiting.pop(number, None)

    async def wait_for_all(self) -> None:
        """Until it has ended. Raises `StoreTimeout`."""
        self._wholes += 1
        self.is_ahead = False
        try:
            self.wanted()
            await self._wait(self.has_ended)
        finally:
            self._wholes -= 1

    async def _wait(self, event: trio.Event) -> None:
        with trio.move_on_after(WAIT_SECONDS) as scope:
            await event.wait()
        if scope.cancelled_caught:
            raise StoreTimeout(f"{self.task} was not made within {WAIT_SECONDS:.0f} s")

    def made(self, number: int, begin: int, length: int, digest: int) -> None:
        """A worker has written a piece. Raises `WireBroken` for what cannot be."""
        product = self.product
        if begin != product.end or length < 0 or digest < 0:
            raise WireBroken("it has written somewhere else")
        product.end += length
        self._note(number, Entry(begin, length, digest))

    def refused(self, number: int, reason: str) -> None:
        """The content does not allow a piece. Raises as `made`."""
        self._note(number, Refused(reason[:LONGEST_REASON]))

    def _note(self, number: int, entry: Entry | Refused) -> None:
        if not 0 <= number < (self.product.count or MOST_PIECES):
            raise WireBroken(f"it has made a piece {number} that there is not")
        self.product.entries.setdefault(number, entry)
        event = self._waiting.pop(number, None)
        if event is not None:
            event.set()
        self.noted(self)

    def counted(self, count: int) -> None:
        """A worker has made all that there is, so many pieces in this turn."""
        if not self.product.count and count == len(self.product.entries):
            self.product.count = count

    def end(self, error: StoreError | None) -> None:
        """No more will be made in this flight; who still waits looks again, or is told the error."""
        self.error = error
        self.has_ended.set()
        for event in self._waiting.values():
            event.set()
        self._waiting.clear()


def source_of(task: Task) -> str:
    """What a worker keeps open for tasks like this."""
    return str(task.origins[0].oid) if task.origins else ""
