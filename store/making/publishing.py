"""`Publishing`: what was made goes to its place in the cache, behind the back of those who wait for pieces.

Thread rule: belongs to the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from store.errors import StoreError
from store.making.product import Product
from store.making.products import Products
from store.making.unproved import Unproved
from store.threads import Threads

log = logging.getLogger(__name__)


class Publishing:
    """`note_kept` is told how many bytes have come into the cache, and `may_keep` asked before."""

    def __init__(
        self,
        products: Products,
        threads: Threads,
        nursery: trio.Nursery,
        unproved: Unproved,
        may_keep: Callable[[int], bool],
        note_kept: Callable[[int], object],
    ) -> None:
        self.kept = self.kept_bytes = 0
        """What has come into the cache so far."""
        self._products = products
        self._threads = threads
        self._nursery = nursery
        self._unproved = unproved
        self._may_keep = may_keep
        self._note_kept = note_kept
        self._going: dict[Product, trio.Event] = {}

    @property
    def is_busy(self) -> bool:
        return bool(self._going)

    def begin(self, product: Product) -> None:
        """Keep what there is of a product to which nothing is written any more."""
        if product.path is not None:
            self._going[product] = trio.Event()
            self._nursery.start_soon(self._publish, product)

    async def done_with(self, key: str) -> bool:
        """Wait until the products of a key that are on their way are in their places, or dropped; whether
        there were any."""
        going = [event for product, event in self._going.items() if product.key == key]
        for event in going:
            await event.wait()
        return bool(going)

    async def _publish(self, product: Product) -> None:
        try:
            if product.entries and self._may_keep(product.end):
                size = await self._threads.on_disk(self._products.publish, product)
                self._note_kept(size)
                self.kept += 1
                self.kept_bytes += size
                if self._unproved.is_refuted(product.key):
                    await self._threads.on_disk(self._products.drop, product.key)
            else:
                await self._threads.on_disk(self._products.discard, product)
        except StoreError as error:
            log.warning("%s; what is made is served and not kept", error)
        finally:
            self._going.pop(product).set()
