"""`Maker`: what is made of sources, once: by worker processes, or found where products are kept.

Everything goes by a task's key. What is open is kept open for a while, so that a piece that is there costs
one read; what is missing becomes a flight, which all who want something of it share. A failure is remembered
for some seconds, so that a thousand readers of a broken video do not cost a thousand tries; what fails for
reasons outside of the content is never kept.

Thread rule: belongs to the event loop.
"""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from store.errors import CacheUnusable, MediaFailed, MediaInvalid, ObjectCorrupt, StoreError
from store.making.failures import Failures
from store.making.flight import Flight
from store.making.frame_chunks import FrameChunks
from store.making.indexes import index_task
from store.making.makers import MAKERS, Registered
from store.making.open_products import OpenProducts
from store.making.product import MOST_PIECES, Damaged, Entry, Product, Refused
from store.making.products import Products
from store.making.publishing import Publishing
from store.making.read_ahead import ReadAhead
from store.making.remote_products import RemoteProducts
from store.making.started_worker import StartedWorkers
from store.making.tasks import Origin, Task, remotes_of
from store.making.unproved import Unproved
from store.making.workers import DEADLINE, Workers
from store.media.index import VideoIndex
from store.media.index_file import from_bytes
from store.media.recipe import FramesRecipe
from store.metrics import Making
from store.oid import Oid
from store.threads import Threads

NO_ROOM_SECONDS: Final = 10.0
"""For so long products are made in memory when the cache has taken no more."""
DRAIN_STEP: Final = 0.02
TRIES: Final = 3
"""That what is damaged in the cache is made anew."""
INDEX_PACKETS: Final = 4 << 20
"""Of all indexes that are kept in memory, but one: some 60 bytes each."""

log = logging.getLogger(__name__)


