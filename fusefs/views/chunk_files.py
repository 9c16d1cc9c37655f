"""`ChunkFiles`: what is in the directory of a video or an image folder beside the version's own directories.

    manifest.jsonl  index.json  compressed/<n>.zip or .mp4  original/<n>.zip

Rows 0 and 1 are the manifest and its index, 2 and 3 the directories, and behind them chunk n has two rows:
the compressed one and the original. A space of this kind is made whenever it is asked for; what it knows is
in the store. Nothing is made for a listing. Lives on the event loop.
"""

from __future__ import annotations

import re
import stat
from typing import Final

import pyfuse3
import trio
import xxhash

from fusefs.attributes import BLOCK_BYTES, DIRECTORY_BYTES, FOREVER, PREFERRED_READ, absent
from fusefs.content_times import time_of
from fusefs.errnos import EISDIR
from fusefs.plain import PlainSpace
from fusefs.spaces import OpenFile
from fusefs.tree_space import DOTS, REV
from fusefs.views.chunk_contents import (
    COMPRESSED,
    ORIGINAL,
    ChunkContents,
    chunk_row,
)
from fusefs.views.chunk_store import ChunkStore
from fusefs.views.mirror import MirrorSpace
from fusefs.views.view import Surroundings
from store.making.cvat_images import IMAGES_VERSION
from store.making.cvat_video import VIDEO_VERSION
from store.media.recipe import ChunksRecipe

NAMES: Final = (b"manifest.jsonl", b"index.json", b"compressed", b"original")
"""By row."""
OTHERWISE: Final = b"-chunks"
"""What follows a name that the version has a directory of."""
LISTED_AT_ONCE: Final = 256
"""Chunks. Between two such batches others get their turn."""

_CHUNK: Final = re.compile(rb"(0|[1-9][0-9]{0,9})\.(zip|mp4)")
_NANOSECONDS: Final = 10**9


