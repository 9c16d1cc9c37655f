"""`SeenOpens`: what readers open in a mount in native mode, where the kernel answers them by itself.

Told by inotify, for each directory of the version at the root: for the number of hits, for the order in
which the cache is evicted, and for what is fetched ahead. A watch costs an open a microsecond, so there are
none where nothing is fetched; and none in versions with very many directories, each of which costs the kernel
memory. When more is opened than is looked at, the rest is not counted; nor is what is opened again and again
with nothing between. Lives on the event loop.

A mark of fanotify(7) would need one for all, but the overlay has no file handles that it accepts, and without
them every event keeps the mount busy.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from fusefs.native.inotify import (
    IS_DIRECTORY,
    OPENED,
    Came,
    explain_refusal,
    list_watches,
    new_inotify,
    parse_events,
    watched_directories,
)
from fusefs.native.tree_layer import TreeLayer
from store.engine import Engine
from store.oid import Oid
from store.tree_files import TreeFiles

log = logging.getLogger(__name__)

BATCH_BYTES: Final = 16 << 10
PAUSE_SECONDS: Final = 0.01
"""Between two batches of some hundred opens: what is opened faster is not all looked at."""
ADDED_SECONDS: Final = 30.0
"""How long it may take somebody else to add the watches."""
MOST_ASKED: Final = 4096


@dataclass(frozen=True, slots=True)
class Watched:
    """What somebody else is to watch for us: an inotify descriptor, and directories below a root."""

    descriptor: int
    rows: Sequence[int]
    paths: Sequence[str]


class SeenOpens:
    """Of one mount. `begin` is told of the files of which opens are seen from now on."""

    def __init__(self, engine: Engine, begin: Callable[[TreeFiles], None]) -> None:
        self._engine = engine
        self._begin = begin
        self._descriptor = -1
        self._asked: dict[Oid, None] = {}

    @property
    def are_seen(self) -> bool:
        return self._descriptor >= 0

    def prepare(self, tree: TreeLayer) -> Watched | None:
        """What is to be watched of a version that comes to the root; None where opens teach nothing."""
        if not tree.files.has_remotes:
            return None
        try:
            rows = watched_directories(tree.tree)
            return Watched(new_inotify(), rows, [tree.tree.path(row) for row in rows])
        except OSError as error:
            self._explain(explain_refusal(error))
            return None

    async def watch_from_afar(self, tree: TreeLayer, descriptor: int) -> None:
        """As `watch`, where somebody in another mount namespace has the version's directories watched by
        `descriptor`, which is ours to close."""
        try:
            rows = watched_directories(tree.tree)
            watches: list[int] = []
            with trio.move_on_after(ADDED_SECONDS):
                while len(watches) != len(rows):
                    await trio.sleep(PAUSE_SECONDS)
                    watches = list_watches(descriptor)
            came = watches if len(watches) == len(rows) else "the kernel refuses to watch them all"
            self.watch(tree, Watched(descriptor, rows, ()), came)
        except OSError as error:
            os.close(descriptor)
            self._explain(explain_refusal(error))

    def watch(self, tree: TreeLayer, watched: Watched | None, came: Came) -> None:
        """That version is at the root now; `came` is what came of `watched`."""
        self.close()
        if watched is None:
            return
        if isinstance(came, str):
            os.close(watched.descriptor)
            self._explain(came)
            return
        self._descriptor = watched.descriptor
        self._begin(tree.files)
        rows = dict(zip(came, watched.rows, strict=True))
        self._engine.nursery.start_soon(self._follow, tree, watched.descriptor, rows)

    def drop(self, watched: Watched | None) -> None:
        """It did not come to the root."""
        if watched is not None:
            os.close(watched.descriptor)

    def asked(self, oid: Oid) -> None:
        """We have been asked for the object, so whoever opens it is known."""
        if self.are_seen:
            if len(self._asked) >= MOST_ASKED:
                self._asked.clear()
            self._asked[oid] = None

    def close(self) -> None:
        """See nothing any more."""
        if self.are_seen:
            trio.lowlevel.notify_closing(self._descriptor)
            os.close(self._descriptor)
        self._descriptor = -1

    def _explain(self, why: str) -> None:
        log.info("opens of what is cached are not seen: %s", why)

    async def _follow(self, tree: TreeLayer, descriptor: int, rows: Mapping[int, int]) -> None:
        try:
            while descriptor == self._descriptor:
                await trio.lowlevel.wait_readable(descriptor)
                if descriptor != self._descriptor:
                    break  # it was closed when there was something to read, and may be another file by now
                for watch, mask, name in parse_events(os.read(descriptor, BATCH_BYTES)):
                    if mask & OPENED and not mask & IS_DIRECTORY and watch in rows:
                        self._note(tree, rows[watch], name)
                await trio.sleep(PAUSE_SECONDS)
        except trio.ClosedResourceError:
            pass  # another version is shown
        except Exception:  # a bug costs what is learnt of opens, not the mount
            log.exception("opens of what is cached are not seen any more")
            self.close()

    def _note(self, tree: TreeLayer, directory: int, name: bytes) -> None:
        row = tree.tree.lookup(directory, name)
        if row is None or tree.tree.is_symlink(row):
            return  # the control directory's
        oid = tree.tree.oid(row)
        if oid in self._asked:
            del self._asked[oid]
            return
        self._engine.store.counters.hits += 1
        self._engine.note_use(oid)
        prefetcher = tree.files.prefetcher
        ahead = prefetcher.opened(row, oid) if prefetcher is not None else None
        if ahead is not None:
            tree.files.close(ahead)
