"""`SizeLearner`: how a daemon comes to know the sizes of one tree's files.

From what an earlier mount has kept; from the cache and the index, a block of rows at a time, when rows are
listed; from the remotes when somebody looks at files, for those around them; and all of them in the
background while the tree is shown, those of a large tree by a process. What was learnt is kept for the next
mount.

Thread rule: belongs to the event loop.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import trio

from store.errors import ObjectMissing, StoreError
from store.learnt_sizes import LearntSizes, Stamps, read_kept, take_stamps, write_kept
from store.oid import DVC_ALGORITHMS
from store.size_finder import AskedRemotes, SizeFinder
from store.size_survey import SizeSurvey
from store.size_sweep import SWEPT_ROWS, SizeSweep
from store.sizes import How
from store.tree import ALGORITHM_SHIFT, UNKNOWN, Tree
from store.tree_sizes import by_algorithm

ROWS_AT_ONCE: Final = 1024
"""Whose sizes are asked for together: a hop to a thread costs as much as twenty answers."""
ASKED_BLOCKS: Final = 4096
ASKED_SECONDS: Final = 1.0
LONGEST_ASKED_SECONDS: Final = 60.0
"""A block is asked for again after so long; each time that tells nothing new, twice as long."""
LOOK_AHEAD: Final = 64
"""Rows whose sizes remotes are asked for at a time, because those before them are looked at."""
LOOK_AHEAD_PAUSE: Final = 10.0
"""Seconds, after a remote failed at it."""
NEXT: Final = 4
HURRYING_ROWS: Final = 8
"""So many in no order, and all sizes had better be known soon."""
LATEST_ROWS: Final = 128
"""A row follows up when one of so many before it was among so many that were asked for last: who asks in any
other order has no use for its neighbours."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Rows whose sizes are being asked for, or were; they are good for `seconds`."""

    done: trio.Event
    at: float
    seconds: float
    unknown: int
    """How many sizes of the tree were not known at that time."""


