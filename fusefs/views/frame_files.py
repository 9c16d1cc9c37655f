"""`FrameFiles`: what is in the directory of a video: `frames.json`, and a file for each frame.

Row 0 is `frames.json`, row n + 1 the frame at place n of those that the recipe selects. A space of this kind
is made whenever it is asked for and remembers nothing. Lives on the event loop.
"""

from __future__ import annotations

import re
import stat
from typing import Final

import pyfuse3
import trio
import xxhash

from fusefs.attributes import BLOCK_BYTES, FOREVER, PREFERRED_READ, absent
from fusefs.content_times import time_of
from fusefs.plain import PlainSpace
from fusefs.spaces import OpenFile
from fusefs.tree_space import REV
from fusefs.views.frame_store import FrameStore, Video
from fusefs.views.frames_json import frame_name
from fusefs.views.mirror import MirrorSpace
from fusefs.views.view import Surroundings
from store.making.frame_chunks import version as frames_version
from store.making.tasks import RowOrigin
from store.media.recipe import FramesRecipe

TABLE_NAME: Final = b"frames.json"
TABLE_ROW: Final = 0
FIRST_FRAME: Final = 1
"""The row of the first frame."""
LISTED_AT_ONCE: Final = 1024
"""Entries. Between two such batches others get their turn."""
SOURCE: Final = b"user.fusefs.source"
KEY: Final = b"user.fusefs.key"

_NAME: Final = re.compile(rb"([0-9]{6,10})\.([a-z]+)")
_NANOSECONDS: Final = 10**9


class TableFile:
    """An open `frames.json`."""

    direct: Final = False

    def __init__(self, files: FrameFiles) -> None:
        self._files = files

    async def read(self, offset: int, length: int) -> bytes:
        return (await self._files.video()).table.read(offset, length)

    def close(self) -> None:
        pass


class FrameFile:
    """An open frame. Its bytes belong to the store: a loader may hold very many open."""

    direct: Final = False

    def __init__(self, files: FrameFiles, place: int) -> None:
        self._files = files
        self._place = place

    async def read(self, offset: int, length: int) -> memoryview:
        return memoryview(await self._files.frame(self._place))[offset : offset + length]

    def close(self) -> None:
        pass


