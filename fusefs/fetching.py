"""`fetch_files`: brings many files of a version into the cache, as many at once as the link bears.

What the cache has is passed over, and what was begun goes on where it ended, so an interrupted fetch is
resumed by another one. Small objects come whole, many at a time: requests that wait for the network cost
nothing. Of large ones a few, each by several ranges at once. Files of the same content count once.

Belongs to the event loop. Caller: `fusefs fetch`.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from store.errors import (
    CacheUnusable,
    ObjectCorrupt,
    ObjectMissing,
    Offline,
    RemoteCorrupt,
    RemoteDenied,
    RemoteFull,
    RemoteSlow,
    RemoteUnreachable,
    StoreError,
    StoreTimeout,
)
from store.fetching.download import WHOLE_LIMIT
from store.open_objects import Brought
from store.tree import UNKNOWN, Tree

JOBS: Final = 64
MOST_JOBS: Final = 72
"""There are no more threads for remotes."""
LARGE_JOBS: Final = 4
LOOKED_AT: Final = 1024
"""Rows that the cache is asked for together."""
TRIES: Final = 2
"""For an object that came and was not kept, because the disk had not taken those before it yet."""
SILENT_SECONDS: Final = 300.0
"""When no remote has answered for so long, as one that says "later" to everything, no more files are tried:
with each waited for by itself, many would take days."""

_KINDS: Final[tuple[tuple[tuple[type[StoreError], ...], str], ...]] = (
    ((Offline,), "offline"),
    ((ObjectMissing,), "missing"),
    ((RemoteDenied,), "denied"),
    ((RemoteSlow, StoreTimeout), "slow"),
    ((ObjectCorrupt, RemoteCorrupt), "corrupt"),
    ((RemoteUnreachable,), "unreachable"),
    ((CacheUnusable, RemoteFull), "no room"),
)
_UNANSWERED: Final = ("slow", "unreachable")
"""Kinds of failures that no remote has said anything in."""


def kind_of(error: StoreError) -> str:
    """The name of a class of failures."""
    return next((name for kinds, name in _KINDS if isinstance(error, kinds)), "failed")


class Files(Protocol):
    """The files of a version (`store.tree_files`)."""

    tree: Tree

    @property
    def sizes(self) -> Sequence[int]: ...

    async def bring(self, row: int, largest: int | None = None) -> Brought | None: ...

    async def missing(self, rows: Sequence[int]) -> list[int]: ...


@dataclass(slots=True)
class Failure:
    """Files that failed in one way."""

    files: int
    example: str
    """What was said of the first of them."""


@dataclass(slots=True)
class Tally:
    """How a fetch is getting on. Sizes in bytes."""

    here: int = 0
    """Files that the cache had."""
    fetched: int = 0
    bytes: int = 0
    """Of the files that were fetched."""
    failures: dict[str, Failure] = field(default_factory=dict)
    """By `kind_of`."""
    left: int = 0
    """Files that are known to be missing still."""
    bytes_left: int = 0
    """Of those whose size is known."""
    left_unknown: int = 0
    """Those whose size is not."""
    gave_up: bool = False
    """Whether no more was tried in the end, because no remote answered."""

    @property
    def failed(self) -> int:
        return sum(failure.files for failure in self.failures.values())

    @property
    def files(self) -> int:
        """All, as far as they have been looked at."""
        return self.here + self.fetched + self.failed + self.left

    def fail(self, kind: str, example: str, files: int = 1) -> None:
        failure = self.failures.setdefault(kind, Failure(0, example))
        failure.files += files


async def fetch_files(
    files: Files,
    rows: Sequence[int],
    tally: Tally,
    *,
    jobs: int,
    drain: Callable[[], Awaitable[None]],
    received: Callable[[], int],
) -> None:
    """Bring the objects of these rows, which are files, into the cache; `tally` tells how it goes. `drain`
    waits until what has come is in its place, `received` tells how many bytes have come. Raises nothing for a
    file that cannot be had."""
    work = _Work(files, tally, drain, received)
    large_in, large_out = trio.open_memory_channel[int](math.inf)
    small_in, small_out = trio.open_memory_channel[int](math.inf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work.look, rows, small_in)
        async with large_in, small_out:
            for _ in range(jobs):
                nursery.start_soon(work.bring_small, small_out.clone(), large_in.clone())
        for _ in range(min(LARGE_JOBS, jobs)):
            nursery.start_soon(work.bring_large, large_out)
    await drain()
    await work.look_again()


class _Work:
    def __init__(
        self,
        files: Files,
        tally: Tally,
        drain: Callable[[], Awaitable[None]],
        received: Callable[[], int],
    ) -> None:
        self._files = files
        self._tally = tally
        self._drain = drain
        self._received = received
        self._came: array[int] = array("I")
        self._silent_since = math.inf
        """When the first of the files was waited for in vain that failed since a remote last answered."""
        self._heard = 0
        """Bytes that had come by then: one that is large may come although nothing else does."""
        self._last_words = ("", "")

    async def look(self, rows: Sequence[int], found: trio.MemorySendChannel[int]) -> None:
        """Find out which rows are missing, each content once."""
        files, tally = self._files, self._tally
        seen: set[bytes] = set()
        async with found:
            for start in range(0, len(rows), LOOKED_AT):
                some = []
                for row in rows[start : start + LOOKED_AT]:
                    digest = files.tree.digest_of(row)
                    if digest not in seen:
                        seen.add(digest)
                        some.append(row)
                try:
                    missing = await files.missing(some)
                except StoreError as error:
                    tally.fail(kind_of(error), str(error), len(some))
                    continue
                tally.here += len(some) - len(missing)
                for row in missing:
                    tally.left += 1
                    size = files.sizes[row]
                    if size == UNKNOWN:
                        tally.left_unknown += 1
                    else:
                        tally.bytes_left += size
                    await found.send(row)

    async def bring_small(
        self, rows: trio.MemoryReceiveChannel[int], large: trio.MemorySendChannel[int]
    ) -> None:
        async with rows, large:
            async for row in rows:
                if not await self._bring(row, WHOLE_LIMIT):
                    await large.send(row)

    async def bring_large(self, rows: trio.MemoryReceiveChannel[int]) -> None:
        async for row in rows:
            await self._bring(row, None)

    async def _bring(self, row: int, largest: int | None) -> bool:
        """Whether that is settled; not, where the object is larger than `largest`."""
        known = self._files.sizes[row]
        if self._is_silent():
            self._settle(known)
            self._tally.fail(*self._last_words)
            self._tally.gave_up = True
            return True
        begun = trio.current_time()
        for last in range(TRIES):
            try:
                brought = await self._files.bring(row, largest)
            except StoreError as error:
                self._settle(known)
                kind = kind_of(error)
                self._tally.fail(kind, str(error))
                self._hear(kind, str(error), begun)
                return True
            self._hear("", "", begun)
            if brought is None:
                return False
            size = brought.opened.size
            brought.opened.close()
            if brought.kept:
                self._settle(known)
                if brought.came:
                    self._came.append(row)
                    self._tally.fetched += 1
                    self._tally.bytes += size
                else:
                    self._tally.here += 1
                return True
            if last < TRIES - 1:
                await self._drain()
        self._settle(known)
        self._fail_for_room(row)
        return True

    def _is_silent(self) -> bool:
        """Has no remote answered for too long?"""
        return trio.current_time() > self._silent_since + SILENT_SECONDS and self._received() == self._heard

    def _hear(self, kind: str, said: str, begun: float) -> None:
        """Note whether a remote has answered since a file was asked for, when it had `begun`."""
        received = self._received()
        if kind not in _UNANSWERED or received != self._heard:
            self._silent_since = math.inf
            self._heard = received
        if kind in _UNANSWERED:
            self._silent_since = min(self._silent_since, begun)
            self._last_words = kind, said

    def _settle(self, known: int) -> None:
        tally = self._tally
        tally.left -= 1
        if known == UNKNOWN:
            tally.left_unknown -= 1
        else:
            tally.bytes_left -= known

    def _fail_for_room(self, row: int) -> None:
        path = self._files.tree.path(row)
        self._tally.fail(
            "no room",
            f"{path!r} came and could not be kept: the cache is full, or at the limit that was given",
        )

    async def look_again(self) -> None:
        """Whether all that came has stayed."""
        for start in range(0, len(self._came), LOOKED_AT):
            try:
                gone = await self._files.missing(self._came[start : start + LOOKED_AT])
            except StoreError:
                return  # who will read them will see
            for row in gone:
                self._tally.fetched -= 1
                self._tally.bytes -= max(0, self._files.sizes[row])
                self._fail_for_room(row)
