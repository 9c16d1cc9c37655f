"""`ChunkStore`: what a mount holds of videos and folders whose chunks are looked at, within bounds.

Which chunks there are follows from an index or from names, and is found again when it was dropped; so do the
sizes that were learnt of them. Lives on the event loop.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

import trio

from fusefs.views.held import HeldBytes
from store.engine import Engine
from store.making.cvat_sources import Chunked, ChunkedFolder, ChunkedVideo, open_folder, open_video
from store.making.tasks import RowOrigin
from store.media.folders import directories_with_frames
from store.media.recipe import ChunksRecipe
from store.shards.reader import Allowance
from store.tree_files import TreeFiles

MOST_FRAMES: Final = 2 << 20
"""Of all that is held: some 60 bytes each. What has more is held alone."""
MOST_HELD: Final = 1000
MOST_BYTES: Final = 64 << 20
"""Of members, videos and manifests. A larger one is held alone."""

Key = tuple[TreeFiles, int, ChunksRecipe]


@dataclass(slots=True)
class Shown:
    """A video or folder, and the sizes in bytes that were told of its files, by their rows."""

    chunked: Chunked
    sizes: dict[int, int] = field(default_factory=dict)


class ChunkStore:
    """What is shared by all views of one mount that show chunks."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.held = HeldBytes(MOST_BYTES)
        self.allowance = Allowance()
        """What may be fetched ahead of those who read zips of images."""
        self._shown: OrderedDict[Key, Shown] = OrderedDict()
        self._frames = 0
        self._counts: dict[Key, int] = {}
        """How many chunks there are of what was ever looked at."""
        self._opening: dict[Key, trio.Lock] = {}
        self._folders: WeakKeyDictionary[TreeFiles, bytearray] = WeakKeyDictionary()
        self._looking = trio.Lock()

    async def has_frames(self, files: TreeFiles, row: int) -> bool:
        """Whether a directory has an image below that is a frame. A version's names are looked at once."""
        async with self._looking:
            found = self._folders.get(files)
            if found is None:
                found = await self.engine.threads.on_disk(directories_with_frames, files.tree)
                self._folders[files] = found
        return bool(found[row])

    async def shown(self, files: TreeFiles, row: int, recipe: ChunksRecipe) -> Shown:
        """The chunks of a video or a folder. Raises as `open_video` and `open_folder` do."""
        key = (files, row, recipe)
        found = self._shown.get(key)
        if found is None:
            lock = self._opening.setdefault(key, trio.Lock())
            try:
                async with lock:
                    found = self._shown.get(key) or self._hold(key, Shown(await self._open(*key)))
            finally:
                if not lock.statistics().tasks_waiting:
                    self._opening.pop(key, None)
        if key in self._shown:
            self._shown.move_to_end(key)
        return found

    def forget(self, files: TreeFiles, row: int, recipe: ChunksRecipe) -> int:
        """Hold nothing of a row any more: it may have been made of wrong bytes or sizes.

        How many chunks the kernel may have been told of.
        """
        dropped = self._shown.pop((files, row, recipe), None)
        if dropped is not None:
            self._frames -= dropped.chunked.numbering.total
        self.held.clear()
        return self._counts.get((files, row, recipe), 0)

    async def _open(self, files: TreeFiles, row: int, recipe: ChunksRecipe) -> ChunkedVideo | ChunkedFolder:
        maker, threads = self.engine.maker, self.engine.threads
        if files.tree.is_directory(row):
            return await open_folder(maker, threads, files, row, recipe)
        return await open_video(maker, threads, RowOrigin(files, row), recipe)

    def _hold(self, key: Key, shown: Shown) -> Shown:
        self._shown[key] = shown
        self._counts[key] = shown.chunked.numbering.chunk_count
        self._frames += shown.chunked.numbering.total
        while len(self._shown) > 1 and (self._frames > MOST_FRAMES or len(self._shown) > MOST_HELD):
            self._frames -= self._shown.popitem(last=False)[1].chunked.numbering.total
        return shown
