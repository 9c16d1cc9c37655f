"""`FrameStore`: what a mount holds of videos whose frames are looked at, within bounds.

Which frames a video has follows from its index, and is made again from there when it was dropped; a frame's
bytes are held while its reader is likely to come for the rest of them. Lives on the event loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import repeat
from typing import Final

import trio

from fusefs.views.frames_json import FramesTable
from store.engine import Engine
from store.errors import MediaInvalid
from store.making.frame_chunks import FrameChunks
from store.making.tasks import RowOrigin, Task
from store.media.encoding import exact_size
from store.media.index import VideoIndex
from store.media.recipe import FramesRecipe

MOST_PACKETS: Final = 1 << 20
"""Of the videos that are held together: some 60 bytes each. One that has more is held alone."""
MOST_VIDEOS: Final = 1000
MOST_BYTES: Final = 64 << 20
"""Of frames that are held. A larger one is held alone."""

TASKS_KEPT: Final = 64
"""Chunks of a video: a listing asks for the same one very often."""

Key = tuple[RowOrigin, FramesRecipe]


class Video:
    """A video by a recipe: its frames by place, and `frames.json`."""

    def __init__(self, origin: RowOrigin, chunks: FrameChunks) -> None:
        index = chunks.index
        self.name = origin.name
        self.chunks = chunks
        self.frames = chunks.frames
        """Absolute numbers by place."""
        self.packets = len(index.packets)
        self.table = FramesTable(chunks, origin.name, str(origin.oid))
        self._task: Callable[[int], Task | None] = lru_cache(TASKS_KEPT)(chunks.task)
        self.exact = exact_size(chunks.recipe.encoding, index.width, index.height)
        """Bytes of every frame; None where only making one tells."""

    def find(self, place: int) -> tuple[Task, int]:
        """What makes the frame at a place, and which piece of that it is. Raises IndexError."""
        chunk, piece = self.chunks.find(place)
        task = self._task(chunk)
        assert task is not None  # the chunk is one of them
        return task, piece


class FrameStore:
    """Videos and frames of one mount; an engine's maker makes them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._videos: OrderedDict[Key, Video] = OrderedDict()
        self._packets = 0
        self._frames: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._coming: dict[tuple[str, int], trio.Event] = {}

    async def video(self, origin: RowOrigin, recipe: FramesRecipe) -> Video:
        """A video's frames. Raises as `Maker.index` does."""
        key = (origin, recipe)
        found = self._videos.get(key)
        if found is None:
            index = await self._engine.maker.index(origin)
            made = await self._engine.threads.on_disk(_read, origin, index, recipe)
            found = self._videos.get(key) or self._hold(key, made)
        self._videos.move_to_end(key)
        return found

    def sizes(self, video: Video, places: range) -> Iterator[int | None]:
        """The sizes in bytes of some frames, None for one that cannot be told without making it."""
        if video.exact is not None:
            yield from repeat(video.exact, len(places))
            return
        asked, sizes = "", None
        for place in places:
            task, piece = video.find(place)
            if task.key != asked:
                asked, sizes = task.key, self._engine.maker.sizes(task)
            yield None if sizes is None or sizes[piece] < 0 else sizes[piece]

    def size(self, video: Video, place: int) -> int | None:
        """A frame's size in bytes, None where it cannot be told without making it."""
        return next(self.sizes(video, range(place, place + 1)))

    def is_made(self, video: Video, place: int) -> bool:
        """Whether a frame is known to have been made."""
        task, piece = video.find(place)
        if (task.key, piece) in self._frames:
            return True
        sizes = self._engine.maker.sizes(task)
        return sizes is not None and sizes[piece] >= 0

    async def frame(self, video: Video, place: int) -> bytes:
        """A frame's bytes.

        Raises `MediaInvalid` for one that is damaged or of another size than was told; else as `Maker.piece`.
        """
        task, piece = video.find(place)
        key = (task.key, piece)
        while (found := self._frames.get(key)) is None and key in self._coming:
            await self._coming[key].wait()  # the kernel asks for several parts of a file at a time
        if found is not None:
            self._frames.move_to_end(key)
            return found
        came = self._coming[key] = trio.Event()
        try:
            made = await self._engine.maker.piece(task, piece)
            if video.exact is not None and len(made) != video.exact:
                number, form = video.frames[place], video.chunks.recipe.encoding.form
                raise MediaInvalid(
                    f"{video.name!r}: frame {number} is of another size than the video says: its {form} has"
                    f" {len(made)} bytes and not {video.exact}; a recipe with scale= has one size for all"
                )
            self._hold_frame(key, made)
            return made
        finally:
            del self._coming[key]
            came.set()

    def forget(self, origin: RowOrigin, recipe: FramesRecipe) -> None:
        """Hold nothing of a video any more: it may have been made of wrong bytes."""
        dropped = self._videos.pop((origin, recipe), None)
        if dropped is not None:
            self._packets -= dropped.packets
        self._frames.clear()
        self._bytes = 0

    def _hold(self, key: Key, video: Video) -> Video:
        self._videos[key] = video
        self._packets += video.packets
        while len(self._videos) > 1 and (self._packets > MOST_PACKETS or len(self._videos) > MOST_VIDEOS):
            self._packets -= self._videos.popitem(last=False)[1].packets
        return video

    def _hold_frame(self, key: tuple[str, int], made: bytes) -> None:
        self._frames[key] = made
        self._bytes += len(made)
        while len(self._frames) > 1 and self._bytes > MOST_BYTES:
            self._bytes -= len(self._frames.popitem(last=False)[1])


def _read(origin: RowOrigin, index: VideoIndex, recipe: FramesRecipe) -> Video:
    """For a thread: tenths of a second for millions of frames."""
    return Video(origin, FrameChunks(origin, index, recipe))
