"""`finish`: a partial that has all its blocks becomes an object of the cache, or is found out. On the loop.

The file is hashed in slices, each a job of its own for a disk's thread, so that a terabyte keeps no thread
past its deadline. Each block is held against its entry in the map on the way: bytes that the disk has lost
since they came are told from bytes that were wrong when they came.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import trio
import xxhash

from store.errors import CacheUnusable
from store.fetching.block_map import BLOCK_BYTES, End, hash_entry
from store.fetching.flight_locks import FlightLocks
from store.fetching.partials import Partial, Partials
from store.hashing import Hasher
from store.oid import Oid
from store.threads import Threads

FINISH_LOCK: Final = -3
"""Flight lock of whoever hashes a complete partial."""
_SLICE_BLOCKS: Final = 256
_POLL_SECONDS: Final = 0.2


class Verdict(enum.Enum):
    """What a complete partial turned out to be."""

    GOOD = enum.auto()
    """The object; and admitted, where the cache took it."""
    DAMAGED = enum.auto()
    """Some blocks are not what was written: fetch them again."""
    WRONG = enum.auto()
    """Not the object, though nothing was lost here; put aside."""


class Finished(NamedTuple):
    """What `finish` found."""

    verdict: Verdict
    damaged: Sequence[int] = ()
    admitted: bool = False
    """By this process, now."""


class Gate(Protocol):
    """The way into the cache: `store.fetching.arrivals`."""

    def admit(self, oid: Oid, path: Path, descriptor: int) -> None: ...
    def put_aside(self, oid: Oid, path: Path) -> None: ...


class _Inspection:
    """Hashes a file from its beginning. One thread at a time."""

    def __init__(self, partial: Partial) -> None:
        self._partial = partial
        self._hasher = Hasher(partial.oid.algorithm)
        self._buffer = memoryview(bytearray(BLOCK_BYTES))
        self._next = 0
        self.damaged: list[int] = []

    def go_on(self) -> bool:
        """Hash a slice; True when all is done. Raises `CacheUnusable`."""
        partial = self._partial
        stop = min(self._next + _SLICE_BLOCKS, partial.map.blocks)
        try:
            for block in range(self._next, stop):
                wanted = partial.length_of(block)
                got = partial.read_into(self._buffer[:wanted], block * BLOCK_BYTES)
                found = hash_entry(xxhash.xxh3_64_intdigest(self._buffer[:got]))
                if got != wanted or found != partial.map.get(block):
                    self.damaged.append(block)
                self._hasher.update(self._buffer[:got])
        except OSError as error:
            raise CacheUnusable(f"object {partial.oid} cannot be read: {error.strerror}") from None
        self._next = stop
        return stop == partial.map.blocks

    def matches(self) -> bool:
        return self._hasher.matches(self._partial.oid)


async def finish(
    partial: Partial, threads: Threads, locks: FlightLocks, partials: Partials, gate: Gate
) -> Finished:
    """Hash the partial and act on it, unless another process does so: then wait for its word.

    Raises `CacheUnusable` and `StoreTimeout` where the disk does not let us; the partial stays then.
    """
    while not await threads.on_disk(_try_begin, partial, locks):
        await trio.sleep(_POLL_SECONDS)  # it dies with its holder, and hashing gets on or ends
    try:
        end = await threads.on_disk(partial.map.end)
        if end is not End.NONE:
            return Finished(Verdict.GOOD if end is End.ADMITTED else Verdict.WRONG)
        inspection = _Inspection(partial)
        while not await threads.on_disk(inspection.go_on):
            pass
        if await threads.on_disk(inspection.matches):
            return Finished(Verdict.GOOD, admitted=await threads.on_disk(_admit, partial, partials, gate))
        if inspection.damaged:
            await threads.on_disk(_drop, partial, inspection.damaged)
            return Finished(Verdict.DAMAGED, inspection.damaged)
        await threads.on_disk(discard, partial, partials, gate)
        return Finished(Verdict.WRONG)
    finally:
        if partial.named:
            locks.release(partial.oid, FINISH_LOCK)


def discard(partial: Partial, partials: Partials, gate: Gate) -> None:
    """Take a partial whose bytes are not the object's out of the way. Blocking."""
    try:
        partial.map.set_end(End.DISCARDED)
        path = partials.take_out(partial)
        if path is not None:
            gate.put_aside(partial.oid, path)
    except (OSError, CacheUnusable):
        pass  # it stays, marked, and nobody uses it


def _try_begin(partial: Partial, locks: FlightLocks) -> bool:
    return not partial.named or locks.try_hold(partial.oid, FINISH_LOCK)


def _admit(partial: Partial, partials: Partials, gate: Gate) -> bool:
    try:
        path = partials.take_out(partial)
        if path is None:
            return False
        gate.admit(partial.oid, path, partial.descriptor)
        partial.map.set_end(End.ADMITTED)
    except (OSError, CacheUnusable):
        return False  # read from where it is, for as long as it is open
    return True


def _drop(partial: Partial, damaged: Sequence[int]) -> None:
    for block in damaged:
        partial.map.drop(block)
