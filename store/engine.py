"""`Engine`: everything below a mount, put together: caches, threads, remotes, what fetches and what keeps.

An async context manager, for a daemon that serves a mount and for commands that fetch. Belongs to the event
loop of whoever enters it. What it fetches comes into the first of its caches.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from store.budget import Limits
from store.cache_chain import CacheChain
from store.content_store import ContentStore
from store.errors import StoreError
from store.fetcher import Fetcher
from store.fetching.arrivals import OURS, Arrivals
from store.fetching.courier import Courier
from store.fetching.download import Downloader
from store.fetching.flight_locks import FlightLocks
from store.fetching.flights import Flights
from store.fetching.publisher import Publisher
from store.fetching.ranged_object import RangedObjects, Verify
from store.fetching.remote_pool import Opener, RemotePool
from store.fetching.remote_set import Refresh, RemoteSet
from store.file_systems import is_on_disk
from store.keeping.keeper import Keeper
from store.keeping.known_remotes import KnownRemotes
from store.keeping.leases import hold
from store.ledger import Ledger
from store.local_cache import LocalCache
from store.metrics import Metrics
from store.oid import Oid
from store.oplog.hints import Hints
from store.pace import DiskPace
from store.prefetch_window import Window
from store.remotes.spec import RemoteSpec
from store.size_finder import SizeFinder
from store.sizes import How, Learnt, SizeIndex
from store.threads import Threads

if TYPE_CHECKING:
    from store.making.maker import Maker
    from store.making.started_worker import StartedWorkers

log = logging.getLogger(__name__)

UNVERIFIED: Final = f"{OURS}/unverified"
"""Below a cache: objects that nobody has hashed. DVC does not look there, nor do mounts that verify."""
BUDGET_SECONDS: Final = 10.0
DRAIN_SECONDS: Final = 10.0
"""At the end, for what was fetched and is not in its place yet."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an engine is to do."""

    caches: Sequence[Path]
    """Where objects are looked for; what is fetched comes into the first."""
    blobs: Path
    """Where git's objects are kept, a directory of the user's own."""
    own: Path
    """What the user has of ours: what was learnt of sizes, compiled trees, clones."""
    limits: Limits = field(default_factory=Limits)
    """How much is kept of what was fetched."""
    offline: bool = False
    """Only remotes that are directories are asked."""
    courier: bool = False
    """May there be processes beside ours, which bring small objects and look for sizes? For daemons, and for
    whoever brings many."""
    grace: float = 0.0
    """Seconds for which an object that came is not evicted: somebody else is about to open it."""
    verify: Verify = "blocks"
    """`whole`, `blocks` or `off`: what is proved of an object before its bytes are served."""
    workers: int = 0
    """Processes that make what the views show; 0: one for each core."""
    started_workers: StartedWorkers | None = None
    """Those of them that there are already."""


