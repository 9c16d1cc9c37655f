"""`SharedObject`: a large object that is served while it comes, to all readers of a daemon. On the loop.

When all blocks are here the whole is hashed (`store.fetching.completion`). From when that went wrong once,
nothing is served that has not been hashed as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from errno import EAGAIN, EINVAL, EOPNOTSUPP
from typing import Final

import trio

from store.errors import (
    CacheUnusable,
    ObjectCorrupt,
    RemoteCorrupt,
    RemoteError,
    StoreError,
    StoreTimeout,
)
from store.fetching.block_flights import RUN_BLOCKS, BlockFlights
from store.fetching.block_map import BLOCK_BYTES, End
from store.fetching.completion import Verdict, discard, finish
from store.fetching.partials import Partial
from store.fetching.range_download import StateChanged
from store.fetching.sources import Sources
from store.fetching.surroundings import READ_BYTES, Remotes, Surroundings
from store.oid import Oid

_WHOLE_BLOCKS: Final = 4 * RUN_BLOCKS
_ROUNDS: Final = 8
"""How often a reader's blocks may be lost again before it is told."""


class SharedObject:
    """One object. Made by `store.fetching.ranged_object`, which counts its readers."""

    def __init__(
        self,
        oid: Oid,
        size: int,
        around: Surroundings,
        partial: Partial | None,
        sources: Sources,
        *,
        whole: bool,
        on_idle: Callable[[SharedObject], object],
    ) -> None:
        """Without a partial, blocks are served and not kept; with `whole`, only once all are hashed."""
        self.oid = oid
        self.size = size
        self.verified = False
        """Whether the bytes that are here have been hashed as a whole."""
        self.sources = sources
        self._around = around
        self._on_idle = on_idle
        self._whole = whole
        self._flights = BlockFlights(oid, size, around, partial, sources, self)
        self._elsewhere = False
        self._finishing = False
        self._finished = trio.Event()
        self._finish_error: StoreError | None = None
        self._renewing = trio.Lock()

    @property
    def is_busy(self) -> bool:
        """Is something on its way, or being hashed?"""
        return self._flights.busy > 0

    def start(self, blocks: Iterable[int], remotes: Remotes, *, ahead: bool = False) -> None:
        """Fetch the blocks, where some are to be served before the whole is here."""
        if not self._whole:
            self._flights.start(blocks, remotes, ahead=ahead)

    async def read(self, offset: int, length: int, remotes: Remotes) -> bytes | memoryview:
        """The bytes from `offset`, which are within the object; valid until the next checkpoint.

        Raises `RemoteError`, `ObjectMissing`, `ObjectCorrupt`, `CacheUnusable`, `StoreTimeout`, `Offline`.
        """
        flights = self._flights
        blocks = range(offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES + 1)
        for _ in range(_ROUNDS):
            passing = {} if flights.has_all(blocks) else await self._bring(blocks, remotes)
            if passing is None or (self._whole and not self.verified):
                await self._bring_whole(remotes)
                continue
            if not passing and not flights.has_all(blocks):
                continue  # all was begun anew meanwhile
            generation, partial = flights.generation, flights.partial
            data: bytes | memoryview
            if passing:
                data = await self._assemble(partial, offset, length, passing)
            else:
                data = await self._read_kept(partial, offset, length)
            if generation != flights.generation:
                continue
            if len(data) == length:
                return data
            if self.verified:
                break
            await self._renew(self._around.partials.open, generation)
        raise ObjectCorrupt(f"object {self.oid} does not stay as it was while it is read")

    async def bring_all(self, remotes: Remotes) -> None:
        """Bring and hash the whole, ahead of any reader. Raises as `read` does, and `CacheUnusable` where the
        cache has no room for it."""
        for _ in range(_ROUNDS):
            if self.verified or (not self._around.hashes and not self._flights.absent):
                return
            await self._bring_whole(remotes)
        raise ObjectCorrupt(f"object {self.oid} does not stay as it was while it comes")

    def look_whether_whole(self) -> None:
        """Finish it if other processes have brought what we have not."""
        if self._flights.partial is not None and not self.verified and self._around.hashes:
            self._flights.launch(self._look, self._flights.partial)

    def let_go(self) -> None:
        """Close the partial, as soon as no thread uses it. Nothing is read any more."""
        self._flights.partial = None

    # What `BlockFlights` asks of the owner of the blocks

    def idle(self) -> None:
        self._on_idle(self)

    def all_here(self) -> None:
        """Hash the whole, once."""
        partial = self._flights.partial
        if not self._finishing and not self.verified and self._around.hashes and partial is not None:
            self._finishing = True
            self._finish_error = None
            self._flights.launch(self._finish, partial)

    async def partial_ended(self, partial: Partial, end: End) -> None:
        if partial is not self._flights.partial:
            return
        if end is End.ADMITTED:
            self.verified = True
            self._flights.take_all()
        else:
            await self._distrust(convict=False)

    # Bringing

    async def _bring(self, blocks: range, remotes: Remotes) -> dict[int, bytes] | None:
        """As `BlockFlights.bring`; None where the whole is to be brought instead."""
        if self._whole:
            return None
        try:
            return await self._flights.bring(blocks, remotes)
        except StateChanged:
            await self._begin_anew()
            return {}

    async def _bring_whole(self, remotes: Remotes) -> None:
        """Return when all is here and has been hashed, or is to be fetched anew."""
        flights = self._flights
        generation = flights.generation
        if flights.partial is None:
            await self._move_elsewhere(generation)
            return
        try:
            for first in range(0, flights.blocks, _WHOLE_BLOCKS):
                flights.start(range(first, min(first + 2 * _WHOLE_BLOCKS, flights.blocks)), remotes)
                blocks = range(first, min(first + _WHOLE_BLOCKS, flights.blocks))
                passing = await flights.bring(blocks, remotes)
                if generation != flights.generation or self.verified:
                    return
                if passing:
                    await self._move_elsewhere(generation)
                    return
        except StateChanged:
            await self._begin_anew()
            return
        except RemoteCorrupt as error:
            raise ObjectCorrupt(str(error)) from None
        except RemoteError:
            self.sources.let_others()
            raise
        if not self._around.hashes:
            return
        self.all_here()
        await self._finished.wait()
        if not self.verified and generation == flights.generation and self._finish_error is not None:
            raise type(self._finish_error)(*self._finish_error.args)

    # The end, and beginning anew

    async def _look(self, partial: Partial) -> None:
        try:
            is_complete = await self._around.threads.on_disk(partial.map.is_complete)
        except (OSError, StoreTimeout):
            return
        if is_complete and partial is self._flights.partial:
            self.all_here()

    async def _finish(self, partial: Partial) -> None:
        around = self._around
        try:
            done = await finish(partial, around.threads, around.locks, around.partials, around.gate)
            if partial is not self._flights.partial:
                return
            if done.verdict is Verdict.GOOD:
                self.verified = True
                self._flights.take_all()
                if done.admitted:
                    around.on_arrival(self.oid, self.size)
            elif done.verdict is Verdict.DAMAGED:
                self._flights.lose(done.damaged)
            else:
                await self._distrust(convict=True)
        except StoreError as error:
            self._finish_error = error
        except Exception as error:
            self._finish_error = CacheUnusable(f"object {self.oid} cannot be hashed: {error}")
            raise
        finally:
            self._finishing = False
            self._finished.set()
            self._finished = trio.Event()

    async def _begin_anew(self) -> None:
        """Bytes of one state of the object do not go with those of another."""
        partial, around = self._flights.partial, self._around
        if partial is not None:
            await around.threads.on_disk(discard, partial, around.partials, around.gate)
        if partial is self._flights.partial:
            await self._distrust(convict=False)

    async def _distrust(self, *, convict: bool) -> None:
        """What was served may be wrong: from now on nothing is before it has been hashed as a whole."""
        if convict:
            self.sources.convict()
        else:
            self.sources.begin_anew()
        self._whole = self._around.hashes
        self._around.on_corrupt(self.oid)
        await self._renew(self._around.partials.open, self._flights.generation)

    async def _move_elsewhere(self, generation: int) -> None:
        """The cache has no room for an object that must be whole before it is read."""
        if not self._whole:
            raise CacheUnusable(f"the cache has no room for object {self.oid}")
        await self._renew(self._around.partials.open_elsewhere, generation)

    async def _renew(self, open_partial: Callable[[Oid, int], Partial], generation: int) -> None:
        """Begin anew in another partial, if nobody has since that generation; in none, where a second one
        in the cache cannot be had. Raises `CacheUnusable` and `StoreTimeout` where one elsewhere cannot."""
        async with self._renewing:
            if generation != self._flights.generation:
                return
            elsewhere = open_partial == self._around.partials.open_elsewhere
            if elsewhere and self._elsewhere:
                raise CacheUnusable(f"no disk has room for object {self.oid}, which must be whole to be read")
            self._elsewhere = elsewhere
            self.verified = False
            self._flights.exchange(None)
            partial: Partial | None = None
            try:
                partial = await self._around.threads.on_disk(open_partial, self.oid, self.size)
            except (CacheUnusable, StoreTimeout):
                if elsewhere:
                    raise
            self._flights.exchange(partial)

    # Reading what is here

    async def _read_kept(self, partial: Partial | None, offset: int, length: int) -> bytes | memoryview:
        assert partial is not None  # a block is only here in a partial
        around = self._around
        if around.reads_now and length <= READ_BYTES:
            try:
                wanted = around.buffer[:length]
                if os.preadv(partial.descriptor, [wanted], offset, os.RWF_NOWAIT) == length:
                    return wanted
            except OSError as error:
                if error.errno in (EOPNOTSUPP, EINVAL):
                    around.reads_now = False
                elif error.errno != EAGAIN:
                    return b""
        return await around.threads.on_disk(_try_read, partial, offset, length)

    async def _assemble(
        self, partial: Partial | None, offset: int, length: int, passing: dict[int, bytes]
    ) -> bytes:
        """From what is on the disk and what is not."""
        parts = []
        while length:
            block, start = divmod(offset, BLOCK_BYTES)
            wanted = min(length, BLOCK_BYTES - start)
            if block in passing:
                parts.append(passing[block][start : start + wanted])
            else:
                parts.append(bytes(await self._read_kept(partial, offset, wanted)))
            offset += wanted
            length -= wanted
        return b"".join(parts)


def _try_read(partial: Partial, offset: int, length: int) -> bytes:
    try:
        return partial.read(offset, length)
    except OSError:
        return b""  # the disk lost it: it is fetched again
