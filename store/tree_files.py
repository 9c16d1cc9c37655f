"""`TreeFiles`: the files of one tree by row: their sizes, their bytes, and words for what fails.

Sizes that the tree does not have are learnt from the objects. They are kept in a file without a
name: pages of a file can be given back to the disk, those of a daemon that serves a hundred
versions of a million files could not.

Thread rule: belongs to the event loop.
"""

from __future__ import annotations

import logging
import mmap
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from store.content_store import ContentStore, OpenObject
from store.errors import ObjectMissing, StoreError
from store.fetcher import Source
from store.oid import DIGEST_BYTES, DVC_ALGORITHMS
from store.tree import ALGORITHM_SHIFT, UNKNOWN, Tree

MEASURED_AT_ONCE: Final = 4096
"""Rows. Between two such batches readers get their turn."""

ROWS_AT_ONCE: Final = 1024
"""Whose sizes are asked for together: a hop to a thread costs as much as twenty answers."""
ASKED_BLOCKS: Final = 256
ASKED_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Rows whose sizes are being asked for, or were."""

    done: trio.Event
    at: float


class TreeFiles:
    """What a tree's rows have for content. `source` brings what the caches lack, where anything can."""

    def __init__(self, tree: Tree, store: ContentStore, source: Source | None = None) -> None:
        self.tree = tree
        self._store = store
        self._source = source
        self._asked: OrderedDict[int, _Asked] = OrderedDict()
        self.sizes_unknown = tree.sizes_unknown
        self.bytes_known = tree.bytes_known
        # The tree's own column is read-only: copied only if it has gaps to be filled.
        self.sizes: Sequence[int] = tree.size
        self._learnt = _writable_copy(tree.size) if tree.sizes_unknown else None
        if self._learnt is not None:
            self.sizes = self._learnt

    async def open(self, row: int) -> OpenObject:
        """Open a file's object. Raises `ObjectMissing`, `ObjectCorrupt`, `CacheUnusable`, `StoreTimeout`."""
        try:
            opened = await self._store.open(self.tree.oid(row), self.sizes[row], self._source)
        except StoreError as error:
            raise self._explain(row, error) from None
        self._learn(row, opened.size)
        return opened

    async def read(self, row: int, opened: OpenObject, offset: int, length: int) -> bytes | memoryview:
        """As `ContentStore.read`; an error names the file."""
        try:
            return await self._store.read(opened, offset, length)
        except StoreError as error:
            raise self._explain(row, error) from None

    def close(self, opened: OpenObject) -> None:
        self._store.close(opened)

    async def size(self, row: int) -> int:
        """A file's size in bytes. Raises as `open` does where nothing can tell it."""
        known = self.sizes[row]
        if known != UNKNOWN:
            return known
        try:
            size = await self._store.size(self.tree.oid(row))
        except StoreError as error:
            raise self._explain(row, error) from None
        self._learn(row, size)
        return size

    def size_now(self, row: int) -> int:
        """A file's size, or `UNKNOWN` where it cannot be told without waiting. 0 for a directory."""
        known = self.sizes[row]
        if known != UNKNOWN:
            return known
        try:
            size = self._store.size_now(self.tree.oid(row))
        except (BlockingIOError, StoreError):
            return UNKNOWN
        self._learn(row, size)
        return size

    async def learn_around(self, row: int) -> int:
        """Ask for the sizes of the rows around `row`; returns the row up to which that is done.

        Those behind are asked for meanwhile: rows are in the order of listings, from one directory to
        the next. What stays unknown is asked for again, but not within a second.
        """
        block = row // ROWS_AT_ONCE
        await self._ask_block(block).wait()
        if (block + 1) * ROWS_AT_ONCE < self.tree.rows:
            self._ask_block(block + 1)
        return (block + 1) * ROWS_AT_ONCE

    def _ask_block(self, block: int) -> trio.Event:
        asked = self._asked.get(block)
        now = trio.current_time()
        if asked is None or (asked.done.is_set() and now - asked.at > ASKED_SECONDS):
            asked = self._asked[block] = _Asked(trio.Event(), now)
            self._asked.move_to_end(block)
            while len(self._asked) > ASKED_BLOCKS:
                self._asked.popitem(last=False)
            self._store.start_soon(self._learn_block, block, asked.done)
        return asked.done

    async def _learn_block(self, block: int, done: trio.Event) -> None:
        first = block * ROWS_AT_ONCE
        try:
            await self.learn_sizes(range(first, min(first + ROWS_AT_ONCE, self.tree.rows)))
        except StoreError as error:
            log.warning("sizes could not be asked for: %s", error)
        finally:
            done.set()

    async def learn_sizes(self, rows: range) -> None:
        """Ask the cache for those of the rows' sizes that are not known; some may stay so."""
        sizes = self.sizes
        await self._ask_lengths([row for row in rows if sizes[row] == UNKNOWN], self._learn)

    async def is_cached(self, row: int) -> bool:
        """Does the cache hold the file's object?"""
        return await self._store.has(self.tree.oid(row))

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
        flags, digest, width = self.tree.flags, self.tree.digest, self.tree.digest_width
        for place, algorithm in enumerate(DVC_ALGORITHMS):
            length = DIGEST_BYTES[algorithm]
            of_kind = [row for row in rows if flags[row] >> ALGORITHM_SHIFT == place]
            if of_kind:
                digests = [digest[row * width : row * width + length].hex() for row in of_kind]
                lengths = await self._store.lengths(digests, algorithm)
                for row, size in zip(of_kind, lengths, strict=True):
                    if size != UNKNOWN:
                        told(row, size)

    def _explain(self, row: int, error: StoreError) -> StoreError:
        """The same error with the file's path and, for a miss, what would help."""
        message = f"{self.tree.path(row)!r}: {error}"
        if isinstance(error, ObjectMissing) and self.tree.algorithm(row) in DVC_ALGORITHMS:
            message += "; `dvc fetch` would bring it"
        return type(error)(message)

    def _learn(self, row: int, size: int) -> None:
        if self._learnt is not None and self._learnt[row] == UNKNOWN:
            self._learnt[row] = size
            self.sizes_unknown -= 1
            self.bytes_known += size


def _writable_copy(column: memoryview) -> memoryview:
    """A copy of a column of 64-bit numbers in a file without a name."""
    with tempfile.TemporaryFile() as file:
        file.write(column)
        file.flush()
        return memoryview(mmap.mmap(file.fileno(), column.nbytes)).cast("q")