class Maker:
    """`note_kept` is told how many bytes have come into the cache, and `may_keep` asked before."""

    def __init__(
        self,
        cache: Path,
        threads: Threads,
        nursery: trio.Nursery,
        *,
        may_keep: Callable[[int], bool] = lambda _: True,
        note_kept: Callable[[int], object] = lambda _: None,
        makers: Mapping[str, Registered] = MAKERS,
        workers: int = 0,
        deadline: float = DEADLINE,
        started: StartedWorkers | None = None,
    ) -> None:
        self._products = Products(cache)
        self._threads = threads
        self._nursery = nursery
        self._workers = Workers(nursery, self._settle, makers, workers, deadline, started)
        self._remote_products = RemoteProducts(self._products, threads)
        self._failures = Failures()
        self._unproved = Unproved()
        self._publishing = Publishing(self._products, threads, nursery, self._unproved, may_keep, note_kept)
        self._finding: dict[str, trio.Event] = {}
        self._flights: dict[str, Flight] = {}
        self._open = OpenProducts(nursery, self._flights.__contains__)
        self._indexes: OrderedDict[str, VideoIndex] = OrderedDict()
        self._beginning: dict[str, trio.Event] = {}
        self._ahead = ReadAhead(self._open, self._flights, self._workers.most, self._begin_ahead)
        self._made = self._found = self._failed = 0
        self._no_room_until = 0.0
        self._is_draining = False
        nursery.start_soon(self._prepare)

    async def piece(self, task: Task, number: int) -> bytes:
        """A piece, as soon as it is made; the rest of the product follows behind.

        Raises `MediaInvalid` where the content does not allow it or there is no such piece, `MediaFailed`
        where a worker died or gave up, and as origins do.
        """
        product = self._open.get(task.key)
        if product is not None:
            entry = product.entries.get(number)
            if isinstance(entry, Entry):
                try:
                    data = product.read_now(entry)
                except (BlockingIOError, Damaged):
                    pass
                else:
                    self._ahead.note_read(task, product, number)
                    return data
        for _ in range(TRIES):
            product, entry = await self._await_entry(task, number)
            if isinstance(entry, Refused):
                raise MediaInvalid(entry.reason)
            try:
                data = await self._read(product, entry)
            except Damaged:
                await self._drop(product)
            else:
                self._ahead.note_read(task, product, number)
                return data
        raise ObjectCorrupt(f"{task}: what is kept of it is damaged again and again")

    async def product(self, task: Task) -> Product:
        """The product, when all that can be made of it is made: to be read by `read`.

        Raises as `piece`, but for single pieces.
        """
        while True:
            product = await self._find(task)
            if product is not None and product.is_whole:
                return product
            flight = await self._fly(task)
            if flight is not None:
                if not flight.product.is_whole:
                    await flight.wait_for_all()
                if flight.product.is_whole:
                    return flight.product
                _raise_failure(flight)

    async def keep(self, task: Task) -> None:
        """Have the whole product made and put into the cache, if that takes it.

        What somebody has deleted there is made again, although it is open here. Raises as `product`.
        """
        key = task.key
        if not await self._publishing.done_with(key) and key not in self._flights:
            self._open.forget(key)
        await self.product(task)
        await self._publishing.done_with(key)

    def sizes(self, task: Task) -> Sequence[int] | None:
        """Bytes by piece, -1 for one that is not known, where something is known without making anything."""
        product = self._open.get(task.key)
        if product is None:
            try:
                product = self._products.open_now(task.key, task.pieces)
            except BlockingIOError:
                return None
            if product is not None:
                self._open.keep(product)
        return product.sizes if product is not None and product.entries else None

    async def index(self, origin: Origin) -> VideoIndex:
        """The index of a video: made once per content, and kept. Raises as `piece`."""
        task = index_task(origin)
        for _ in range(TRIES):
            found = self._indexes.get(task.key)
            if found is not None:
                self._indexes.move_to_end(task.key)
                return found
            data = await self.piece(task, 0)
            made = await self._threads.on_disk(from_bytes, data)
            if made is not None:
                self._indexes.setdefault(task.key, made)
                packets = sum(len(index.packets) for index in self._indexes.values())
                while packets > INDEX_PACKETS and len(self._indexes) > 1:
                    packets -= len(self._indexes.popitem(last=False)[1].packets)
                return made
            await self._drop(await self.product(task))
        raise ObjectCorrupt(f"the index of {origin.name!r} is damaged again and again")

    async def frames(self, origin: Origin, recipe: FramesRecipe) -> FrameChunks:
        """The frames of a video that a recipe selects, and the chunks that they are made in. Raises as
        `piece`."""
        index = await self.index(origin)
        return await self._threads.on_disk(FrameChunks, origin, index, recipe)

    def figures(self) -> Making:
        """What goes on, and what was made since this was begun."""
        workers, busy, waiting = self._workers.counts
        return Making(
            self._workers.most,
            workers,
            busy,
            waiting,
            self._made,
            self._found,
            self._failed,
            self._publishing.kept,
            self._publishing.kept_bytes,
        )

    async def drain(self) -> None:
        """Make no more, and keep what there is, at the end."""
        self._is_draining = True
        self._workers.close()
        # Not for flights: where all was cancelled, nobody is at them any more.
        while self._workers.are_busy or self._publishing.is_busy:
            await trio.sleep(DRAIN_STEP)

    def close(self) -> None:
        """End the workers and let go of everything. Blocking, not for long."""
        self._is_draining = True
        self._workers.close()
        for flight in self._flights.values():
            self._products.discard(flight.product)
        self._flights.clear()
        self._open.clear()
        self._products.close()

    async def read(self, task: Task, product: Product, number: int) -> bytes:
        """A piece of what `product` gave. Raises as `piece`."""
        entry = product.entries.get(number)
        if isinstance(entry, Entry):
            try:
                return await self._read(product, entry)
            except Damaged:
                await self._drop(product)
        return await self.piece(task, number)

    async def _await_entry(self, task: Task, number: int) -> tuple[Product, Entry | Refused]:
        while True:
            product = await self._find(task)
            entry = None if product is None else product.entries.get(number)
            if product is None or (entry is None and not product.is_whole):
                flight = await self._fly(task)
                if flight is None:
                    continue
                product = flight.product
                if number not in product.entries and 0 <= number < (product.count or MOST_PIECES):
                    await flight.wait_for(number)
                    if number not in product.entries:
                        _raise_failure(flight)
                entry = product.entries.get(number)
            if entry is not None:
                return product, entry
            if not 0 <= number < (product.count or MOST_PIECES):
                raise MediaInvalid(f"{task} has {product.count} pieces and no number {number}")

    async def _find(self, task: Task) -> Product | None:
        """What there is of a product, if anything. Raises `StoreTimeout`."""
        key = task.key
        while True:
            product = self._open.get(key)
            if product is not None:
                return product
            finding = self._finding.get(key)
            if finding is not None:
                await finding.wait()
                continue
            try:
                product = self._products.open_now(key, task.pieces)
            except BlockingIOError:
                self._finding[key] = trio.Event()
                try:
                    product = await self._threads.on_disk(self._products.open, key, task.pieces)
                finally:
                    self._finding.pop(key).set()
            if product is not None:
                self._open.keep(product)
            return product

    def is_proved(self, task: Task) -> bool:
        """Has everything been hashed that its product was made of, as far as it was made here?"""
        return not self._unproved.holds(task.key)

    def prove(self, oid: Oid) -> None:
        """An object that was read while it came is whole, and is what it should be."""
        self._unproved.prove(oid)

    async def refute(self, oid: Oid) -> None:
        """Bytes of an object were wrong: drop what was made of them."""
        keys = self._unproved.refute(oid)
        for key in keys:
            self._open.forget(key)
            self._indexes.pop(key, None)
            await self._threads.on_disk(self._products.drop, key)
        if keys:
            log.warning("%d products that were made of wrong bytes of object %s are dropped", len(keys), oid)

    async def _fly(self, task: Task, *, is_ahead: bool = False) -> Flight | None:
        """The flight of a product; None for one that is whole by now.

        Raises what it failed of a moment ago, `CacheUnusable`, and as needs do.
        """
        key = task.key
        while (flight := self._flights.get(key)) is None:
            self._failures.check(task)
            beginning = self._beginning.get(key)
            if beginning is not None:
                await beginning.wait()
                continue
            self._beginning[key] = trio.Event()
            try:
                product = await self._find(task)
                if product is None:
                    product = await self._find_elsewhere(task)
                if product is not None and product.is_whole:
                    return None
                needs = [await self.product(need) for need in task.needs]
                product = await self._growing(task, product)
                self._open.keep(product)
                flight = self._flights[key] = Flight(task, product, needs, is_ahead=is_ahead)
            finally:
                self._beginning.pop(key).set()
            self._workers.submit(flight)
        return flight

    async def _find_elsewhere(self, task: Task) -> Product | None:
        """A product that a remote has, whole. It is kept from now on."""
        remotes = remotes_of(task)
        if not remotes or trio.current_time() < self._no_room_until:
            return None
        product = await self._remote_products.find(task.key, task.pieces, remotes)
        if product is not None:
            self._found += 1
            self._open.keep(product)
            self._publishing.begin(product)
        return product

    async def _growing(self, task: Task, product: Product | None) -> Product:
        """A product that pieces can be written to, with those that there are."""
        products = self._products
        if trio.current_time() < self._no_room_until:
            return products.new_in_memory(task.key, task.pieces)
        make, of = (
            (products.new, (task.key, task.pieces)) if product is None else (products.grown, (product,))
        )
        return await self._threads.on_disk(make, *of, discard=products.discard)

    async def _prepare(self) -> None:
        try:
            await self._threads.on_disk(self._products.prepare)
        except StoreError as error:
            log.warning("%s; what is made is served and not kept", error)

    def _settle(self, flight: Flight) -> None:
        """A flight has ended: keep what there is."""
        product, error = flight.product, flight.error
        self._flights.pop(flight.key, None)
        product.grows = False
        if flight.unproved:
            self._unproved.note(flight.key, flight.unproved)
        if isinstance(error, CacheUnusable):
            self._no_room_until = trio.current_time() + NO_ROOM_SECONDS
            self._open.forget(flight.key, product)
        elif error is not None and not self._is_draining:
            self._failed += 1
            self._failures.note(flight.task, error)
            if isinstance(error, MediaFailed):
                log.warning("%s", error)
        elif product.is_whole:
            self._made += 1
        self._publishing.begin(product)

    async def _read(self, product: Product, entry: Entry) -> bytes:
        """A piece's bytes. Raises `Damaged`, `StoreTimeout`."""
        with contextlib.suppress(BlockingIOError):
            return product.read_now(entry)
        return await self._threads.on_disk(product.read, entry)

    async def _drop(self, product: Product) -> None:
        """Have a damaged product made anew."""
        log.warning("a product in the cache, %s, is damaged; it is made again", product.key)
        self._open.forget(product.key, product)
        await self._threads.on_disk(self._products.drop, product.key)

    def _begin_ahead(self, task: Task) -> None:
        self._nursery.start_soon(self._make_ahead, task)

    async def _make_ahead(self, task: Task) -> None:
        try:
            product = await self._find(task)
            if product is None or not product.is_whole:
                await self._fly(task, is_ahead=True)
        except StoreError:
            pass  # whoever reads it is told
        finally:
            self._ahead.has_begun(task)


def _raise_failure(flight: Flight) -> None:
    """Raise what a flight has ended with, unless it is worth another try."""
    if isinstance(flight.error, CacheUnusable) and not flight.product.in_memory:
        return  # the next one is made in memory
    if flight.error is not None:
        raise flight.error.with_traceback(None)