class FrameFiles(PlainSpace):
    """The files of one video by one recipe: a `Space`."""

    def __init__(
        self,
        origin: RowOrigin,
        recipe: FramesRecipe,
        store: FrameStore,
        mirror: MirrorSpace,
        surroundings: Surroundings,
        told: set[range],
    ) -> None:
        self._origin = origin
        self.recipe = recipe
        self.store = store
        self._told = told
        self._rev = mirror.rev
        self._first = mirror.first_inside(origin.row)
        self._entry = _blank(surroundings)
        # Whatever the bytes follow from, so that another decoder's files have other times.
        follows = f"{origin.oid} {recipe} {frames_version()}"
        seconds = time_of(xxhash.xxh32_intdigest(follows.encode()))
        self._entry.st_mtime_ns = self._entry.st_ctime_ns = self._entry.st_atime_ns = seconds * _NANOSECONDS

    async def video(self) -> Video:
        """Raises `MediaInvalid` for what is none, and as `Maker.index` does."""
        return await self.store.video(self._origin, self.recipe)

    async def frame(self, place: int) -> bytes:
        """A frame's bytes; raises as `FrameStore.frame`."""
        video = await self.video()
        self.note(video, place)
        return await self.store.frame(video, place)

    def note(self, video: Video, place: int) -> None:
        """Remember that something was told of a frame, or of one that is made with it."""
        self._told.add(video.chunks.places(video.chunks.find(place)[0]))

    def fill(self, row: int, size: int | None) -> pyfuse3.EntryAttributes:
        """The attributes of a row; the same object every time."""
        entry = self._entry
        entry.st_ino = pyfuse3.InodeT(self._first + row)
        entry.st_size = size or 0
        entry.st_blocks = -(-entry.st_size // BLOCK_BYTES)
        entry.attr_timeout = 0 if size is None else FOREVER
        return entry

    async def lookup(self, row: int, name: bytes) -> pyfuse3.EntryAttributes:
        return absent()  # there are no directories here

    async def getattr(self, row: int) -> pyfuse3.EntryAttributes:
        """Makes a frame whose size nothing else tells."""
        video = await self.video()
        if row == TABLE_ROW:
            return self.fill(row, video.table.size)
        place = row - FIRST_FRAME
        self.note(video, place)
        size = self.store.size(video, place)
        return self.fill(row, len(await self.store.frame(video, place)) if size is None else size)

    async def open(self, row: int) -> OpenFile:
        """Makes a frame that was not made yet: an `open` may wait in numbers, a read of the kernel's not."""
        video = await self.video()
        if row == TABLE_ROW:
            return TableFile(self)
        place = row - FIRST_FRAME
        if not self.store.is_made(video, place):
            await self.store.frame(video, place)
        return FrameFile(self, place)

    def xattr_names(self, row: int) -> tuple[bytes, ...]:
        names = (SOURCE,) if row == TABLE_ROW else (SOURCE, KEY)
        return (*names, REV) if self._rev else names

    async def xattr(self, row: int, name: bytes) -> bytes | None:
        if name not in self.xattr_names(row):
            return None
        if name == SOURCE:
            return str(self._origin.oid).encode()
        if name == KEY:
            task, _ = (await self.video()).find(row - FIRST_FRAME)
            return task.key.encode()
        return self._rev.encode()


class FramesInside:
    """The same files as what is in the video's directory: see `Inside`."""

    def __init__(self, files: FrameFiles) -> None:
        self._files = files

    async def lookup(self, name: bytes) -> pyfuse3.EntryAttributes:
        """See `Inside`."""
        video = await self._files.video()
        if name == TABLE_NAME:
            return self._files.fill(TABLE_ROW, video.table.size)
        match = _NAME.fullmatch(name)
        if match is None:
            return absent()
        number, form = int(match[1]), self._files.recipe.encoding.form
        if number not in video.frames or name != frame_name(number, form).encode():
            return absent()
        place = video.frames.index(number)
        self._files.note(video, place)
        return self._files.fill(FIRST_FRAME + place, self._files.store.size(video, place))

    async def list(self, start: int, base: int, token: pyfuse3.ReaddirToken) -> None:
        """See `Inside`."""
        video = await self._files.video()
        if start == TABLE_ROW:
            entry = self._files.fill(TABLE_ROW, video.table.size)
            if not pyfuse3.readdir_reply(token, TABLE_NAME, entry, base + 1):
                return
        form = self._files.recipe.encoding.form
        first, count = max(start - FIRST_FRAME, 0), len(video.frames)
        while first < count:
            places = range(first, min(first + LISTED_AT_ONCE, count))
            for place, size in zip(places, self._files.store.sizes(video, places), strict=True):
                if size is not None and video.exact is None:
                    self._files.note(video, place)
                entry = self._files.fill(FIRST_FRAME + place, size)
                name = frame_name(video.frames[place], form).encode()
                if not pyfuse3.readdir_reply(token, name, entry, base + FIRST_FRAME + place + 1):
                    return
            first = places.stop
            await trio.lowlevel.checkpoint()


def _blank(surroundings: Surroundings) -> pyfuse3.EntryAttributes:
    entry = pyfuse3.EntryAttributes()
    entry.st_mode = pyfuse3.ModeT(stat.S_IFREG | (0o666 & ~surroundings.umask))
    entry.st_nlink = 1
    entry.st_uid, entry.st_gid = surroundings.uid, surroundings.gid
    entry.st_blksize = PREFERRED_READ
    entry.entry_timeout = FOREVER
    return entry
