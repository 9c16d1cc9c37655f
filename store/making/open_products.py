"""`OpenProducts`: products that are open, so that a piece that is there costs one read.

What is open cannot be evicted from the cache: so there is a bound on it, and what nobody has read for a while
is let go.

Thread rule: belongs to the event loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import trio

from store.making.product import Product

MOST_OPEN: Final = 96
OPEN_BYTES: Final = 1 << 30
MEMORY_BYTES: Final = 256 << 20
"""Of products that are in memory only."""
OPEN_SECONDS: Final = 30.0
"""After so long, or twice that, a product that nobody reads is let go."""


class OpenProducts:
    """`is_in_use` tells of products that stay, whoever reads them."""

    def __init__(self, nursery: trio.Nursery, is_in_use: Callable[[str], bool]) -> None:
        self._nursery = nursery
        self._is_in_use = is_in_use
        self._open: OrderedDict[str, Product] = OrderedDict()
        self._turn = 0
        self._lets_go = False

    def __len__(self) -> int:
        return len(self._open)

    def get(self, key: str) -> Product | None:
        """The product, if it is open."""
        return self._open.get(key)

    def used(self, product: Product) -> None:
        """It was read."""
        product.used = self._turn

    def renew(self, product: Product) -> None:
        """It is being read on: it goes after the others."""
        if product.key in self._open:
            self._open.move_to_end(product.key)

    def keep(self, product: Product) -> None:
        """Keep it open, in the place of another one of its key."""
        self._open[product.key] = product
        self._open.move_to_end(product.key)
        product.used = self._turn
        self._shrink()
        if not self._lets_go:
            self._lets_go = True
            self._nursery.start_soon(self._let_go)

    def forget(self, key: str, product: Product | None = None) -> None:
        """Let it go; with `product` only if it is that one."""
        if product is None or self._open.get(key) is product:
            self._open.pop(key, None)

    def clear(self) -> None:
        """Let all of them go."""
        self._open.clear()

    def _shrink(self) -> None:
        size = sum(product.end for product in self._open.values())
        memory = sum(product.end for product in self._open.values() if product.in_memory)
        for key, product in list(self._open.items())[:-1]:
            if len(self._open) <= MOST_OPEN and size <= OPEN_BYTES and memory <= MEMORY_BYTES:
                break
            if not self._is_in_use(key):
                del self._open[key]
                size -= product.end
                memory -= product.end if product.in_memory else 0

    async def _let_go(self) -> None:
        while self._open:
            await trio.sleep(OPEN_SECONDS)
            self._turn += 1
            for key, product in list(self._open.items()):
                if product.used < self._turn - 1 and not self._is_in_use(key):
                    del self._open[key]
        self._lets_go = False
