"""Products of views on remotes: looked for before anything is made, and put there by whoever made them.

They lie under `fusefs/derived/` of a remote as they do in a cache (`store.making.products`), in the same
format. A marker says that a remote has any at all: where it is missing, nobody asks for products there for a
while, so remotes without any cost one question. A product from a remote is worth what the remote is: all of
it is held against its hashes when it comes, and what is wrong is dropped and made.

`RemoteProducts` belongs to the event loop; the rest is blocking, for any thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from store.errors import (
    CacheUnusable,
    ObjectMissing,
    RemoteAbsent,
    RemoteCorrupt,
    RemoteError,
    RemoteMissing,
    RemoteSlow,
    StoreError,
    StoreTimeout,
)
from store.making.product import Damaged, Product
from store.making.products import BELOW, Products, place
from store.remotes.remote import Remote
from store.remotes.spec import DVC_LAYOUT
from store.remotes.storage import Address, Body

if TYPE_CHECKING:
    from store.fetching.remote_set import RemoteSet
    from store.threads import Threads

MARKER: Final = f"{BELOW}/marker"
MARK: Final = b"products of fusefs\n"
LARGEST: Final = 1 << 30
"""Bytes. A larger product is made, or stays where it was made."""
SECONDS: Final = 30.0
"""For a product to come; making it takes about as long, at worst."""
ABSENT_SECONDS: Final = 300.0
"""For so long nothing is looked for on a remote that has no products."""
PRESENT_SECONDS: Final = 3600.0
SILENT_SECONDS: Final = 60.0
"""For so long a remote is left alone that did not answer."""

log = logging.getLogger(__name__)


class NoProducts(Exception):
    """The remote has none at all."""


def bring(remote: Remote, products: Products, key: str, count: int, *, look: bool) -> Product | None:
    """A whole product of a remote, verified and not published yet; None where the remote does not have it.

    With `look` it is asked first whether it has any. Raises `NoProducts`, `RemoteError` (`RemoteCorrupt` for
    what is no product), `CacheUnusable`.
    """
    until = time.monotonic() + SECONDS
    if look:
        try:
            remote.storage.size(Address(MARKER))
        except RemoteMissing:
            raise NoProducts from None
    try:
        with remote.storage.read(Address(_key(key))) as body:
            if body.length > LARGEST:
                raise RemoteCorrupt(f"{remote.name}: the product {key} is larger than any that is brought")
            return products.receive(key, count, _timely(body, until, remote, key), LARGEST)
    except RemoteMissing:
        return None
    except Damaged:
        raise RemoteCorrupt(f"{remote.name}: what it has for the product {key} is something else") from None


def push(remote: Remote, products: Products, key: str, count: int) -> bool:
    """Put a product, whole and verified, on a remote; False where it is there, of the same length.

    The remote is marked first. Raises `RemoteError`; `ObjectMissing` where the cache has no whole product of
    that key that is sound.
    """
    product = products.open(key, count)
    if product is None or not product.is_whole or not products.is_sound(product):
        raise ObjectMissing(f"there is no whole product {key} in the cache to be put on {remote.name}")
    size = product.size
    if size > LARGEST:
        raise ObjectMissing(f"the product {key} is too large to be put on a remote")
    try:
        if remote.storage.size(Address(_key(key))) == size:
            return False
    except (RemoteMissing, RemoteAbsent):
        pass
    remote.storage.put(MARKER, [MARK], len(MARK), if_absent=True)
    remote.storage.put(_key(key), product.parts(), size)
    return True


def _key(key: str) -> str:
    return f"{BELOW}/{place(key)}"


def _timely(body: Body, until: float, remote: Remote, key: str) -> Iterator[bytes]:
    for part in body:
        if time.monotonic() > until:
            raise RemoteSlow(f"{remote.name} takes too long to send the product {key}")
        yield part


@dataclass(slots=True)
class _Known:
    """What is known of a remote."""

    has_any: bool
    until: float
    """By the clock of `time.monotonic`."""


class RemoteProducts:
    """Looks for products on the remotes of whatever they are made of."""

    def __init__(
        self, products: Products, threads: Threads, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._products = products
        self._threads = threads
        self._clock = clock
        self._known: dict[str, _Known] = {}

    async def find(self, key: str, count: int, remotes: RemoteSet) -> Product | None:
        """A product that the first remote has that has it: whole, verified, not published yet. None where
        none has it or can say so. Raises nothing."""
        for remote in remotes.remotes:
            known = self._known.get(remote.identity)
            if known is not None and self._clock() >= known.until:
                known = None
            if remote.layout != DVC_LAYOUT or (known is not None and not known.has_any):
                continue
            product = await self._ask(remote, key, count, look=known is None)
            if product is not None:
                return product
        return None

    async def _ask(self, remote: Remote, key: str, count: int, *, look: bool) -> Product | None:
        def work() -> Product | None:
            return bring(remote, self._products, key, count, look=look)

        def discard(product: Product | None) -> None:
            if product is not None:
                self._products.discard(product)

        try:
            product = await self._threads.on_remote(work, deadline=SECONDS, discard=discard)
        except NoProducts:
            self._note(remote, False, ABSENT_SECONDS)
        except RemoteCorrupt as error:
            log.warning("%s; it is made instead", error)
        except CacheUnusable as error:
            log.debug("no product is brought: %s", error)
        except (RemoteError, StoreTimeout) as error:
            log.info("no products are asked for, for a while: %s", error)
            self._note(remote, False, SILENT_SECONDS)
        except StoreError as error:
            log.debug("no product is brought: %s", error)
        else:
            if look:
                self._note(remote, True, PRESENT_SECONDS)
            return product
        return None

    def _note(self, remote: Remote, has_any: bool, seconds: float) -> None:
        self._known[remote.identity] = _Known(has_any, self._clock() + seconds)
