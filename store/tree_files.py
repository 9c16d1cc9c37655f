"""`TreeFiles`: the files of one tree by row: their sizes, their bytes, and words for what fails.

Sizes that the tree does not have are learnt (`store.size_learner`). A size that is known is told for good,
and the kernel keeps it, but only the tree's own and those of bytes that were hashed are beyond doubt. Where
an object turns out to have another length than such a one, it is corrupt. Where a file in the cache or a
remote had told the length, the object is hashed: either it is the right one, and the size is corrected, the
kernel's knowledge with it, before anybody gets to read; or it is corrupt. So no reader gets other bytes than
the object's, and a size that was wrong holds until the first open at most.

Thread rule: belongs to the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import trio

from store.content_store import ContentStore
from store.errors import CacheUnusable, ObjectCorrupt, ObjectMissing, RemoteSlow, StoreError
from store.fetcher import Source
from store.fetching.download import WHOLE_LIMIT
from store.fetching.remote_set import RemoteSet
from store.oid import DVC_ALGORITHMS, Oid
from store.open_objects import Brought, OpenBytes, OpenFile, OpenObject
from store.prefetcher import Prefetcher
from store.size_finder import SizeFinder
from store.size_learner import SizeLearner
from store.sizes import How, Learnt, Size
from store.tree import UNKNOWN, Tree
from store.tree_sizes import by_algorithm

MEASURED_AT_ONCE: Final = 4096
"""Rows. Between two such batches readers get their turn."""

ASKED_AT_ONCE: Final = 64
"""Files whose sizes are asked for at a time, by `learn`."""
LEARNT_SECONDS: Final = 60.0
"""For so long `learn` waits; what has come by then stays known."""

log = logging.getLogger(__name__)


class TreeFiles:
    """What a tree's rows have for content.

    `source` brings what the caches lack, `finder` finds sizes, with the help of `remotes`. `kept` is where
    sizes are kept from one mount to the next: a private place.
    """

    def __init__(
        self,
        tree: Tree,
        store: ContentStore,
        source: Source | None = None,
        *,
        finder: SizeFinder,
        remotes: RemoteSet | None = None,
        kept: Path | None = None,
    ) -> None:
        self.tree = tree
        self.corrected: Callable[[int], Awaitable[None]] | None = None
        """Set by whoever shows the tree; awaited when a row's size turns out to be another than was told."""
        self.correct_all: Callable[[Oid, int], Awaitable[None]] = self.correct
        """Set by whoever shows several trees: as `correct`, of them all."""
        self.prefetcher: Prefetcher | None = None
        """Brings files ahead of their readers and is told of every open; set by whoever wants that."""
        self._store = store
        self._source = source
        self._finder = finder
        self._remotes = remotes
        self._learner = SizeLearner(tree, finder, remotes, kept)
        self._sizes = self._learner.sizes

    @property
    def sizes(self) -> Sequence[int]:
        """Bytes by row, 0 for a directory; `UNKNOWN` where they are not known."""
        return self._sizes.column

    @property
    def sizes_unknown(self) -> int:
        """How many files' sizes are not known."""
        return self._sizes.unknown

    @property
    def remotes(self) -> RemoteSet | None:
        """Those that may be asked."""
        return self._remotes

    @property
    def has_remotes(self) -> bool:
        """May what the caches lack be fetched?"""
        return bool(self._remotes)

    @property
    def bytes_known(self) -> int:
        """The sizes together that are known."""
        return self._sizes.bytes_known

    async def open(self, row: int, *, is_missing: bool = False) -> OpenObject:
        """Open a file's object, which the cache did not have a moment ago if it `is_missing`.

        Raises `ObjectMissing`, `ObjectCorrupt`, `RemoteError`, `CacheUnusable`, `StoreTimeout`.
        """
        oid = self.tree.oid(row)
        if self.prefetcher is not None:
            ahead = self.prefetcher.opened(row, oid)
            if ahead is not None:
                self._store.hand_over(ahead)
                return ahead
        try:
            try:
                opened = await self._store.open(
                    oid, self.sizes[row], self._source, self._remotes, is_missing=is_missing
                )
            except StoreError as error:
                if not await self._is_in_doubt(row, oid, error):
                    raise
                opened = await self._settle(row, oid)
        except StoreError as error:
            raise self._explain(row, error) from None
        if opened.size != self.sizes[row]:
            self._sizes.learn(row, opened.size, How.STAT)
        return opened

    async def is_as_long_as_told(self, row: int) -> bool:
        """Whether what the cache has for a file, if anything, has the length that is told of it.

        Raises `StoreTimeout`.
        """
        known = await self._told(row)
        return known == UNKNOWN or await self._store.length(self.tree.oid(row)) in (UNKNOWN, known)

    async def is_here_as_told(self, row: int) -> bool:
        """Whether the cache has something for a file, of the length that is told of it. Raises as above.

        The disk is waited for where it would be a pity to be wrong: for what is large. A small file that only
        the disk knows of counts as missing.
        """
        known, oid = await self._told(row), self.tree.oid(row)
        if known > WHOLE_LIMIT:
            length = await self._store.length(oid)
        else:
            try:
                length = self._store.size_now(oid)
            except (BlockingIOError, ObjectMissing, ObjectCorrupt, CacheUnusable):
                return False
        return length != UNKNOWN and known in (UNKNOWN, length)

    async def _told(self, row: int) -> int:
        if self.sizes[row] == UNKNOWN:
            await self._learner.loaded.wait()
        return self.sizes[row]

    async def await_kept(self, oid: Oid) -> None:
        """As `ContentStore.await_kept`."""
        await self._store.await_kept(oid)

    def is_on_its_way(self, oid: Oid) -> bool:
        """As `ContentStore.is_on_its_way`."""
        return self._store.is_on_its_way(oid)

    async def bring(self, row: int, largest: int | None = None) -> Brought | None:
        """Bring a file's object into the cache ahead of its readers, as `ContentStore.bring` does."""
        oid = self.tree.oid(row)
        try:
            try:
                brought = await self._store.bring(oid, self.sizes[row], self._remotes, largest)
            except StoreError as error:
                if not await self._is_in_doubt(row, oid, error):
                    raise
                self._store.close(await self._settle(row, oid))
                brought = await self._store.bring(oid, self.sizes[row], self._remotes, largest)
        except StoreError as error:
            raise self._explain(row, error) from None
        if brought is not None:
            self._sizes.learn(row, brought.opened.size, How.STAT)
        return brought

    async def missing(self, rows: Sequence[int]) -> list[int]:
        """Those of the rows whose objects are DVC's and not in the cache. Raises `StoreTimeout`."""
        here: set[int] = set()

        def note(row: int, size: int) -> None:
            if self.sizes[row] in (UNKNOWN, size):
                here.add(row)

        await self._ask_lengths(list(rows), note)
        return [row for row in rows if row not in here and self.tree.algorithm(row) in DVC_ALGORITHMS]

    async def _is_in_doubt(self, row: int, oid: Oid, error: StoreError) -> bool:
        """Whether the size may have been wrong, and not the object that could not be opened."""
        known = self.sizes[row]
        if known == UNKNOWN or self._sizes.is_certain(row) or oid.algorithm not in DVC_ALGORITHMS:
            return False
        if isinstance(error, ObjectCorrupt):
            return True
        # What has another length counts as missing where there are remotes, and those may be away.
        (length,) = await self._store.lengths([oid.digest], oid.algorithm)
        return length not in (UNKNOWN, known)

    async def reconcile(self, rows: Sequence[int]) -> None:
        """Have files of the same content told the same size.

        Raises `ObjectCorrupt` where the version itself tells different ones, and as `open` does.
        """
        if len({self.sizes[row] for row in rows} - {UNKNOWN}) > 1:
            first, oid = rows[0], self.tree.oid(rows[0])
            try:
                self._store.close(await self._settle(first, oid))
            except StoreError as error:
                raise self._explain(first, error) from None
            told = {self.sizes[row] for row in rows} - {UNKNOWN}
            if len(told) > 1:
                said = " and ".join(map(str, sorted(told)))
                raise ObjectCorrupt(f"{self.tree.path(first)!r}: object {oid} is said to have {said} bytes")

    async def _settle(self, row: int, oid: Oid) -> OpenObject:
        """Open an object that has not the length which a file or a remote told, if it has its hash."""
        # In native mode the kernel would find it in the cache while it still has the wrong size.
        opened = await self._store.open(oid, UNKNOWN, self._source, self._remotes, keep=False)
        try:
            if not isinstance(opened, OpenFile | OpenBytes) or not await self._finder.check(opened):
                raise ObjectCorrupt(
                    f"object {oid} in the cache has {opened.size} bytes that are not its own; remove it"
                )
            log.info("%r has %d bytes and not %d", self.tree.path(row), opened.size, self.sizes[row])
            self._finder.learn([Learnt(oid.raw, opened.size, How.HASHED)], oid.algorithm)
            await self.correct_all(oid, opened.size)
        except BaseException:
            self._store.close(opened)
            raise
        return opened

    async def correct(self, oid: Oid, size: int) -> None:
        """An object has this length: it was hashed. Other paths may have the same content, and the same wrong
        size. Raises `StoreTimeout`."""
        for row in await self._finder.threads.on_disk(self.tree.rows_of, oid):
            if self._sizes.learn(row, size, How.HASHED) and self.corrected is not None:
                await self.corrected(row)

    async def read(self, row: int, opened: OpenObject, offset: int, length: int) -> bytes | memoryview:
        """As `ContentStore.read`; an error names the file."""
        try:
            return await self._store.read(opened, offset, length)
        except StoreError as error:
            raise self._explain(row, error) from None

    def close(self, opened: OpenObject) -> None:
        self._store.close(opened)

    async def size(self, row: int) -> int:
        """A file's size in bytes.

        Raises as `open` does where nothing can tell it; `RemoteSlow` when remotes keep it waiting.
        """
        if self.sizes[row] == UNKNOWN:
            await self._learner.loaded.wait()
        known = self.sizes[row]
        if known != UNKNOWN:
            return known
        self._learner.look_ahead(row, is_asked=True)
        await self._learner.await_listed(row)
        known = self.sizes[row]
        if known != UNKNOWN:
            return known
        try:
            size = await self._find(self.tree.oid(row))
        except StoreError as error:
            raise self._explain(row, error) from None
        self._sizes.learn(row, *size)
        known = self.sizes[row]  # where two were told at a time, the first one holds
        if known == UNKNOWN:
            path = self.tree.path(row)
            raise ObjectCorrupt(f"{path!r}: {size.size} bytes are more than a file system can have")
        return known

    async def _find(self, oid: Oid) -> Size:
        try:
            return Size(self._store.size_now(oid), How.STAT)
        except (BlockingIOError, StoreError):
            pass
        if oid.algorithm not in DVC_ALGORITHMS:
            return Size(await self._store.size(oid), How.STAT)
        try:
            return await self._finder.find(oid, self._remotes)
        except ObjectMissing:
            if self._remotes:
                raise
            return Size(await self._store.size(oid), How.STAT)  # it says what is wrong there

    def size_now(self, row: int) -> int:
        """A file's size, or `UNKNOWN` where it cannot be told without waiting. 0 for a directory."""
        known = self.sizes[row]
        if known != UNKNOWN or not self._learner.loaded.is_set():
            return known
        try:
            size = self._store.size_now(self.tree.oid(row))
        except (BlockingIOError, StoreError):
            return UNKNOWN
        self._sizes.learn(row, size, How.STAT)
        return size

    async def learn(self, rows: Sequence[int]) -> None:
        """Learn the sizes of all these rows.

        Raises as `size` does for the first that nothing can tell, and `RemoteSlow` after `LEARNT_SECONDS`.
        """
        with trio.move_on_after(LEARNT_SECONDS) as patience:
            for start in range(0, len(rows), MEASURED_AT_ONCE):
                await self._learner.learn_sizes(rows[start : start + MEASURED_AT_ONCE])
            await self._ask_sizes([row for row in rows if self.sizes[row] == UNKNOWN])
        if patience.cancelled_caught:
            unknown = sum(self.sizes[row] == UNKNOWN for row in rows)
            raise RemoteSlow(f"the sizes of {unknown} files are not known after {LEARNT_SECONDS:.0f} s")

    async def _ask_sizes(self, rows: list[int]) -> None:
        """Ask for the sizes of these rows, some at a time."""
        waiting = iter(rows)
        errors: list[StoreError] = []

        async def ask() -> None:
            for row in waiting:
                try:
                    await self.size(row)
                except StoreError as error:
                    errors.append(error)
                    nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for _ in range(min(ASKED_AT_ONCE, len(rows))):
                nursery.start_soon(ask)
        if errors:
            raise errors[0]

    async def learn_around(self, row: int) -> int:
        """As `SizeLearner.learn_around`: no remote is waited for."""
        return await self._learner.learn_around(row)

    async def learn_here(self, most: int) -> bool:
        """Learn what this machine knows, where no more than `most` sizes are unknown; whether all are known
        then. Raises `StoreTimeout`."""
        await self._learner.loaded.wait()
        if 0 < self.sizes_unknown <= most:
            await self._learner.learn_sizes(range(self.tree.rows))
        return not self.sizes_unknown

    @property
    def sizes_hold(self) -> bool:
        """Are all sizes known, and by somebody who has had the bytes?"""
        return not self.sizes_unknown and next(self._sizes.hearsay(), None) is None

    async def confirm_sizes(self) -> None:
        """As `SizeLearner.confirm_sizes`. Raises `StoreTimeout`."""
        for row in await self._learner.confirm_sizes():
            if self.corrected is not None:
                await self.corrected(row)

    @property
    def sizes_are_certain(self) -> bool:
        """Are all sizes known, and beyond doubt?"""
        return self._sizes.are_certain()

    async def await_sizes(self) -> None:
        """Wait until all sizes are known, or nobody is left to be asked in the background."""
        await self._learner.loaded.wait()
        if self.sizes_unknown:
            await self._learner.surveyed.wait()

    def start_learning(self) -> None:
        """As `SizeLearner.start_learning`, when the tree is shown."""
        self._learner.start_learning()

    def stop_learning(self) -> None:
        """The tree is not shown any more."""
        self._learner.stop_learning()

    def keep_sizes(self) -> None:
        """Keep what was learnt for the next mount. Blocking, for the daemon's end."""
        self._learner.keep_now()

    async def is_cached(self, row: int) -> bool:
        """Does the cache hold the file's object?"""
        return await self._store.has(self.tree.oid(row))

    async def proof(self, row: int) -> str:
        """What speaks for a file's bytes, as `ContentStore.proof` tells it."""
        return await self._store.proof(self.tree.oid(row))

    async def measure_cached(self) -> int:
        """How many bytes the objects of this tree's files have that the cache holds, each file counted."""
        total = 0

        def count(_: int, size: int) -> None:
            nonlocal total
            total += size

        for start in range(0, self.tree.rows, MEASURED_AT_ONCE):
            rows = range(start, min(start + MEASURED_AT_ONCE, self.tree.rows))
            await self._ask_lengths([row for row in rows if not self.tree.is_directory(row)], count)
        return total

    async def _ask_lengths(self, rows: list[int], told: Callable[[int, int], None]) -> None:
        """Ask the cache for the lengths of the rows' objects in one hop; `told(row, size)` what it has."""
        for algorithm, of_kind, digests in by_algorithm(self.tree, rows):
            lengths = await self._store.lengths([digest.hex() for digest in digests], algorithm)
            for row, size in zip(of_kind, lengths, strict=True):
                if size != UNKNOWN:
                    told(row, size)

    def _explain(self, row: int, error: StoreError) -> StoreError:
        """The same error with the file's path and, for a miss, what would help."""
        message = f"{self.tree.path(row)!r}: {error}"
        if (
            isinstance(error, ObjectMissing)
            and not self._remotes
            and self.tree.algorithm(row) in DVC_ALGORITHMS
        ):
            message += "; `dvc fetch` would bring it"
        return type(error)(message)