class Engine:
    """Made by `open_engine`."""

    def __init__(self, settings: Settings, opener: Opener, nursery: trio.Nursery) -> None:
        self.settings = settings
        self.nursery = nursery
        self.caches = CacheChain(*[LocalCache(root) for root in settings.caches])
        self.blobs = LocalCache(settings.blobs)
        self.threads = Threads()
        self.metrics = Metrics()
        self.metrics.queues = self.threads.queues
        self.pool = RemotePool(opener, self.metrics, settings.own)
        pace = DiskPace(is_local=all(map(is_on_disk, (*settings.caches, settings.blobs))))
        self.store = ContentStore(self.caches, self.blobs, self.threads, Fetcher(self.threads, nursery), pace)
        self._index = SizeIndex(settings.own)
        self.hints = Hints(settings.caches[0])
        self.finder = SizeFinder(self.caches, self._index, self.threads, nursery, self.hints)
        self.finder.swept_with = settings.own if settings.courier else None
        self.store.on_open = lambda oid, descriptor: hold(descriptor)
        self.on_corrupt: Callable[[Oid], object] = lambda _: None
        """Told when bytes of an object may have been served that were not its own."""
        self.on_large: Callable[[Oid], object] = lambda _: None
        """Told of every large object that has come into the cache whole."""
        self.on_settled: Callable[[Oid], object] = lambda _: None
        """Told of every small object that was on its way into the cache, and is there now, or cannot be."""
        self.after_sweep: Callable[[], Awaitable[None]] | None = None
        """As `Keeper.after_sweep`; set before anything is fetched."""
        self.window = Window(settings.limits, lambda: self.metrics.flights())
        """How much may be brought ahead of readers."""
        self._known = KnownRemotes(settings.caches[0], self._alone)
        self._courier: Courier | None = None
        self._publisher: Publisher | None = None
        self._locks: FlightLocks | None = None
        self._arrivals: Arrivals | None = None
        self._keeper: Keeper | None = None
        self._maker: Maker | None = None
        self._ledger = Ledger(settings.caches[0], create=False)
        self.store.was_hashed = self._was_hashed

    def remote_set(self, specs: Sequence[RemoteSpec], refresh: Refresh | None = None) -> RemoteSet:
        """The remotes of a version. `refresh` settles them anew after one has denied something."""
        if specs and self._publisher is None:
            self._begin_fetching()
            self.nursery.start_soon(self._load_hints)
        self._known.add(specs)
        return RemoteSet(
            specs,
            self.pool,
            self.threads,
            offline=self.settings.offline,
            refresh=refresh,
            courier=self._courier,
            hints=self.hints,
        )

    @property
    def maker(self) -> Maker:
        """Makes what the views show, and keeps it in the first cache; begun when it is first asked for."""
        if self._maker is None:
            from store.making.maker import Maker  # decoders are large, and most mounts make nothing

            keeper = self._keep()
            self._maker = Maker(
                self.settings.caches[0],
                self.threads,
                self.nursery,
                may_keep=keeper.may_keep,
                note_kept=keeper.budget.added,
                workers=self.settings.workers,
                started=self.settings.started_workers,
            )
            self.metrics.making = self._maker.figures
        return self._maker

    def _keep(self) -> Keeper:
        """Keep the first cache within its limits from now on."""
        if self._keeper is None:
            self._keeper = Keeper(
                self.settings.caches[0],
                self.settings.own,
                self.settings.limits,
                self.threads,
                self._known.find,
                self.window,
                self.settings.grace,
            )
            self._keeper.after_sweep = self.after_sweep
            self.window.has_room = self._keeper.budget.has_room
            self.nursery.start_soon(self._keeper.run)
        return self._keeper

    def _begin_fetching(self) -> None:
        root, verify = self.settings.caches[0], self.settings.verify
        self._arrivals = arrivals = Arrivals(root)
        places = arrivals
        if verify == "off":
            self.caches.add(LocalCache(root / UNVERIFIED))
            places = Arrivals(root, below=UNVERIFIED)
        self._locks = locks = FlightLocks(root)
        keeper = self._keep()

        def note_arrival(oid: Oid, size: int, remote: str) -> None:
            keeper.note_arrival(oid, size, remote)
            self._index.note(Learnt(oid.raw, size, How.HASHED), oid.algorithm)

        downloader = Downloader(places, verify=verify != "off", may_keep=keeper.may_keep)
        if self.settings.courier:
            self._courier = Courier(
                self.threads,
                self.nursery,
                root,
                downloader,
                below=UNVERIFIED if verify == "off" else "",
                verify=verify != "off",
                may_keep=keeper.may_keep,
                places=lambda: [cache.root for cache in self.caches.caches],
            )
        self._publisher = publisher = Publisher(
            self.threads,
            self.nursery,
            places,
            downloader,
            locks,
            note_arrival if verify != "off" else _ignore,
            self._courier,
            on_settled=lambda oid: self.on_settled(oid),
        )
        flights = Flights(
            self.threads,
            self.nursery,
            self.caches,
            downloader,
            publisher,
            locks,
            self.metrics,
            pace=self.store.pace,
            courier=self._courier,
        )
        self.metrics.flights = flights.__len__
        self.metrics.publications = publisher.__len__

        def note_proof(oid: Oid, size: int) -> None:
            note_arrival(oid, size, "")
            self.on_large(oid)
            if self._maker is not None:
                self._maker.prove(oid)

        ranged = RangedObjects(
            self.threads,
            self.nursery,
            locks,
            arrivals,
            root,
            verify=verify,
            may_keep=keeper.may_keep,
            on_corrupt=self._note_corrupt,
            on_arrival=note_proof,
        )
        self.store.fetch_with(flights, ranged)

        def note_use(oid: Oid, descriptor: int) -> None:
            hold(descriptor)
            keeper.note_use(oid)

        self.store.on_open = note_use
        self.nursery.start_soon(self._clear_incoming, places)

    def note_use(self, oid: Oid) -> None:
        """An object of the cache has been opened, and not by us."""
        if self._keeper is not None:
            self._keeper.note_use(oid)

    def _was_hashed(self, oid: Oid, size: int) -> bool:
        """Did we put the object into the cache? What comes there by us is hashed. Blocking; any thread."""
        ledger = self._ledger if self._keeper is None else self._keeper.ledger
        ledger.flush()
        return any(row.size == size for row in ledger.find([oid]))

    def _note_corrupt(self, oid: Oid) -> None:
        log.error("object %s came with bytes that are not its own; it is hashed before it is read again", oid)
        self.on_corrupt(oid)
        if self._maker is not None:
            self.nursery.start_soon(self._maker.refute, oid)

    async def await_budget(self) -> None:
        """Wait, not for long, until it is known what may be kept: for what nobody waits for."""
        if self._keeper is not None:
            with trio.move_on_after(BUDGET_SECONDS):
                await self._keeper.is_measured.wait()

    def _alone(self, spec: RemoteSpec) -> RemoteSet:
        return RemoteSet((spec,), self.pool, self.threads, offline=self.settings.offline)

    async def _load_hints(self) -> None:
        try:
            await self.threads.on_disk(self.hints.load)
        except StoreError as error:
            log.info("the logs of remotes are not known: %s", error)

    async def _clear_incoming(self, arrivals: Arrivals) -> None:
        try:
            await self.threads.on_disk(arrivals.prepare)
        except StoreError as error:
            log.warning("%s; what is fetched is served and not kept", error)

    async def drain(self) -> None:
        """Wait, not for long, until what was fetched and made is in its place."""
        if self._maker is not None:
            with trio.move_on_after(DRAIN_SECONDS):
                await self._maker.drain()
        if self._publisher is not None:
            with trio.move_on_after(DRAIN_SECONDS):
                await self._publisher.drain()
            self._publisher.stop()
        if self._courier is not None:
            self._courier.stop()

    def disown(self) -> None:
        """In a forked child, which must not use or close what its parent has open: leave the locks to it."""
        if self._locks is not None:
            self._locks.disown()

    def close(self) -> None:
        """Let go of everything. Blocking."""
        if self._courier is not None:
            self._courier.close()
        if self._maker is not None:
            self._maker.close()
        self.pool.close()
        if self._locks is not None:
            self._locks.close()
        if self._arrivals is not None:
            self._arrivals.close()
        if self._keeper is not None:
            self._keeper.close()
        self._ledger.close()
        self._index.close()
        self.caches.close()
        self.blobs.close()


def _ignore(oid: Oid, size: int, remote: str) -> None:
    """Of what nobody has hashed nothing is kept account."""


@contextlib.asynccontextmanager
async def open_engine(settings: Settings, opener: Opener) -> AsyncIterator[Engine]:
    """An engine, for as long as the context lasts. What it does in the background ends with it."""
    async with trio.open_nursery() as nursery:
        engine = Engine(settings, opener, nursery)
        try:
            yield engine
        finally:
            with trio.CancelScope(shield=True):
                await engine.drain()
            nursery.cancel_scope.cancel()
            engine.close()
