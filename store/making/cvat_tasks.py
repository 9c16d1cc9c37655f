"""`VideoChunks` and `ImageChunks`: what there is to make of a video or a folder of images in CVAT's chunks.

A product's recipe names what its bytes follow from and nothing else, so recipes that differ in other things
share it. Pure; on the event loop, where origins belong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from store.making.cvat_images import CHECKSUMS_VERSION, IMAGES_VERSION
from store.making.cvat_video import VIDEO_VERSION
from store.making.indexes import index_task
from store.making.tasks import Origin, Series, Task
from store.media.images import COMPRESSED_EXTENSION
from store.media.index import VideoIndex
from store.media.numbering import VIDEO_CHUNK, Numbering
from store.media.ordering import LEXICOGRAPHICAL
from store.media.recipe import DEFAULT_CHUNK_QUALITY, ChunksRecipe

MP4: Final = "chunk-mp4"
JPEGS: Final = "chunk-jpegs"
PNGS: Final = "chunk-pngs"
MEMBERS: Final = "chunk-images"
SIZES: Final = "image-sizes"
CHECKSUMS: Final = "checksums"

MEASURED_AT_ONCE: Final = 1024
"""Images whose sizes are one product."""
_CUT: Final = 0xFF
"""And it ends behind an image whose oid ends so: about every 256th, whatever comes before."""


class VideoChunks:
    """The chunks of a video's selected frames, for one recipe."""

    def __init__(self, origin: Origin, index: VideoIndex, recipe: ChunksRecipe) -> None:
        """Some tenths of a second where there are millions of frames."""
        self.index = index
        self.numbering = Numbering(index.frame_count, recipe.size or VIDEO_CHUNK, recipe.selection)
        canonical = replace(recipe, size=self.numbering.chunk_size, order=LEXICOGRAPHICAL, zipped=False)
        self.compressed: Series = _VideoSeries(self, origin, canonical, JPEGS if recipe.zipped else MP4)
        frames = self.numbering.frames[:: self.numbering.chunk_size]
        packets = index.order[frames.start : frames.stop : frames.step]
        groups = np.searchsorted(index.starts, packets, "right")
        self._runs = np.unique(groups, return_inverse=True)[1].astype(np.int32)
        lossless = replace(canonical, quality=DEFAULT_CHUNK_QUALITY)
        self.original: Series = _VideoSeries(self, origin, lossless, PNGS)

    def run_of(self, chunk: int) -> int:
        """See `Series`: chunks that begin in the same group of pictures are a run."""
        return int(self._runs[chunk])

    def extensions(self, chunk: int, *, original: bool) -> tuple[str, ...]:
        """Of the members of a chunk's zip, without dot. Raises `IndexError`."""
        return ("png" if original else COMPRESSED_EXTENSION,) * len(self.numbering.chunk(chunk))


@dataclass(frozen=True, slots=True)
class _VideoSeries:
    chunks: VideoChunks
    origin: Origin
    recipe: ChunksRecipe
    maker: str

    def task(self, chunk: int) -> Task | None:
        """See `Series`."""
        if not 0 <= chunk < self.chunks.numbering.chunk_count:
            return None
        frames = self.chunks.numbering.chunk(chunk)
        return Task(
            self.maker,
            VIDEO_VERSION,
            str(self.recipe),
            (self.origin,),
            chunk,
            {"frames": [frames.start, frames.stop, frames.step], "quality": self.recipe.quality},
            1 if self.maker == MP4 else len(frames) + 1,
            (index_task(self.origin),),
            self,
        )

    def run_of(self, chunk: int) -> int:
        """See `Series`."""
        return self.chunks.run_of(chunk)


class ImageChunks:
    """The chunks of a folder's frames. `origin_of` gives the origin of an absolute frame."""

    def __init__(self, numbering: Numbering, quality: int, origin_of: Callable[[int], Origin]) -> None:
        self.numbering = numbering
        self.compressed: Series = _ImageSeries(self, quality)
        self._origin_of = origin_of

    def origins(self, chunk: int) -> tuple[Origin, ...]:
        """The images of a chunk. Raises `IndexError`."""
        return tuple(map(self._origin_of, self.numbering.chunk(chunk)))

    def checksums(self, chunk: int) -> Task:
        """One piece: the checksums of a chunk's images. Raises `IndexError`."""
        return Task(CHECKSUMS, CHECKSUMS_VERSION, "", self.origins(chunk), pieces=1)


@dataclass(frozen=True, slots=True)
class _ImageSeries:
    chunks: ImageChunks
    quality: int

    def task(self, chunk: int) -> Task | None:
        """See `Series`."""
        if not 0 <= chunk < self.chunks.numbering.chunk_count:
            return None
        origins = self.chunks.origins(chunk)
        arguments = {"quality": self.quality}
        recipe = f"quality={self.quality}"
        return Task(MEMBERS, IMAGES_VERSION, recipe, origins, chunk, arguments, len(origins) + 1, series=self)

    def run_of(self, chunk: int) -> int:
        """See `Series`: what was done for one chunk is of no use for another."""
        return chunk


def measuring(origins: Sequence[Origin]) -> Iterator[tuple[Task, int]]:
    """The tasks that tell the sizes of images, in order, and of how many each: see `sizes_of`.

    Where a batch ends follows from the contents, so that one image more or less changes one of them.
    """
    batch: list[Origin] = []
    for origin in origins:
        batch.append(origin)
        if origin.oid.raw[-1] == _CUT or len(batch) == MEASURED_AT_ONCE:
            yield _measure(batch), len(batch)
            batch = []
    if batch:
        yield _measure(batch), len(batch)


def _measure(batch: list[Origin]) -> Task:
    return Task(SIZES, IMAGES_VERSION, "", tuple(batch), pieces=1)
