"""`RangeDownload`: blocks of an object from a remote to its partial. Blocking; what remotes' threads run.

A block is collected in memory, written at once and then told of, so that whoever waits for it need not wait
for the rest. Several threads may be at one download: a hedge, which waits for as long as the other gets on,
and one that nobody waits for any more, which cannot be ended. So blocks are written under the download's
lock, the first whole copy of each counts, and after `end` nothing is written.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import xxhash

from store.errors import RemoteCorrupt, StoreError
from store.fetching.block_map import BLOCK_BYTES, End
from store.fetching.flight_locks import FlightLocks
from store.fetching.partials import Partial
from store.fetching.sources import Sources
from store.oid import Oid
from store.remotes.remote import Remote
from store.remotes.storage import Body

Landed = Callable[[int, bytes], None]
"""Tells of a block that has come, and its bytes where they could not be kept. Called in a worker thread."""

STALLED_SECONDS: Final = 2.0
"""Without a byte; then a hedge asks, too."""

_LOCK_SECONDS: Final = 0.5
"""For a block that another process asks for by range at this moment."""
_LOCK_POLL_SECONDS: Final = 0.01

_NONE: Final[frozenset[int]] = frozenset()


class StateChanged(StoreError):
    """The remote has the object in another state than the one whose bytes are here."""


class Claim(NamedTuple):
    """What `claim` found."""

    end: End
    good: Sequence[int] = ()
    """Blocks that are here."""
    mine: Sequence[int] = ()
    """Blocks that are absent and that nobody else fetches now: their locks are held."""


def claim(partial: Partial, locks: FlightLocks, blocks: Iterable[int]) -> Claim:
    """Look which blocks are here and hold the locks of those that are not. Raises `OSError`."""
    if not partial.named:
        return Claim(End.NONE, mine=list(blocks))
    end = partial.map.end()
    if end is not End.NONE:
        return Claim(end)
    good: list[int] = []
    mine: list[int] = []
    try:
        for block in blocks:
            if not locks.try_hold(partial.oid, block):
                continue
            mine.append(block)
            if partial.is_good(block):
                good.append(mine.pop())
                locks.release(partial.oid, block)
    except BaseException:
        release(locks, partial.oid, mine)
        raise
    return Claim(End.NONE, good, mine)


def release(locks: FlightLocks, oid: Oid, blocks: Iterable[int]) -> None:
    """Let go of the locks of blocks."""
    for block in blocks:
        locks.release(oid, block)


class RangeDownload:
    """The blocks `wanted` of an object, in one request. `fetch` and `fetch_whole` are work for a remote."""

    def __init__(
        self,
        oid: Oid,
        size: int,
        wanted: range,
        partial: Partial | None,
        sources: Sources,
        landed: Landed,
        *,
        skip: frozenset[int] = _NONE,
        locks: FlightLocks | None = None,
        patience: float = math.inf,
    ) -> None:
        """The caller holds the locks of all blocks, or gives `locks`, and each is held while it is written.

        Blocks in `skip` are not written, where they must be gone past. After `patience` seconds `fetch` ends
        with the blocks that it has, if it has any: a slow link is not a dead one.
        """
        self._oid = oid
        self._size = size
        self._wanted = wanted
        self._partial = partial
        self._sources = sources
        self._landed = landed
        self._locks = locks
        self._patience = patience
        self._guard = threading.Condition()
        self._done = set(skip)
        self._ended = False
        self._under_way = 0
        self._moved_at = time.monotonic()

    def end(self) -> None:
        """From now on nothing is written and nothing told. Waits for a block that is being written."""
        with self._guard:
            self._ended = True
            self._guard.notify_all()

    def fetch(self, remote: Remote) -> None:
        """Bring the blocks that have not come yet. Raises `RemoteError`, `StateChanged`."""
        self._sources.check(remote.name)
        with self._turn():
            first = next((block for block in self._wanted if block not in self._done), self._wanted.stop)
            if first < self._wanted.stop and not self._ended:
                self._fetch(remote, first)

    def fetch_whole(self, remote: Remote) -> None:
        """The same from a remote that gives objects only whole: what is not wanted is gone past."""
        self._sources.check(remote.name)
        with self._turn():
            if not self._ended and not all(block in self._done for block in self._wanted):
                with remote.read(self._oid) as body:
                    self._begin(remote, body, self._size)
                    self._take(remote, body, 0)

    def _fetch(self, remote: Remote, first: int) -> None:
        offset = first * BLOCK_BYTES
        length = min(self._wanted.stop * BLOCK_BYTES, self._size) - offset
        validator = self._sources.validator(remote.name) or self._recall(remote)
        with contextlib.ExitStack() as stack:
            try:
                body = stack.enter_context(remote.read(self._oid, offset, length, validator))
            except RemoteCorrupt:
                if not validator:
                    raise
                body = stack.enter_context(remote.read(self._oid, offset, length))
                if body.validator != validator:
                    raise StateChanged(f"{remote.name} has changed object {self._oid}") from None
            self._begin(remote, body, length)
            self._take(remote, body, first)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until nobody else is at it, or whoever is does not get on."""
        with self._guard:
            while self._under_way and not self._ended:
                left = self._moved_at + STALLED_SECONDS - time.monotonic()
                if left <= 0:
                    break
                self._guard.wait(left)
            self._under_way += 1
            self._moved_at = time.monotonic()
        try:
            yield
        finally:
            with self._guard:
                self._under_way -= 1
                self._guard.notify_all()

    def _recall(self, remote: Remote) -> str:
        """The entity tag of an earlier process's bytes: more of the same object, or none."""
        if self._partial is not None and self._partial.named:
            try:
                self._sources.recall(remote.name, self._partial.map.validator(remote.name))
            except OSError:
                return ""
        return self._sources.validator(remote.name)

    def _begin(self, remote: Remote, body: Body, length: int) -> None:
        if body.size not in (-1, self._size) or body.length not in (-1, length):
            raise RemoteCorrupt(
                f"{remote.name} has {body.size} bytes for object {self._oid} and not {self._size}"
            )
        self._sources.begin(remote.name, body.validator)
        if body.validator and self._partial is not None and self._partial.named:
            try:
                self._partial.map.set_validator(remote.name, body.validator)
            except OSError:
                pass  # then an object that changes between two processes is found out by its hash

    def _take(self, remote: Remote, body: Body, block: int) -> None:
        pieces: list[memoryview] = []
        digest = xxhash.xxh3_64()
        missing = self._length_of(block)
        impatient_at = time.monotonic() + self._patience
        for chunk in body:
            if self._ended:
                return
            self._moved_at = time.monotonic()
            left = memoryview(chunk)
            while left:
                if block == self._wanted.stop:
                    raise RemoteCorrupt(f"{remote.name} gave more than was asked of object {self._oid}")
                piece, left = left[:missing], left[missing:]
                pieces.append(piece)
                digest.update(piece)
                missing -= len(piece)
                if not missing:
                    self._settle(block, pieces, digest.intdigest())
                    block += 1
                    pieces, digest, missing = [], xxhash.xxh3_64(), self._length_of(block)
                    if time.monotonic() > impatient_at:
                        return
        if block != self._wanted.stop:
            raise RemoteCorrupt(f"{remote.name} gave less than was asked of object {self._oid}")

    def _settle(self, block: int, pieces: Sequence[memoryview], digest: int) -> None:
        with self._guard:
            if self._ended or block in self._done:
                return
            kept = self._partial is not None and self._keep(self._partial, block, pieces, digest)
            self._done.add(block)
            # Told under the lock: what is told of after `end` would be of a file that nobody guards.
            self._landed(block, b"" if kept else b"".join(pieces))

    def _keep(self, partial: Partial, block: int, pieces: Sequence[memoryview], digest: int) -> bool:
        try:
            if self._locks is None:
                partial.write(block, pieces, digest)
                return True
            return self._keep_guarded(partial, self._locks, block, pieces, digest)
        except OSError:
            return False  # full, over quota, broken, gone: served without being kept

    def _keep_guarded(
        self, partial: Partial, locks: FlightLocks, block: int, pieces: Sequence[memoryview], digest: int
    ) -> bool:
        give_up_at = time.monotonic() + _LOCK_SECONDS
        while not locks.try_hold(self._oid, block):
            if time.monotonic() > give_up_at:
                return False
            time.sleep(_LOCK_POLL_SECONDS)
        try:
            # Looked at again: a partial with all its blocks may be the cache's already.
            if not partial.is_good(block):
                if partial.map.end() is not End.NONE:
                    return False
                partial.write(block, pieces, digest)
            return True
        finally:
            locks.release(self._oid, block)

    def _length_of(self, block: int) -> int:
        return min(BLOCK_BYTES, self._size - block * BLOCK_BYTES)