class SizeLearner:
    """One tree's. `sizes` is what is known; its `column` and counts are for everybody to read.

    `remotes` are those of the version, `kept` is where sizes are kept from one mount to the next: a private
    place.
    """

    def __init__(
        self, tree: Tree, finder: SizeFinder, remotes: AskedRemotes | None, kept: Path | None
    ) -> None:
        self.sizes = LearntSizes(tree)
        self._tree = tree
        self._finder = finder
        self._remotes = remotes
        self._kept = kept
        self._stamps: Stamps | None = None
        self._roots: list[Path] = []
        self.loaded = trio.Event()
        """What an earlier mount has kept is known."""
        self._asked: OrderedDict[int, _Asked] = OrderedDict()
        self._ahead: set[int] = set()
        self._ahead_after = 0.0
        self._latest: dict[int, None] = {}
        self._strays = 0
        self._hurried = trio.Event()
        self._survey = trio.CancelScope()
        self._surveying: SizeSurvey | None = None
        self.surveyed = trio.Event()
        """Whoever could be asked for all sizes in the background has been asked."""
        self._sweep = SizeSweep(tree, self.sizes, finder.threads)
        if tree.sizes_unknown:
            finder.start_soon(self._load)
        else:
            self.sizes.begin(None)
            self.loaded.set()

    async def learn_around(self, row: int) -> int:
        """Learn what this machine knows of the sizes around `row`; returns the row up to which that is done.

        Those behind are asked for meanwhile: rows are in the order of listings, from one directory to
        the next. Remotes are asked as well, and not waited for. What stays unknown is asked for again,
        after a while that grows as long as nothing comes of it.
        """
        block = row // ROWS_AT_ONCE
        await self._sweep.wait_for(min((block + 1) * ROWS_AT_ONCE, self._tree.rows) - 1)
        await self._ask_block(block).wait()
        if (block + 1) * ROWS_AT_ONCE < self._tree.rows:
            self._ask_block(block + 1)
        self.look_ahead(row)
        return (block + 1) * ROWS_AT_ONCE

    def _ask_block(self, block: int) -> trio.Event:
        asked = self._asked.get(block)
        now = trio.current_time()
        if asked is None or (asked.done.is_set() and now - asked.at > asked.seconds):
            seconds = ASKED_SECONDS
            if asked is not None and asked.unknown == self.sizes.unknown:
                seconds = min(2 * asked.seconds, LONGEST_ASKED_SECONDS)
            asked = self._asked[block] = _Asked(trio.Event(), now, seconds, self.sizes.unknown)
            self._asked.move_to_end(block)
            while len(self._asked) > ASKED_BLOCKS:
                self._asked.popitem(last=False)
            self._finder.start_soon(self._learn_block, block, asked.done)
        return asked.done

    async def _learn_block(self, block: int, done: trio.Event) -> None:
        first = block * ROWS_AT_ONCE
        try:
            await self.learn_sizes(range(first, min(first + ROWS_AT_ONCE, self._tree.rows)))
        except StoreError as error:
            log.warning("sizes could not be asked for: %s", error)
        finally:
            done.set()

    async def learn_sizes(self, rows: Iterable[int]) -> None:
        """Ask this machine for those of the rows' sizes that are not known; some may stay so."""
        await self.loaded.wait()
        column = self.sizes.column
        unknown = [row for row in rows if column[row] == UNKNOWN]
        for algorithm, of_kind, digests in by_algorithm(self._tree, unknown):
            found = await self._finder.look(digests, algorithm)
            for row, size in zip(of_kind, found, strict=True):
                if size is not None:
                    self.sizes.learn(row, *size)

    async def confirm_sizes(self) -> Sequence[int]:
        """Remember which objects have been hashed here since a remote told their sizes, up to some that have
        not; the rows whose size is another one. Raises `StoreTimeout`."""
        await self.loaded.wait()
        corrected: list[int] = []
        told = self.sizes.hearsay()
        while rows := list(islice(told, ROWS_AT_ONCE)):
            for algorithm, of_kind, digests in by_algorithm(self._tree, rows):
                for row, size in zip(of_kind, await self._finder.recall(digests, algorithm), strict=True):
                    if size is not None and size.how is How.HASHED and self.sizes.learn(row, *size):
                        corrected.append(row)
            if not all(map(self.sizes.is_certain, rows)):
                break
        return corrected

    def look_ahead(self, row: int, *, is_asked: bool = False) -> None:
        """Ask the remotes for the sizes of the row and of those that are likely to be looked at next.

        With `is_asked` the caller asks for the row itself: it is not asked for twice, and none of the others
        is where it does not follow up on what was asked for before.
        """
        if is_asked and not self._follows_up(row):
            self._strays += 1
            if self._strays == HURRYING_ROWS:
                self._hurried.set()
            return
        remotes = self._remotes
        if not remotes or not remotes.remotes or trio.current_time() < self._ahead_after:
            return
        sizes, flags = self.sizes.column, self._tree.flags
        rows: list[int] = []
        for near in range(row, min(row + LOOK_AHEAD, self._tree.rows)):
            if len(self._ahead) >= LOOK_AHEAD:
                break
            of_dvc = flags[near] >> ALGORITHM_SHIFT < len(DVC_ALGORITHMS)
            if is_asked and near == row:
                continue
            if sizes[near] == UNKNOWN and of_dvc and near not in self._ahead:
                self._ahead.add(near)
                rows.append(near)
        if rows:
            self._finder.start_soon(self._ask_all_ahead, rows)

    async def await_listed(self, row: int) -> None:
        """While remotes are listed: wait until that tells the row's size, instead of asking for it alone."""
        if self._surveying is not None:
            await self._surveying.await_listed(row)

    def _follows_up(self, row: int) -> bool:
        latest = self._latest
        follows = any(row - back in latest for back in range(1, NEXT + 1))
        latest[row] = None
        if len(latest) > LATEST_ROWS:
            del latest[next(iter(latest))]
        return follows

    async def _ask_all_ahead(self, rows: list[int]) -> None:
        """Ask this machine for all of them in one hop, and remotes for what it does not know."""
        try:
            for algorithm, of_kind, digests in by_algorithm(self._tree, rows):
                for row, size in zip(of_kind, await self._finder.look(digests, algorithm), strict=True):
                    if size is not None:
                        self.sizes.learn(row, *size)
        except StoreError as error:
            log.debug("no sizes ahead of who asks: %s", error)
            self._ahead.difference_update(rows)
            return
        for row in rows:
            if self.sizes.column[row] == UNKNOWN:
                self._finder.start_soon(self._ask_ahead, row)
            else:
                self._ahead.discard(row)

    async def _ask_ahead(self, row: int) -> None:
        try:
            size = await self._finder.find(self._tree.oid(row), self._remotes, is_nowhere_here=True)
            self.sizes.learn(row, *size)
        except ObjectMissing:
            pass  # whoever asks for it will be told
        except StoreError as error:
            self._ahead_after = trio.current_time() + LOOK_AHEAD_PAUSE
            log.debug("no sizes ahead of who asks: %s", error)
        finally:
            self._ahead.discard(row)

    def start_learning(self) -> None:
        """Learn all sizes in the background and keep them, until `stop_learning` or for good."""
        if self.sizes.unknown:
            self._survey = trio.CancelScope()
            self._finder.start_soon(self._learn_all, self._survey)

    def stop_learning(self) -> None:
        """The tree is not shown any more."""
        self._survey.cancel()

    async def _learn_all(self, scope: trio.CancelScope) -> None:
        survey = SizeSurvey(self._tree, self.sizes, self._finder, self._remotes, self._hurried)
        self._surveying = survey
        with scope:
            await self.loaded.wait()
            try:
                if not await self._look_beside():
                    await survey.look_here()
                await self._keep()
                await survey.ask_remotes()
                await self._keep()
            except StoreError as error:
                log.warning("sizes are not learnt in the background: %s", error)
            except Exception:  # a bug costs the sizes, not the daemon
                log.exception("sizes are not learnt in the background")
        self._surveying = None
        self.surveyed.set()

    async def _look_beside(self) -> bool:
        """Have a process learn what this machine knows, where that may be and is worth it."""
        index = self._finder.swept_with
        if index is None or self.sizes.unknown < SWEPT_ROWS:
            return False
        return await self._sweep.run(index, self._roots)

    async def _load(self) -> None:
        """Go on from what an earlier mount has learnt."""
        kept = None
        self._roots = self._finder.roots()
        try:
            self._stamps = await self._finder.threads.on_disk(take_stamps, self._roots)
            if self._kept is not None:
                kept = await self._finder.threads.on_disk(read_kept, self._kept, self._tree, self._stamps)
        except StoreError as error:
            log.warning("sizes that were learnt before are not known: %s", error)
        finally:
            self.sizes.begin(kept)
            self.loaded.set()

    async def _keep(self) -> None:
        write = self._write()
        if write is not None:
            await self._finder.threads.on_disk(write)

    def keep_now(self) -> None:
        """Keep what was learnt. Blocking, for the daemon's end."""
        write = self._write()
        if write is not None:
            write()

    def _write(self) -> Callable[[], None] | None:
        """What writes down what was learnt, in any thread; None where there is nothing to be written."""
        path, stamps, tree = self._kept, self._stamps, self._tree
        if path is None or stamps is None or not self.sizes.fresh:
            return None
        if self._finder.roots() != self._roots:  # of a cache that was added nothing was noted in time
            stamps = {algorithm: [0] * len(numbers) for algorithm, numbers in stamps.items()}
        noted, kept = stamps, self.sizes.keep()
        assert kept is not None  # there is something fresh

        def write() -> None:
            try:
                write_kept(path, tree, kept, noted)
            except OSError as error:
                log.warning("sizes cannot be kept in %s: %s", path, error.strerror)

        return write