class ChunkFiles(PlainSpace):
    """The files of one row of the tree by one recipe: a `Space`."""

    def __init__(
        self,
        row: int,
        recipe: ChunksRecipe,
        store: ChunkStore,
        mirror: MirrorSpace,
        surroundings: Surroundings,
    ) -> None:
        self._row = row
        self._mirror = mirror
        self._first = mirror.first_inside(row)
        self._directory_mode = pyfuse3.ModeT(stat.S_IFDIR | (0o777 & ~surroundings.umask))
        self._file_mode = pyfuse3.ModeT(stat.S_IFREG | (0o666 & ~surroundings.umask))
        self._owner = surroundings.uid, surroundings.gid
        self.contents = ChunkContents(store, mirror.files, row, recipe)
        is_folder = mirror.tree.is_directory(row)
        self._extension = b"zip" if is_folder or recipe.zipped else b"mp4"
        # Whatever the bytes follow from, so that another encoder's files have other times.
        follows = f"{recipe} {IMAGES_VERSION if is_folder else VIDEO_VERSION}".encode()
        self._seconds = time_of(xxhash.xxh32_intdigest(mirror.tree.digest_of(row) + follows))

    def fill(self, row: int, size: int | None = None) -> pyfuse3.EntryAttributes:
        """The attributes of a row; `size` is None for a directory, and where it is not known."""
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(self._first + row)
        entry.st_uid, entry.st_gid = self._owner
        entry.st_blksize = PREFERRED_READ
        entry.entry_timeout = entry.attr_timeout = FOREVER
        entry.st_mtime_ns = entry.st_ctime_ns = entry.st_atime_ns = self._seconds * _NANOSECONDS
        if row in (COMPRESSED, ORIGINAL):
            entry.st_mode, entry.st_nlink, entry.st_size = self._directory_mode, 2, DIRECTORY_BYTES
            return entry
        entry.st_mode, entry.st_nlink = self._file_mode, 1
        if size is None:
            entry.attr_timeout = 0  # upon which the kernel asks again before it is used
        entry.st_size = size or 0
        entry.st_blocks = -(-entry.st_size // BLOCK_BYTES)
        return entry

    def parent(self) -> pyfuse3.EntryAttributes:
        """The directory that the two are in."""
        return self._mirror.fill(self._row)

    def chunk_name(self, number: int, directory: int) -> bytes:
        """What a chunk is called in one of the two directories."""
        return b"%d.%s" % (number, self._extension if directory == COMPRESSED else b"zip")

    async def lookup(self, row: int, name: bytes) -> pyfuse3.EntryAttributes:
        if name in DOTS:  # asked for only when the mount is exported by NFS
            return self.fill(row) if name == b"." else self.parent()
        match = _CHUNK.fullmatch(name)
        if match is None or name != self.chunk_name(int(match[1]), row):
            return absent()
        shown = await self.contents.shown()
        number = int(match[1])
        if number >= shown.chunked.numbering.chunk_count:
            return absent()
        file = chunk_row(number, row)
        return self.fill(file, self.contents.size_now(shown, file))

    async def getattr(self, row: int) -> pyfuse3.EntryAttributes:
        """Makes what nothing else tells the size of."""
        if row in (COMPRESSED, ORIGINAL):
            return self.fill(row)
        return self.fill(row, await self.contents.size(await self.contents.shown(), row))

    def opendir(self, row: int) -> ChunksListing:
        return ChunksListing(self, row)

    async def open(self, row: int) -> OpenFile:
        """Makes what was not made yet: an `open` may wait in numbers, a read of the kernel's not."""
        if row in (COMPRESSED, ORIGINAL):
            raise pyfuse3.FUSEError(EISDIR)
        return await self.contents.open(await self.contents.shown(), row)

    def xattr_names(self, row: int) -> tuple[bytes, ...]:
        return (REV,) if self._mirror.rev else ()

    async def xattr(self, row: int, name: bytes) -> bytes | None:
        return self._mirror.rev.encode() if name in self.xattr_names(row) else None


class ChunksListing:
    """The listing of `compressed` or `original`."""

    def __init__(self, files: ChunkFiles, directory: int) -> None:
        self._files = files
        self._directory = directory

    async def list(self, start: int, token: pyfuse3.ReaddirToken) -> None:
        files = self._files
        shown = await files.contents.shown()
        dots = (files.fill(self._directory), files.parent())
        for place in range(start, len(DOTS)):
            if not pyfuse3.readdir_reply(token, DOTS[place], dots[place], place + 1):
                return
        for number in range(max(start - len(DOTS), 0), shown.chunked.numbering.chunk_count):
            row = chunk_row(number, self._directory)
            entry = files.fill(row, shown.sizes.get(row))  # what `stat` says of others is asked then
            name = files.chunk_name(number, self._directory)
            if not pyfuse3.readdir_reply(token, name, entry, len(DOTS) + number + 1):
                return
            if number % LISTED_AT_ONCE == LISTED_AT_ONCE - 1:
                await trio.lowlevel.checkpoint()


class ChunksInside:
    """The files and directories as they stand in the directory of a row: see `Inside`."""

    def __init__(self, files: ChunkFiles, mirror: MirrorSpace, row: int) -> None:
        self._files = files
        self._mirror = mirror
        self._row = row

    def names(self) -> list[bytes]:
        """What they are called, by row: where the version has a directory of that name, it keeps the name."""
        tree, names = self._mirror.tree, []
        for name in NAMES:
            while (child := tree.lookup(self._row, name)) is not None and self._mirror.lists(child):
                name += OTHERWISE
            names.append(name)
        return names

    async def lookup(self, name: bytes) -> pyfuse3.EntryAttributes:
        """See `Inside`."""
        names = self.names()
        return self._files.fill(names.index(name)) if name in names else absent()

    async def list(self, start: int, base: int, token: pyfuse3.ReaddirToken) -> None:
        """See `Inside`."""
        names = self.names()
        for row in range(start, len(names)):
            entry = self._files.fill(row)
            entry.entry_timeout = self._mirror.fill(self._row, self._row).entry_timeout
            if not pyfuse3.readdir_reply(token, names[row], entry, base + row + 1):
                return
