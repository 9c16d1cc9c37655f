"""`RangedObjects`: large objects, read while they come. Async; on the loop.

`verify` says when bytes are served: `blocks`, as soon as their block is here, and the whole is hashed when
the last one is, then admitted to the cache; `whole`, only when all is here and hashed; `off`, nothing is ever
hashed, and what is complete stays a partial, because the cache only gets what was. Nothing is moved that
nobody asked for, but for what is read ahead: an object that was read to nine tenths stays a partial of nine
tenths.

Memory: `budget` bytes. Three quarters are for flights, each of which collects a block while the next part
comes, one quarter for blocks that no disk takes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import trio

from store.errors import CacheUnusable, ObjectCorrupt, StoreTimeout
from store.fetching.block_map import BLOCK_BYTES, MOST_BLOCKS, count_blocks
from store.fetching.completion import FINISH_LOCK, Gate
from store.fetching.flight_locks import FlightLocks
from store.fetching.partials import Partial, Partials
from store.fetching.read_ahead import ReadAhead
from store.fetching.shared_object import SharedObject
from store.fetching.sources import Sources
from store.fetching.surroundings import Remotes, Surroundings
from store.fetching.unkept import UnkeptBlocks
from store.oid import Oid
from store.threads import Threads

BUDGET: Final = 64 << 20
DEADLINE: Final = 30.0
_FLIGHT_BYTES: Final = 2 * BLOCK_BYTES
_FEWEST_FLIGHTS: Final = 4
KEEPING_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05
_REMEMBERED: Final = 1000
"""Objects that remotes gave wrong bytes for."""

Verify = Literal["whole", "blocks", "off"]


class RangedObject:
    """An object that a reader has open. Made by `RangedObjects.open`."""

    def __init__(
        self, shared: SharedObject, remotes: Remotes, leave: Callable[[SharedObject], object]
    ) -> None:
        self._shared = shared
        self._remotes = remotes
        self._leave = leave
        self._ahead = ReadAhead(shared.size)
        self._is_open = True

    @property
    def oid(self) -> Oid:
        return self._shared.oid

    @property
    def size(self) -> int:
        """In bytes."""
        return self._shared.size

    @property
    def verified(self) -> str:
        """What speaks for the bytes that are served: `hash`, or only their `length`."""
        return _proof(self._shared)

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """Up to `length` bytes from `offset`, all that there are; nothing beyond the end.

        What is returned is valid until the caller's next checkpoint. Callers ask for a few MiB at most.
        Raises `RemoteError`, `ObjectMissing`, `ObjectCorrupt`, `CacheUnusable`, `StoreTimeout`, `Offline`.
        """
        wanted = min(length, self.size - offset)
        if wanted <= 0:
            return b""
        shared = self._shared
        if not shared.verified:
            first, last = offset // BLOCK_BYTES, (offset + wanted - 1) // BLOCK_BYTES
            shared.start(range(first, last + 1), self._remotes)
            for run in self._ahead.note(offset, wanted):
                shared.start(run, self._remotes, ahead=True)
        return await shared.read(offset, wanted, self._remotes)

    async def bring(self) -> None:
        """Bring all of it, ahead of any reader: to the cache, or with `verify` off to its partial.

        Raises as `read` does, and `CacheUnusable` where there is no room for it.
        """
        await self._shared.bring_all(self._remotes)

    def close(self) -> None:
        """What is on its way goes on to where it is kept. Closing again does nothing."""
        if self._is_open:
            self._is_open = False
            self._leave(self._shared)


class RangedObjects:
    """All that are open or on their way, one for each oid. One per daemon and cache."""

    def __init__(
        self,
        threads: Threads,
        nursery: trio.Nursery,
        locks: FlightLocks,
        arrivals: Gate,
        cache_root: Path,
        *,
        verify: Verify = "blocks",
        budget: int = BUDGET,
        deadline: float = DEADLINE,
        may_keep: Callable[[int], bool] = lambda _: True,
        on_corrupt: Callable[[Oid], object] = lambda _: None,
        on_arrival: Callable[[Oid, int], object] = lambda *_: None,
    ) -> None:
        """`deadline`: seconds for a request. `on_corrupt` is told when bytes that were served were wrong,
        `on_arrival` of an object and its size when it has come to the cache; both on the loop. `may_keep` is
        asked whether so many bytes more may be kept."""
        flights = max(_FEWEST_FLIGHTS, budget * 3 // 4 // _FLIGHT_BYTES)
        self._around = Surroundings(
            threads,
            nursery,
            locks,
            Partials(cache_root, locks),
            arrivals,
            trio.CapacityLimiter(flights),
            UnkeptBlocks(budget // 4),
            verify != "off",
            deadline,
            may_keep,
            on_corrupt,
            on_arrival,
        )
        self._whole = verify == "whole"
        self._objects: dict[Oid, SharedObject] = {}
        self._readers: dict[SharedObject, int] = {}
        self._opening: dict[Oid, trio.Event] = {}
        self._suspects: OrderedDict[Oid, Sources] = OrderedDict()

    @property
    def opened(self) -> int:
        """How many objects somebody reads, or are on their way."""
        return len(self._objects)

    @property
    def partials(self) -> Partials:
        """For whoever ages them out."""
        return self._around.partials

    async def await_kept(self, oid: Oid) -> bool:
        """Whether another process was giving the object its place in the cache, which is over then: until it
        is there its partial is not, and it would all be fetched again. Waits not for long, and not for what
        can be read as it is. Raises `StoreTimeout`."""
        has_waited = False
        if oid not in self._objects:
            with trio.move_on_after(KEEPING_SECONDS):
                while await self._around.threads.on_disk(_is_on_its_way, self._around, oid):
                    has_waited = True
                    await trio.sleep(_POLL_SECONDS)
        return has_waited

    async def open(self, oid: Oid, size: int, remotes: Remotes) -> RangedObject:
        """Open an object of `size` bytes that the cache does not hold. Asks no remote.

        A cache that cannot be written to is no error: then nothing is kept. Raises `ObjectCorrupt` for a size
        that no file has.
        """
        if not 0 < count_blocks(size) <= MOST_BLOCKS:
            raise ObjectCorrupt(f"object {oid} is said to have {size} bytes, which no file has")
        while (opening := self._opening.get(oid)) is not None:
            await opening.wait()
        shared = self._objects.get(oid)
        if shared is None:
            shared = await self._make(oid, size)
        self._readers[shared] = self._readers.get(shared, 0) + 1
        return RangedObject(shared, remotes, self._leave)

    def proof(self, oid: Oid) -> str:
        """What speaks for the bytes of an object that is open: `hash` or `length`; else nothing."""
        shared = self._objects.get(oid)
        return "" if shared is None else _proof(shared)

    def close(self) -> None:
        """Close everything, when the nursery has ended. What is open is not read any more."""
        for shared in self._objects.values():
            shared.let_go()
        self._objects.clear()

    async def _make(self, oid: Oid, size: int) -> SharedObject:
        opened = self._opening[oid] = trio.Event()
        try:
            partial: Partial | None = None
            try:
                partial = await self._around.threads.on_disk(self._around.partials.open, oid, size)
            except (CacheUnusable, StoreTimeout):
                pass
            sources = self._suspects.get(oid) or Sources()
            # Whose bytes were wrong before is not believed before the end.
            whole = self._whole or oid in self._suspects
            shared = SharedObject(
                oid, size, self._around, partial, sources, whole=whole, on_idle=self._forget_if_idle
            )
            self._objects[oid] = shared
            shared.look_whether_whole()
        finally:
            del self._opening[oid]
            opened.set()
        return shared

    def _leave(self, shared: SharedObject) -> None:
        self._readers[shared] -= 1
        if not self._readers[shared]:
            del self._readers[shared]
            shared.look_whether_whole()
            self._forget_if_idle(shared)

    def _forget_if_idle(self, shared: SharedObject) -> None:
        if shared in self._readers or shared.is_busy or self._objects.get(shared.oid) is not shared:
            return
        del self._objects[shared.oid]
        shared.let_go()
        self._around.unkept.drop_object(shared.oid)
        if shared.sources.has_convicted:
            self._suspects[shared.oid] = shared.sources
            if len(self._suspects) > _REMEMBERED:
                self._suspects.popitem(last=False)


def _proof(shared: SharedObject) -> str:
    return "hash" if shared.verified else "length"


def _is_on_its_way(around: Surroundings, oid: Oid) -> bool:
    """Has another process taken the object's partial to give it its place?"""
    if around.partials.is_there(oid):
        return False
    if not around.locks.try_hold(oid, FINISH_LOCK):
        return True
    around.locks.release(oid, FINISH_LOCK)
    return False
