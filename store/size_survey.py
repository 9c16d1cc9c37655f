"""`SizeSurvey`: learns the sizes of a whole tree in the background, for whoever lists it next.

First what this machine knows, block by block, resting as long as it works. Then the remotes, by whichever
costs fewer requests: a page of a listing tells of a thousand objects, wanted or not, a question of one. One
directory of two hundred and fifty-six is listed and tells what the others would cost. Where questions are
what is left and they are too many, nothing is asked: then only what somebody looks at is learnt, by
`store.tree_files`.

Thread rule: belongs to the event loop; one for each tree that is shown.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import trio

from store.errors import Offline, RemoteDenied, RemoteError, RemoteMissing, RemoteSlow, StoreError
from store.learnt_sizes import LearntSizes
from store.manifest import SIZE_MAX
from store.oid import DVC_ALGORITHMS
from store.remotes.remote import Remote
from store.size_finder import AskedRemotes, SizeFinder
from store.size_listing import AT_ONCE, Directory, SizeListing
from store.sizes import How, Learnt
from store.tree import ALGORITHM_SHIFT, UNKNOWN, Tree

log = logging.getLogger(__name__)

ROWS_AT_ONCE: Final = 1024
REST_SECONDS: Final = 0.5
"""Before it begins: the first open of a mount goes first."""
MOST_QUESTIONS: Final = 4096
"""That are asked of remotes which cannot list, though nobody may ever look."""
PAGE_OBJECTS: Final = 1000
QUICK_SECONDS: Final = 0.5
"""Listings that take no longer are waited for by who looks at single files, who would ask otherwise."""
LISTING_SECONDS: Final = 120.0
"""For one of 256 directories; it gives up by itself."""
FIRST_PAUSE: Final = 30.0
LONGEST_PAUSE: Final = 1800.0
"""After a remote failed, until it is listed again."""


class _Part(NamedTuple):
    """Rows whose objects lie in one directory of a remote."""

    directory: Directory
    rows: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Listing:
    found: Sequence[tuple[int, Learnt]]
    """Rows, and what was learnt of their objects."""
    pages: int


class SizeSurvey:
    """One tree's. What is found goes into `sizes`. `hurried` says that somebody looks at many files, in no
    order that could be told: then nothing rests."""

    def __init__(
        self,
        tree: Tree,
        sizes: LearntSizes,
        finder: SizeFinder,
        remotes: AskedRemotes | None,
        hurried: trio.Event,
    ) -> None:
        self._hurried = hurried
        self._listing: SizeListing[_Part] | None = None
        self._tree = tree
        self._sizes = sizes
        self._finder = finder
        self._remotes = remotes

    async def look_here(self) -> None:
        """Learn what the cache and the index know. Raises `StoreTimeout`."""
        await self._rest(REST_SECONDS)
        for start in range(0, self._tree.rows, ROWS_AT_ONCE):
            begun = trio.current_time()
            for algorithm, rows in self.unknown_of(range(start, start + ROWS_AT_ONCE)):
                digests = [self._tree.digest_of(row) for row in rows]
                found = await self._finder.look(digests, algorithm, remember=True)
                for row, size in zip(rows, found, strict=True):
                    if size is not None:
                        self._sizes.learn(row, size.size, size.how)
            await self._rest(trio.current_time() - begun)

    async def _rest(self, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(seconds):
            await self._hurried.wait()

    async def await_listed(self, row: int) -> None:
        """While remotes are listed: have the directory with the row's object listed before others."""
        if self._listing is not None:
            first = self._tree.digest[row * self._tree.digest_width]
            await self._listing.await_listed(Directory(self._tree.algorithm(row), f"{first:02x}"))

    async def ask_remotes(self) -> None:
        """Learn what the remotes tell at a moderate cost. Comes back when that is done, or cannot be.

        A remote that fails is asked again, after a pause that grows.
        """
        if not self._remotes or not self._remotes.remotes:
            return
        await self._read_logs()
        pause, level = FIRST_PAUSE, logging.WARNING
        while True:
            try:
                await self._list_remotes()
                await self._ask_one_by_one()
                return
            except Offline:
                return
            except StoreError as error:
                log.log(level, "sizes are not told, and asked for again in the background: %s", error)
                level = logging.DEBUG
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _read_logs(self) -> None:
        """Have the remotes' logs tell: that costs a listing, and a request for each new one."""
        hints = self._finder.hints
        if hints is None or self._remotes is None or not self._sizes.unknown:
            return
        is_new = False
        for remote in self._remotes.remotes:
            try:
                is_new |= await self._finder.threads.ask_remote(
                    hints.refresh, remote, deadline=LISTING_SECONDS
                )
            except StoreError as error:
                log.debug("%s: its logs cannot be read: %s", remote.name, error)
        if is_new:
            await self.look_here()

    def unknown_of(self, rows: range) -> Iterator[tuple[str, list[int]]]:
        """Those of the rows whose size is not known, by algorithm."""
        column, flags = self._sizes.column, self._tree.flags
        unknown = [row for row in rows[: self._tree.rows - rows.start] if column[row] == UNKNOWN]
        for place, algorithm in enumerate(DVC_ALGORITHMS):
            of_kind = [row for row in unknown if flags[row] >> ALGORITHM_SHIFT == place]
            if of_kind:
                yield algorithm, of_kind

    async def _list_remotes(self) -> None:
        assert self._remotes is not None
        failure: StoreError | None = None
        for remote in self._remotes.remotes:
            parts = await self._group()
            if not parts:
                return
            try:
                if await self._finder.threads.ask_remote(_can_list, remote, deadline=LISTING_SECONDS):
                    await self._list(remote, parts)
                if self._sizes.unknown:
                    await self._read_contents(remote)
            except RemoteDenied as error:
                log.info("%s lets nothing be listed: %s", remote.name, error)
            except StoreError as error:
                failure = error
        if failure is not None:
            raise failure

    async def _group(self) -> list[_Part]:
        """What is not known, by the directory that it would be listed in."""
        groups: dict[tuple[str, int], array[int]] = {}
        digest, width = self._tree.digest, self._tree.digest_width
        for start in range(0, self._tree.rows, ROWS_AT_ONCE):
            for algorithm, rows in self.unknown_of(range(start, start + ROWS_AT_ONCE)):
                for row in rows:
                    key = (algorithm, digest[row * width])
                    groups.setdefault(key, array("I")).append(row)
            await trio.lowlevel.checkpoint()
        return [
            _Part(Directory(algorithm, f"{first:02x}"), rows) for (algorithm, first), rows in groups.items()
        ]

    async def _list(self, remote: Remote, parts: list[_Part]) -> None:
        """List the directories of a remote, if that costs less than questions."""
        wanted = sum(len(part.rows) for part in parts)
        if wanted <= len(parts):
            return
        first, *others = parts
        began = trio.current_time()
        pages, found = await self._list_part(remote, first)
        is_quick = pages == 1 and trio.current_time() - began < QUICK_SECONDS
        if not found:
            await self._read_contents(remote)
            others = [part for part in await self._group() if part.directory != first.directory]
        if len(others) * pages >= wanted - len(first.rows):
            return
        listing = SizeListing[_Part](partial(self._list_part, remote))
        if is_quick:
            self._listing = listing
        try:
            await listing.run((part.directory, part) for part in others)
        finally:
            self._listing = None

    async def _read_contents(self, remote: Remote) -> None:
        """Have the catalogues and indexes of content directories tell, where there are any."""
        if remote.contents is None:
            return
        for start in range(0, self._tree.rows, ROWS_AT_ONCE):
            for algorithm, rows in self.unknown_of(range(start, start + ROWS_AT_ONCE)):
                oids = [self._tree.oid(row) for row in rows]
                told = await self._finder.threads.ask_remote(
                    remote.told_sizes, oids, deadline=LISTING_SECONDS
                )
                learnt = []
                for row, oid in zip(rows, oids, strict=True):
                    if oid in told and 0 <= told[oid] <= SIZE_MAX:
                        self._sizes.learn(row, told[oid], How.REMOTE)
                        learnt.append(Learnt(oid.raw, told[oid], How.REMOTE))
                if not learnt:
                    return  # of a version all is there, or nothing
                self._finder.learn(learnt, algorithm)

    async def _list_part(self, remote: Remote, part: _Part) -> tuple[int, int]:
        """Learn from one directory; how many pages its listing has, and how much was found."""
        until = time.monotonic() + LISTING_SECONDS
        listing = await self._finder.threads.ask_remote(
            list_part, remote, self._tree, part, until, deadline=LISTING_SECONDS
        )
        for number, (row, learnt) in enumerate(listing.found):
            self._sizes.learn(row, learnt.size, How.REMOTE)
            if number % ROWS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        self._finder.learn([learnt for _, learnt in listing.found], part.directory.algorithm)
        return listing.pages, len(listing.found)

    async def _ask_one_by_one(self) -> None:
        """Ask for what is left, if that is little enough."""
        rows = [row for part in await self._group() for row in part.rows]
        if len(rows) > MOST_QUESTIONS:
            return
        waiting = iter(rows)

        async def work() -> None:
            for row in waiting:
                if self._sizes.column[row] != UNKNOWN:
                    continue
                try:
                    size = await self._finder.find(self._tree.oid(row), self._remotes)
                except (RemoteError, Offline):
                    raise
                except StoreError as error:  # nobody has it: whoever asks for it will be told
                    log.debug("no size: %s", error)
                else:
                    self._sizes.learn(row, size.size, size.how)

        await _side_by_side([work] * AT_ONCE)


