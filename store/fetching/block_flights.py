"""`BlockFlights`: brings blocks of one large object, each once for all readers. On the loop.

A block is here (written or checked by this process), on its way, or neither. Flights of neighbouring blocks
live in the store's nursery and not in a reader's task; a reader waits for its blocks only. What else may be
in the partial, from an earlier run or by another process, a flight finds before it asks a remote: its claim
checks each block's hash. A remote that gives objects only whole is read once from beginning to end, and
readers wait until it has come to their blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from store.errors import CacheUnusable, RangeRefused, RemoteSlow, StoreError, StoreTimeout
from store.fetching.block_map import BLOCK_BYTES, End, count_blocks
from store.fetching.partials import Partial
from store.fetching.range_download import Claim, RangeDownload, claim, release
from store.fetching.read_ahead import LARGEST_REQUEST
from store.fetching.sources import Sources
from store.fetching.surroundings import Remotes, Surroundings
from store.oid import Oid

log = logging.getLogger(__name__)

RUN_BLOCKS: Final = LARGEST_REQUEST // BLOCK_BYTES
_UNKEPT_BLOCKS_AHEAD: Final = 4
_AHEAD_SHARE: Final = 0.75
"""Of the flights: the rest is for what somebody waits for."""
_SLOWEST_RATE: Final = 1 << 20
"""Bytes a second that a remote which gives objects only whole must reach."""
_GRACE_SECONDS: Final = 2.0
_FIRST_POLL: Final = 0.01
_LONGEST_POLL: Final = 0.25
_STREAM_LOCK: Final = -4
"""Flight lock of whoever reads the object from beginning to end."""


@dataclass(slots=True, eq=False)
class _Coming:
    """A block on its way."""

    settled: trio.Event = field(default_factory=trio.Event)
    data: bytes = b""
    """Its bytes, where no disk took them."""
    error: StoreError | None = None


class Owner(Protocol):
    """Whose blocks they are."""

    def all_here(self) -> None:
        """The last block has come."""

    async def partial_ended(self, partial: Partial, end: End) -> None:
        """Another process has admitted or discarded what we have open."""

    def idle(self) -> None:
        """The last flight has ended."""


class BlockFlights:
    """The blocks of one object, and their partial. Made by `SharedObject`."""

    def __init__(
        self,
        oid: Oid,
        size: int,
        around: Surroundings,
        partial: Partial | None,
        sources: Sources,
        owner: Owner,
    ) -> None:
        """Without a partial, blocks are passed on and not kept."""
        self.partial = partial
        self.blocks = count_blocks(size)
        self.absent = self.blocks
        """How many are not here."""
        self.generation = 0
        """Of the partial: what comes for an earlier one is not for this one."""
        self.busy = 0
        """Flights, and what else the owner has launched."""
        self._oid = oid
        self._size = size
        self._around = around
        self._sources = sources
        self._owner = owner
        self._here = bytearray(self.blocks)
        self._coming: dict[int, _Coming] = {}
        self._landings = 0
        self._keeps = partial is not None
        self._only_whole = False
        self._streaming = False
        self._flying = 0
        self._none_flies = trio.Event()

    def has_all(self, blocks: range) -> bool:
        return self._here.find(0, blocks.start, blocks.stop) < 0

    def take_all(self) -> None:
        """All are here: the whole was hashed."""
        self._here = bytearray(b"\1") * self.blocks
        self.absent = 0
        self._settle(dict(self._coming), None)

    def lose(self, blocks: Iterable[int]) -> None:
        """The disk does not have what was written to it."""
        for block in blocks:
            self.absent += self._here[block]
            self._here[block] = 0

    def exchange(self, partial: Partial | None) -> None:
        """Begin anew in another partial, or in none."""
        self.generation += 1
        self.partial = partial
        self.absent = self.blocks
        self._here = bytearray(self.blocks)
        self._around.unkept.drop_object(self._oid)
        self._settle(dict(self._coming), None)

    def start(self, blocks: Iterable[int], remotes: Remotes, *, ahead: bool = False) -> None:
        """Fetch those that are neither here nor on their way. Those `ahead` of a reader only where nobody
        who waits is kept waiting by them."""
        wanted = [block for block in blocks if not self._here[block] and block not in self._coming]
        if ahead:
            if not self._keeps:
                wanted = wanted[:_UNKEPT_BLOCKS_AHEAD]
            if self._around.flights >= _AHEAD_SHARE * self._around.slots.total_tokens:
                return
        for run in split_runs(wanted, RUN_BLOCKS):
            coming = {block: _Coming() for block in run}
            self._coming.update(coming)
            if not self._only_whole:
                self._around.flights += 1
                self._flying += 1
                self.launch(self._fly, run, coming, remotes)
        if self._only_whole and wanted:
            self._start_stream(remotes)

    async def bring(self, blocks: range, remotes: Remotes) -> dict[int, bytes]:
        """Return when all are here, with the bytes of those that could not be kept."""
        passing: dict[int, bytes] = {}
        while True:
            for block in blocks:
                if not self._here[block] and block not in passing:
                    data = self._around.unkept.get(self._oid, block)
                    if data:
                        passing[block] = data
            absent = [block for block in blocks if not self._here[block] and block not in passing]
            if not absent:
                return passing
            self.start(absent, remotes)
            coming = self._coming[absent[0]]
            await self._wait(coming)
            if coming.error is not None:
                raise type(coming.error)(*coming.error.args)
            if coming.data:
                passing[absent[0]] = coming.data

    def launch(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Run something in the store's nursery; the object is not idle before it has ended."""
        self.busy += 1
        self._around.nursery.start_soon(self._run, work, arguments)

    async def _run(self, work: Callable[..., Awaitable[None]], arguments: tuple[object, ...]) -> None:
        try:
            await work(*arguments)
        except Exception as bug:  # it must not end the daemon; what waits for it has a deadline
            log.error("object %s: %s: %s in our own code", self._oid, type(bug).__name__, bug)
        finally:
            self.busy -= 1
            if not self.busy:
                self._owner.idle()

    async def _wait(self, coming: _Coming) -> None:
        while not coming.settled.is_set():
            before = self._landings
            with trio.move_on_after(self._around.deadline + _GRACE_SECONDS):
                await coming.settled.wait()
            if not coming.settled.is_set() and self._landings == before:
                raise RemoteSlow(f"object {self._oid} has not come on within {self._around.deadline:.0f} s")

    def _settle(self, settled: dict[int, _Coming], error: StoreError | None) -> None:
        for block, coming in settled.items():
            if self._coming.get(block) is coming:
                del self._coming[block]
            if not coming.settled.is_set():
                coming.error = error
                coming.settled.set()

    async def _fly(self, run: range, coming: dict[int, _Coming], remotes: Remotes) -> None:
        error: StoreError | None = None
        try:
            async with self._around.slots:
                await self._fetch(run, remotes)
        except RangeRefused:
            # What is on its way, this run included, comes with the stream.
            self._only_whole = True
            self._start_stream(remotes)
        except Exception as failure:
            error = self._as_store_error(failure)
            if any(block.settled.is_set() for block in coming.values()):
                error = (
                    None if isinstance(error, RemoteSlow | StoreTimeout) else error
                )  # slowly, but it comes
        finally:
            self._around.flights -= 1
            self._flying -= 1
            if not self._flying:
                self._none_flies.set()
                self._none_flies = trio.Event()
            if not self._streaming:
                self._settle(coming, error)

    def _as_store_error(self, failure: Exception) -> StoreError:
        if isinstance(failure, StoreError):
            return failure
        if isinstance(failure, OSError):
            return CacheUnusable(f"object {self._oid}: {failure.strerror or failure}")
        # A bug must reach readers as an error, not end the daemon.
        return StoreError(f"object {self._oid}: {type(failure).__name__}: {failure}")

    async def _fetch(self, run: range, remotes: Remotes) -> None:
        """Find, fetch or wait for the blocks of a run."""
        partial, generation = self.partial, self.generation
        left: list[int] = list(run)
        poll, given_up_at = _FIRST_POLL, trio.current_time() + self._around.deadline
        while left and generation == self.generation:
            if partial is None or trio.current_time() > given_up_at:
                # Another process holds their locks and does not get on: nothing is written without them.
                for part in split_runs(left, RUN_BLOCKS):
                    await self._download(part, None, generation, remotes)
                return
            found = await self._claim(partial, left)
            try:
                if found.end is not End.NONE:
                    await self._owner.partial_ended(partial, found.end)
                    return
                self._take_found(found, generation)
                for part in split_runs(found.mine, RUN_BLOCKS):
                    await self._download(part, partial, generation, remotes)
            finally:
                self._give_back(partial, found)
            settled = {*found.good, *found.mine}
            left = [block for block in left if block not in settled]
            if settled:
                poll, given_up_at = _FIRST_POLL, trio.current_time() + self._around.deadline
            elif left:
                await trio.sleep(poll)
                poll = min(2 * poll, _LONGEST_POLL)

    async def _claim(self, partial: Partial, blocks: list[int]) -> Claim:
        return await self._around.threads.on_disk(
            claim, partial, self._around.locks, blocks, discard=lambda late: self._give_back(partial, late)
        )

    def _give_back(self, partial: Partial, found: Claim) -> None:
        if partial.named:
            release(self._around.locks, self._oid, found.mine)

    def _take_found(self, found: Claim, generation: int) -> None:
        if found.good:
            self._sources.note_found()
        for block in found.good:
            self._landed(generation, block, b"")

    async def _download(
        self, part: range, partial: Partial | None, generation: int, remotes: Remotes
    ) -> None:
        deadline = self._around.deadline
        download = RangeDownload(
            self._oid,
            self._size,
            part,
            self._if_room(partial, len(part)),
            self._sources,
            self._teller(generation),
            patience=deadline / 2,
        )
        try:
            await remotes.run(self._oid, download.fetch, deadline=deadline)
        finally:
            await self._end(download)

    def _if_room(self, partial: Partial | None, blocks: int) -> Partial | None:
        """The partial, if it may have so many more blocks."""
        if partial is None or (partial.in_cache and not self._around.may_keep(BLOCK_BYTES * blocks)):
            return None
        return partial

    async def _end(self, download: RangeDownload) -> None:
        """Before locks are released, whatever happens: a thread that nobody waits for might still write."""
        with trio.CancelScope(shield=True):
            await self._around.threads.on_disk(download.end)

    def _teller(self, generation: int) -> Callable[[int, bytes], None]:
        """Tells of blocks that come to the partial of that generation, which may not be this one's."""
        threads = self._around.threads
        return lambda block, data: threads.tell_loop(self._landed, generation, block, data)

    def _landed(self, generation: int, block: int, data: bytes) -> None:
        """A block has come; `data` where it could not be kept."""
        if generation != self.generation:
            return
        self._landings += 1
        coming = self._coming.pop(block, None)
        if data:
            self._keeps = False
            self._around.unkept.put(self._oid, block, data)
        elif not self._here[block]:
            self._keeps = True
            self._here[block] = 1
            self.absent -= 1
            self._around.unkept.drop(self._oid, block)
        if coming is not None:
            coming.data = data
            coming.settled.set()
        if not self.absent:
            self._owner.all_here()

    def _start_stream(self, remotes: Remotes) -> None:
        if not self._streaming:
            self._streaming = True
            self.launch(self._stream, remotes)

    async def _stream(self, remotes: Remotes) -> None:
        """All that is not here, from a remote that gives objects only whole."""
        error: StoreError | None = None
        before = self._landings
        locks = self._around.locks
        holds = False
        try:
            while self._flying:  # they hold locks until their ranges are refused, too
                await self._none_flies.wait()
            partial, generation = self.partial, self.generation
            if partial is not None:
                holds = await self._wait_for_stream_lock(partial)
            if self._coming and generation == self.generation:
                async with self._around.slots:
                    await self._download_whole(partial, generation, remotes)
        except Exception as failure:
            error = self._as_store_error(failure)
            if isinstance(error, RemoteSlow | StoreTimeout) and self._landings != before:
                error = None
        finally:
            if holds:
                locks.release(self._oid, _STREAM_LOCK)
            self._streaming = False
            self._settle(dict(self._coming), error)

    async def _wait_for_stream_lock(self, partial: Partial) -> bool:
        """Take what another process brings for as long as it gets on; True when its lock is ours."""
        locks, generation, before = self._around.locks, self.generation, -1
        given_up_at = 0.0
        while self._landings != before or trio.current_time() < given_up_at:
            if self._landings != before:
                before, given_up_at = self._landings, trio.current_time() + self._around.deadline
            holds = locks.try_hold(self._oid, _STREAM_LOCK)
            try:
                found = await self._claim(partial, list(self._coming) if partial.named else [])
                self._give_back(partial, found)
                if found.end is not End.NONE:
                    await self._owner.partial_ended(partial, found.end)
                self._take_found(found, generation)
            except BaseException:
                if holds:
                    locks.release(self._oid, _STREAM_LOCK)
                raise
            if holds or not self._coming or generation != self.generation:
                return holds
            await trio.sleep(_LONGEST_POLL)
        return False

    async def _download_whole(self, partial: Partial | None, generation: int, remotes: Remotes) -> None:
        around = self._around
        download = RangeDownload(
            self._oid,
            self._size,
            range(self.blocks),
            self._if_room(partial, self.absent),
            self._sources,
            self._teller(generation),
            skip=frozenset(block for block in range(self.blocks) if self._here[block]),
            locks=around.locks,
        )
        try:
            deadline = around.deadline + self._size / _SLOWEST_RATE
            await remotes.run(self._oid, download.fetch_whole, deadline=deadline, hedge=False)
        finally:
            await self._end(download)


def split_runs(blocks: Iterable[int], most: int) -> Iterator[range]:
    """Ascending blocks as runs of neighbours, each of at most so many."""
    first = stop = -1
    for block in blocks:
        if block != stop or stop - first == most:
            if stop > first:
                yield range(first, stop)
            first = block
        stop = block + 1
    if stop > first:
        yield range(first, stop)
