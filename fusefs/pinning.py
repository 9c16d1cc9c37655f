"""`Pinner`: pins what a mount shows, in the background, so that a `dvc gc` takes nothing away from it.

It begins when the mount is ready and goes through the trees of all versions that are opened, a batch
of rows in a worker thread at a time. Readers come first: it rests four times as long as it worked, and
as long as the daemon is busy with others, up to a hundred times. It holds no list of what it has done;
the pins themselves are it. An object that is missing when its batch comes is not pinned, and neither is
what is brought into the cache later.

Lives on the event loop.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from fusefs.journal import Journal
from fusefs.status import PinStatus
from store.cache_chain import CacheChain
from store.errors import CacheUnusable, StoreError
from store.local_cache import LocalCache
from store.oid import DIGEST_BYTES, DVC_ALGORITHMS
from store.pins import Pins, clear_leftovers
from store.threads import Threads
from store.tree import ALGORITHM_SHIFT, DIRECTORY, Tree

log = logging.getLogger(__name__)

ROWS_AT_ONCE: Final = 1024
"""Some ten milliseconds of work."""
REST_PER_WORK: Final = 4
LONGEST_PER_WORK: Final = 100
BUSY: Final = 0.2
"""Of one processor: a daemon that does more while we rest has readers."""
SHORTEST_REST: Final = 0.002


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of some rows."""

    linked: int
    refused: int
    reason: str
    """Why the last one was refused; empty where none was."""


class Pinner:
    """The pins of one mount, in every cache that it reads. `chain` is taught to look for them."""

    def __init__(self, chain: CacheChain, threads: Threads, journal: Journal, *, wanted: bool) -> None:
        self._journal = journal
        self._former: dict[Path, str] = {}
        self._chain = chain
        self._threads = threads
        self._wanted = wanted
        self._waiting: deque[Tree] = deque()
        self._news = trio.Event()
        self._homes: dict[Path, Pins | str] = {}
        """By cache: where its pins are, or why it takes none."""
        self._objects = 0
        self._refused = 0
        self._reason = ""
        self._busy = wanted

    def add(self, tree: Tree) -> None:
        """Pin the objects of a version when its turn comes."""
        if self._wanted:
            self._busy = True
            self._waiting.append(tree)
            self._news.set()

    def report(self) -> PinStatus:
        """How far it is."""
        if not self._wanted:
            state = "off"
        elif self._busy:
            state = "making"
        elif not self._refused:
            state = "complete"
        else:
            state = "partial" if self._objects else "refused"
        return PinStatus(state, self._objects, self._reason or None)

    def note_former(self, values: Mapping[str, str]) -> None:
        """What the journal says of the pins of a daemon before us: they are ours now."""
        self._former[Path(values["cache"])] = values["name"]

    async def take_over(self) -> None:
        """Hold what a daemon before us has held. To be called before anything is read."""
        for home in await self._make_homes() if self._former else ():
            if isinstance(home, Pins):
                self._objects += await self._threads.on_disk(home.count)

    async def run(self) -> None:
        """Pin until cancelled. What is wrong with it stands in the status and the log; nothing is raised."""
        await self._clear_leftovers()
        while self._wanted:
            if not self._waiting:
                self._busy = False
                self._news = trio.Event()
                await self._news.wait()
            tree = self._waiting.popleft()
            try:
                await self._pin(tree)
            except (StoreError, OSError) as error:
                self._note(_Outcome(0, tree.files, str(error)))
            except Exception:  # a bug costs the pins of a version, not the mount
                log.exception("the objects of a version could not be pinned")
                self._note(_Outcome(0, tree.files, "an unforeseen error; the log has it"))

    def remove(self) -> None:
        """Let go of all pins. Blocking, for seconds if there are many: for when nobody is served any more."""
        for home in self._homes.values():
            if isinstance(home, Pins):
                home.remove()

    async def _clear_leftovers(self) -> None:
        for cache in self._chain.caches:
            try:
                await self._threads.on_disk(clear_leftovers, cache.root)
            except StoreError as error:
                log.warning("pins of mounts that ended: %s", error)

    async def _pin(self, tree: Tree) -> None:
        """Offer the objects of a tree to every cache that has some of them, a batch at a time."""
        homes = await self._make_homes()
        if not any(isinstance(home, Pins) for home in homes):
            self._note(_Outcome(0, tree.files, str(homes[0])) if homes else _Outcome(0, 0, ""))
            return
        for start in range(0, tree.rows, ROWS_AT_ONCE):
            begin = trio.current_time()
            rows = range(start, min(start + ROWS_AT_ONCE, tree.rows))
            self._note(await self._threads.on_disk(_pin_rows, homes, tree, rows))
            await _rest(trio.current_time() - begin)

    async def _make_homes(self) -> list[Pins | str]:
        """Where the pins of each cache go; those of caches that came since are made now."""
        own = {home.root for home in self._homes.values() if isinstance(home, Pins)}
        for root in [cache.root for cache in self._chain.caches if cache.root not in own]:
            if root not in self._homes and root.is_dir():
                try:
                    former = self._former.get(root, "")
                    home = await self._threads.on_disk(Pins.make, root, former, discard=Pins.remove)
                except CacheUnusable as error:
                    self._homes[root] = str(error)
                else:
                    self._homes[root] = home
                    self._chain.add(LocalCache(home.root))
                    self._journal.append("pins", cache=str(root), name=home.root.name)
        return list(self._homes.values())

    def _note(self, outcome: _Outcome) -> None:
        self._objects += outcome.linked
        self._refused += outcome.refused
        if outcome.reason and outcome.reason != self._reason:
            log.warning("not every object is kept from being removed: %s", outcome.reason)
            self._reason = outcome.reason


async def _rest(worked: float) -> None:
    """Let others have the processor after so many seconds of work."""
    rest = max(SHORTEST_REST, REST_PER_WORK * worked)
    for _ in range(LONGEST_PER_WORK // REST_PER_WORK):
        before = time.process_time()
        await trio.sleep(rest)
        if time.process_time() - before < BUSY * rest:
            break


def _pin_rows(homes: Sequence[Pins | str], tree: Tree, rows: range) -> _Outcome:
    """Pin the objects of some rows, each in the first cache that has it. For a worker thread."""
    linked = refused = 0
    reason = next((home for home in homes if isinstance(home, str)), "")
    said = ""
    flags, digest, width = tree.flags, tree.digest, tree.digest_width
    for place, algorithm in enumerate(DVC_ALGORITHMS):
        length = DIGEST_BYTES[algorithm]
        wanted: Sequence[str] = [
            digest[row * width : row * width + length].hex()
            for row in rows
            if not flags[row] & DIRECTORY and flags[row] >> ALGORITHM_SHIFT == place
        ]
        for home in homes:
            if wanted and isinstance(home, Pins):
                pinned = home.pin(wanted, algorithm)
                linked += pinned.linked
                refused += pinned.refused
                said = pinned.reason or said
                wanted = pinned.missing
        if reason and wanted:  # they may be in the cache that takes no pins
            refused += len(wanted)
            said = reason
    return _Outcome(linked, refused, said)
