"""`ReadAhead`: what is made before anybody asks for it, because a reader goes straight on.

Thread rule: belongs to the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from store.making.flight import Flight
from store.making.open_products import OpenProducts
from store.making.product import Product
from store.making.tasks import Series, Task

STREAK: Final = 4
"""Pieces that are read one after the other until it is believed that it goes on so."""
LOOK_EVERY: Final = 8
"""Pieces of such a reader between two looks ahead."""
AHEAD_BYTES: Final = 256 << 20
MOST_AHEAD: Final = 64
"""Products."""


class ReadAhead:
    """`begin` has a product made, and calls `has_begun` when that is under way. Readers are served as many
    runs ahead as there are `workers`."""

    def __init__(
        self,
        products: OpenProducts,
        flights: Mapping[str, Flight],
        workers: int,
        begin: Callable[[Task], object],
    ) -> None:
        self._open = products
        self._flights = flights
        self._workers = workers
        self._begin = begin
        self._beginning: set[str] = set()

    def has_begun(self, task: Task) -> None:
        """What `begin` was told to do is under way, or has failed."""
        self._beginning.discard(task.key)

    def note_read(self, task: Task, product: Product, number: int) -> None:
        """A piece was read: a reader who goes straight on is served ahead."""
        self._open.used(product)
        if number == product.next:
            product.streak += 1
            if number == 0 and task.series is not None:
                before = task.series.task(task.chunk - 1)
                ended = None if before is None else self._open.get(before.key)
                if ended is not None and ended.next == ended.count:
                    product.streak += ended.streak
        elif number != product.next - 1:
            product.streak = 1
        product.next = number + 1
        if task.series is None or product.streak < STREAK:
            return
        if product.streak == STREAK or number % LOOK_EVERY == 0 or number == product.count - 1:
            self._open.renew(product)
            self._look(task, task.series, product)

    def _look(self, task: Task, series: Series, product: Product) -> None:
        flight = self._flights.get(task.key)
        if flight is not None:
            flight.is_read_on = True
        piece = product.end / max(len(product.entries), 1)
        last, size = series.run_of(task.chunk) + self._workers, 0.0
        for chunk in range(task.chunk + 1, task.chunk + 1 + MOST_AHEAD):
            following = series.task(chunk)
            if following is None or series.run_of(chunk) > last:
                break
            size += piece * following.pieces
            if size > AHEAD_BYTES and chunk > task.chunk + 1:
                break
            if self._open.get(following.key) is None and following.key not in self._beginning:
                self._beginning.add(following.key)
                self._begin(following)
