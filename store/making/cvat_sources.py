"""`ChunkedVideo` and `ChunkedFolder`: CVAT's chunks of one video or folder of a version, and its manifest.

`open_video` and `open_folder` learn what has to be known to say how many chunks there are: a video's index;
of a folder its frames, what a manifest in it says of their order, and the size of the first where CVAT's
rule asks for that. Nothing else is looked at.

On the event loop; what takes long is done in threads, and by the maker.
"""

from __future__ import annotations

from typing import Final

from store.errors import InputError, MediaInvalid, ObjectCorrupt
from store.making.cvat_images import sizes_of
from store.making.cvat_tasks import ImageChunks, VideoChunks, measuring
from store.making.gathering import make_each
from store.making.maker import Maker
from store.making.tasks import RowOrigin
from store.media.folders import Rows, frame_rows, path_below, related_rows
from store.media.index import VideoIndex
from store.media.manifest_jsonl import (
    LARGEST_MANIFEST,
    ImageEntry,
    KeyFrame,
    image_manifest,
    predefined_paths,
    video_manifest,
)
from store.media.numbering import Numbering, image_chunk_size
from store.media.ordering import PREDEFINED, VIDEO, kind_of
from store.media.packets import UNKNOWN
from store.media.recipe import ChunksRecipe
from store.threads import Threads
from store.tree import Tree
from store.tree_files import TreeFiles

MANIFEST_NAME: Final = "manifest.jsonl"
_BLOCK: Final = 1 << 20


class ChunkedVideo:
    """A video in chunks."""

    def __init__(self, origin: RowOrigin, index: VideoIndex, recipe: ChunksRecipe) -> None:
        """Blocking where there are millions of frames."""
        self._chunks = VideoChunks(origin, index, recipe)
        self._name = origin.name
        self.numbering: Final = self._chunks.numbering
        self.compressed: Final = self._chunks.compressed
        self.original: Final = self._chunks.original
        self.extensions: Final = self._chunks.extensions

    async def manifest(self, maker: Maker, threads: Threads) -> bytes:
        """`manifest.jsonl`: the whole video, whatever is selected of it."""
        return await threads.on_disk(_describe_video, self._name, self._chunks.index)


class ChunkedFolder:
    """The images below a directory in chunks. `rows` are those of its frames, in order."""

    def __init__(
        self, files: TreeFiles, folder: int, rows: Rows, numbering: Numbering, recipe: ChunksRecipe
    ) -> None:
        self.rows: Final = rows
        self.numbering: Final = numbering
        self._files = files
        self._folder = folder
        self._chunks = ImageChunks(numbering, recipe.quality, lambda n: RowOrigin(files, int(rows[n])))
        self.compressed: Final = self._chunks.compressed
        self.checksums: Final = self._chunks.checksums

    def chunk_rows(self, chunk: int) -> Rows:
        """The images of a chunk. Raises `IndexError`."""
        frames = self.numbering.chunk(chunk)
        return self.rows[frames.start : frames.stop : frames.step]

    async def manifest(self, maker: Maker, threads: Threads) -> bytes:
        """`manifest.jsonl`: the selected images, and a line for each that is left out before the last.

        Raises `MediaInvalid` for an image that cannot be read, and as `Maker.piece` does.
        """
        frames = self.numbering.frames
        rows = [int(self.rows[frame]) for frame in frames]
        sizes = await measure(maker, self._files, rows)
        return await threads.on_disk(self._describe, dict(zip(frames, sizes, strict=True)))

    def _describe(self, sizes: dict[int, tuple[int, int]]) -> bytes:
        tree, stop = self._files.tree, self.numbering.frames.stop

        def entry(frame: int) -> ImageEntry | None:
            if frame not in sizes:
                return None
            row = int(self.rows[frame])
            related = tuple(path_below(tree, self._folder, image) for image in related_rows(tree, row))
            return ImageEntry(path_below(tree, self._folder, row), *sizes[frame], related)

        return image_manifest(map(entry, range(stop)))


Chunked = ChunkedVideo | ChunkedFolder


