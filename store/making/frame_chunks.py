"""`FrameChunks`: the frames of a video that a recipe selects, cut into chunks that are made together.

A chunk begins where decoding can begin wherever that is possible: with a key frame. It holds as many groups
of pictures as its bounds allow, or some of a group that is longer. So no packet is decoded twice for a reader
who goes through the video, whoever makes which chunk; and what a single frame brings along is bounded.
The bounds are fixed, since the number of a chunk is part of what it is kept by.

Frames are counted by their places among those that are selected. Building takes some tenths of a second for
millions of frames: any thread. It is frozen afterwards.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

import numpy as np

from store.making.indexes import index_task
from store.making.tasks import Origin, Task
from store.media.containers import DECODER
from store.media.encode import encoder
from store.media.frames import COLOUR_VERSION
from store.media.index import VideoIndex
from store.media.index_file import INDEX_VERSION
from store.media.recipe import FramesRecipe

MOST_FRAMES: Final = 256
MOST_DECODED: Final = 128 << 20
"""Bytes of a chunk's pictures in RGB."""
MOST_READ: Final = 4 << 20
"""Bytes of a chunk's packets."""
MOST_PASSED: Final = 1024
"""Frames of the video from a chunk's first to its last."""
CHUNKS_VERSION: Final = 1
"""Of the bounds above and of what the maker does."""

NAME: Final = "frames"


def version() -> str:
    """What frames follow from besides their video and recipe."""
    return f"{CHUNKS_VERSION} {COLOUR_VERSION} {INDEX_VERSION} {DECODER} {encoder()}"


class FrameChunks:
    """The chunks of one video and recipe: a `Series` of tasks."""

    def __init__(self, origin: Origin, index: VideoIndex, recipe: FramesRecipe) -> None:
        self.index = index
        self.recipe = recipe
        chosen = recipe.selection
        end = index.frame_count if chosen.stop is None else min(chosen.stop + 1, index.frame_count)
        self.frames = range(min(chosen.start, end), end, chosen.step)
        """The numbers in the video, by place."""
        self._origin = origin
        self._needs = (index_task(origin),)
        self._version = version()
        self._starts, self._runs = _cut(index, recipe, self.frames)

    def __len__(self) -> int:
        return len(self._starts)

    def find(self, place: int) -> tuple[int, int]:
        """The chunk of the frame at a place, and which piece of it the frame is. Raises `IndexError`."""
        if not 0 <= place < len(self.frames):
            raise IndexError(place)
        chunk = bisect_right(self._starts, place) - 1
        return chunk, place - self._starts[chunk]

    def places(self, chunk: int) -> range:
        """The places of a chunk's frames. Raises `IndexError`."""
        if not 0 <= chunk < len(self._starts):
            raise IndexError(chunk)
        end = self._starts[chunk + 1] if chunk + 1 < len(self._starts) else len(self.frames)
        return range(self._starts[chunk], end)

    def task(self, chunk: int) -> Task | None:
        """See `Series`."""
        if not 0 <= chunk < len(self._starts):
            return None
        places = self.places(chunk)
        frames = self.frames[places.start : places.stop]
        return Task(
            NAME,
            self._version,
            str(self.recipe),
            (self._origin,),
            chunk,
            {"recipe": str(self.recipe), "frames": [frames.start, frames.stop, frames.step]},
            len(places),
            self._needs,
            self,
        )

    def run_of(self, chunk: int) -> int:
        """See `Series`: the chunks of a long group of pictures are a run."""
        return self._runs[chunk]


def _cut(index: VideoIndex, recipe: FramesRecipe, frames: range) -> tuple[list[int], list[int]]:
    """Where chunks begin, by place, and the run that each is in."""
    count = len(frames)
    if not count:
        return [], []
    keys = np.clip(-(-(index.key_frames() - frames.start) // frames.step), 0, count)
    keys = np.concatenate([[0], keys])
    groups = keys[np.diff(keys, prepend=-1) > 0]  # where groups of pictures begin
    picture = 3 * max(index.width * index.height, 1)
    most = max(1, min(MOST_FRAMES, MOST_DECODED // picture, MOST_PASSED // frames.step))
    places = np.arange(count, dtype=np.int64)
    read = np.cumsum(index.packets.sizes[index.order].astype(np.int64))[frames.start :: frames.step][:count]
    ends = np.minimum(places + most, np.searchsorted(read, read + MOST_READ, "right"))
    ends = np.maximum(ends, places + 1)
    aligned = groups[np.searchsorted(groups, ends, "right") - 1]
    following = np.where(ends >= count, count, np.where(aligned > places, aligned, ends)).tolist()
    starts = [0]
    while following[starts[-1]] < count:
        starts.append(following[starts[-1]])
    return starts, (np.searchsorted(groups, starts, "right") - 1).tolist()
