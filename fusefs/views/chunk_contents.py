"""`ChunkContents`: sizes and bytes of the files of one video or image folder in the view `chunks`.

Manifests are made of what the sources' headers say, chunks by the maker, and zips of original images of the
images themselves. A size that was told once is what every later `open` is held to. Lives on the event loop.
"""

from __future__ import annotations

from typing import Final

from fusefs.plain import BytesFile
from fusefs.spaces import OpenFile
from fusefs.views.chunk_reading import PieceFile, Pieces, ShardFile, open_zip
from fusefs.views.chunk_store import ChunkStore, Shown
from store.errors import ObjectCorrupt
from store.making.cvat_originals import OriginalZip, lay_out
from store.making.cvat_sources import ChunkedFolder
from store.making.cvat_tasks import MP4
from store.making.gathering import gather
from store.making.maker import Maker
from store.making.tasks import Task
from store.making.zipped import FIRST_MEMBER
from store.media.images import COMPRESSED_EXTENSION
from store.media.manifest_jsonl import index_of
from store.media.recipe import ChunksRecipe
from store.media.zips import ZipLayout, checksums_of
from store.shards.reader import ShardReader
from store.tree import UNKNOWN
from store.tree_files import TreeFiles

MANIFEST: Final = 0
INDEX: Final = 1
COMPRESSED: Final = 2
ORIGINAL: Final = 3
FIRST_CHUNK: Final = 4


def chunk_row(number: int, directory: int) -> int:
    """The row of a chunk in `COMPRESSED` or `ORIGINAL`."""
    return FIRST_CHUNK + 2 * number + (directory - COMPRESSED)


class ChunkContents:
    """What is in the files of `row`, a directory or a video of the tree."""

    def __init__(self, store: ChunkStore, files: TreeFiles, row: int, recipe: ChunksRecipe) -> None:
        self._store = store
        self._threads = store.engine.threads
        self._files = files
        self._row = row
        self._recipe = recipe

    @property
    def _maker(self) -> Maker:
        return self._store.engine.maker

    async def shown(self) -> Shown:
        """What there is. Raises as `ChunkStore.shown`."""
        return await self._store.shown(self._files, self._row, self._recipe)

    def size_now(self, shown: Shown, row: int) -> int | None:
        """The size of a file where it can be told without making or asking anything."""
        known = shown.sizes.get(row)
        if known is None and row >= FIRST_CHUNK:
            known = self._lay_out(shown, row)
            if known is not None:
                shown.sizes[row] = known
        return known

    async def size(self, shown: Shown, row: int) -> int:
        """The size of a file; raises as `open`."""
        known = self.size_now(shown, row)
        if known is not None:
            return known
        chunked = shown.chunked
        if row >= FIRST_CHUNK and isinstance(chunked, ChunkedFolder) and _is_original(row):
            layout = await self._lay_out_originals(chunked, row)
            return self._tell(shown, row, layout.size)
        opened = await self.open(shown, row)
        opened.close()
        return shown.sizes[row]

    async def open(self, shown: Shown, row: int) -> OpenFile:
        """Make a file, or find it made.

        Raises `MediaInvalid` where the content does not allow it, `InputError` for a zip that would be too
        large, and as the maker and `TreeFiles` do.
        """
        chunked = shown.chunked
        if row == MANIFEST:
            content = await self._manifest(shown)
            self._tell(shown, row, len(content))
            return BytesFile(content)
        if row == INDEX:
            content = await self._threads.on_disk(index_of, await self._manifest(shown))
            self._tell(shown, row, len(content))
            return BytesFile(content)
        if isinstance(chunked, ChunkedFolder) and _is_original(row):
            return await self._open_originals(chunked, row)
        pieces = Pieces(self._maker, self._store.held, _task(shown, row))
        if isinstance(chunked, ChunkedFolder):
            images = chunked.chunk_rows(_number(row)).tolist()
            await gather(self._maker, pieces.task, self._files, images)
        if pieces.task.maker == MP4:
            self._tell(shown, row, len(await pieces.get(0)))
            return PieceFile(pieces)
        opened, size = await open_zip(pieces, _extensions(shown, row))
        self._tell(shown, row, size)
        return opened

    def _lay_out(self, shown: Shown, row: int) -> int | None:
        """A chunk's size, if that of all that is in it is known."""
        chunked = shown.chunked
        if isinstance(chunked, ChunkedFolder) and _is_original(row):
            rows = chunked.chunk_rows(_number(row)).tolist()
            sizes = [self._files.sizes[image] for image in rows]
            return None if UNKNOWN in sizes else lay_out(self._files.tree, rows, sizes).size
        task = _task(shown, row)
        made = self._maker.sizes(task)
        if made is None or any(size < 0 for size in made):
            return None
        return (
            made[0]
            if task.maker == MP4
            else ZipLayout(_extensions(shown, row), tuple(made[FIRST_MEMBER:])).size
        )

    async def _lay_out_originals(self, chunked: ChunkedFolder, row: int) -> ZipLayout:
        rows = chunked.chunk_rows(_number(row)).tolist()
        await self._files.learn([image for image in rows if self._files.sizes[image] == UNKNOWN])
        return lay_out(self._files.tree, rows, [self._files.sizes[image] for image in rows])

    async def _open_originals(self, chunked: ChunkedFolder, row: int) -> OpenFile:
        rows = chunked.chunk_rows(_number(row)).tolist()
        checksums = Pieces(self._maker, self._store.held, chunked.checksums(_number(row)))
        await gather(self._maker, checksums.task, self._files, rows)
        known = checksums_of(await checksums.get(0))
        layout = await self._lay_out_originals(chunked, row)
        # Anew: to read an image may have corrected its size.
        self._tell(await self.shown(), row, layout.size)
        whole = OriginalZip(rows, layout, known)
        start_soon = self._store.engine.nursery.start_soon
        return ShardFile(ShardReader(self._files, whole, self._store.allowance, start_soon))

    async def _manifest(self, shown: Shown) -> bytes:
        key = ("manifest", self._files, self._row, self._recipe)
        return await self._store.held.get(key, lambda: shown.chunked.manifest(self._maker, self._threads))

    def _tell(self, shown: Shown, row: int, size: int) -> int:
        """A file's size; it stays what it was."""
        if shown.sizes.setdefault(row, size) != size:
            raise ObjectCorrupt(
                f"a file of the chunks of {self._files.tree.path(self._row)!r} has {size} bytes and had "
                f"{shown.sizes[row]}: another encoder made it; mount the version anew"
            )
        return size


def _is_original(row: int) -> bool:
    return bool(row & 1)


def _number(row: int) -> int:
    return (row - FIRST_CHUNK) // 2


def _task(shown: Shown, row: int) -> Task:
    chunked = shown.chunked
    series = chunked.compressed
    if _is_original(row) and not isinstance(chunked, ChunkedFolder):
        series = chunked.original
    task = series.task(_number(row))
    assert task is not None  # no other row was ever told
    return task


def _extensions(shown: Shown, row: int) -> tuple[str, ...]:
    """Of the members of a zip that is made."""
    chunked, number = shown.chunked, _number(row)
    if isinstance(chunked, ChunkedFolder):
        return (COMPRESSED_EXTENSION,) * len(chunked.numbering.chunk(number))
    return chunked.extensions(number, original=_is_original(row))