async def _side_by_side(works: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run all; the first failure ends them, and is raised as it is."""
    failures: list[StoreError] = []
    async with trio.open_nursery() as nursery:

        async def guard(work: Callable[[], Awaitable[None]]) -> None:
            try:
                await work()
            except StoreError as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

        for work in works:
            nursery.start_soon(guard, work)
    if failures:
        raise failures[0]


def _can_list(remote: Remote) -> bool:
    return remote.can_list


def list_part(remote: Remote, tree: Tree, part: _Part, until: float) -> _Listing:
    """What a remote's directory tells of a tree's objects. Blocking; raises `RemoteError`.

    `until` is by the clock that `time.monotonic` tells.
    """
    wanted: dict[str, list[int]] = {}
    for row in part.rows:
        wanted.setdefault(tree.digest_of(row).hex(), []).append(row)
    found: list[tuple[int, Learnt]] = []
    count = 0
    try:
        for oid, size in remote.list_sizes(*part.directory):
            count += 1
            if time.monotonic() > until:
                raise RemoteSlow(f"{remote.name}: a listing takes longer than {LISTING_SECONDS:.0f} s")
            if not oid.is_tree and oid.digest in wanted and 0 <= size <= SIZE_MAX:
                learnt = Learnt(oid.raw, size, How.REMOTE)
                found += [(row, learnt) for row in wanted[oid.digest]]
    except RemoteMissing:
        pass  # a remote that has nothing there may say so
    return _Listing(found, max(1, -(-count // PAGE_OBJECTS)))