def is_video(tree: Tree, row: int) -> bool:
    """Whether a file is one by its extension, which is what CVAT goes by."""
    name = tree.name(row).decode("utf-8", "surrogateescape")
    return not tree.is_symlink(row) and kind_of(name) == VIDEO


async def open_video(maker: Maker, threads: Threads, origin: RowOrigin, recipe: ChunksRecipe) -> ChunkedVideo:
    """Raises `MediaInvalid` for what is no video, and as `Maker.index` does."""
    index = await maker.index(origin)
    return await threads.on_disk(ChunkedVideo, origin, index, recipe)


async def open_folder(
    maker: Maker, threads: Threads, files: TreeFiles, folder: int, recipe: ChunksRecipe
) -> ChunkedFolder:
    """Raises `InputError` where the order is to be that of a manifest which is not there or does not hold,
    `MediaInvalid` for a first image that cannot be read, and as `TreeFiles.open` and `Maker.piece` do."""
    content = await _read_manifest(files, folder) if recipe.order == PREDEFINED else b""
    rows = await threads.on_disk(_find_rows, files.tree, folder, recipe.order, content)
    numbering = Numbering(len(rows), recipe.size or 1, recipe.selection)
    if recipe.size is None and numbering.size:
        (size,) = await measure(maker, files, [int(rows[numbering.frames[0]])])
        numbering = Numbering(len(rows), image_chunk_size(*size), recipe.selection)
    return ChunkedFolder(files, folder, rows, numbering, recipe)


async def measure(maker: Maker, files: TreeFiles, rows: list[int]) -> list[tuple[int, int]]:
    """Width and height of images as they are displayed.

    Raises `MediaInvalid` for one that cannot be read, and as `Maker.piece` does.
    """
    tasks, begin = [], 0
    for task, count in measuring([RowOrigin(files, row) for row in rows]):
        tasks.append((task, rows[begin : begin + count]))
        begin += count
    sizes = [size for piece in await make_each(maker, files, tasks) for size in sizes_of(piece)]
    if len(sizes) != len(rows):
        raise MediaInvalid("what was kept of images does not belong to them")
    if (0, 0) in sizes:
        path = files.tree.path(rows[sizes.index((0, 0))])
        raise MediaInvalid(
            f"{path!r} is no image that can be read, and CVAT takes no folder with such a one: "
            "a recipe with start= and stop= can leave it out"
        )
    return sizes


def _find_rows(tree: Tree, folder: int, order: str, manifest: bytes) -> Rows:
    try:
        predefined = predefined_paths(manifest) if order == PREDEFINED else ()
        return frame_rows(tree, folder, order, predefined)
    except InputError as error:
        raise InputError(f"{tree.path(folder)!r}: {error}") from error


async def _read_manifest(files: TreeFiles, folder: int) -> bytes:
    path = files.tree.path(folder)
    row = files.tree.lookup(folder, MANIFEST_NAME.encode())
    if row is None or files.tree.is_directory(row) or files.tree.is_symlink(row):
        raise InputError(f"{path!r} has no {MANIFEST_NAME}, and order={PREDEFINED} is the order of that")
    opened = await files.open(row)
    try:
        if opened.size > LARGEST_MANIFEST:
            raise InputError(f"{files.tree.path(row)!r} has more than {LARGEST_MANIFEST} bytes")
        content = bytearray()
        while len(content) < opened.size:
            piece = await files.read(row, opened, len(content), _BLOCK)
            if not piece:
                raise ObjectCorrupt(f"{files.tree.path(row)!r} ended before its end")
            content += piece
        return bytes(content)
    finally:
        files.close(opened)


def _describe_video(name: str, index: VideoIndex) -> bytes:
    width, height = index.width, index.height
    if round(index.rotation / 90) % 2:
        width, height = height, width
    numbers = index.key_frames() if index.by_time else index.key_frames()[:0]
    times = index.packets.pts[index.order[numbers]]
    keys = (
        KeyFrame(number, pts)
        for number, pts in zip(numbers.tolist(), times.tolist(), strict=True)
        if pts != UNKNOWN
    )
    return video_manifest(name, width, height, index.frame_count, keys)
