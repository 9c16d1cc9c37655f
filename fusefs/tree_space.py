"""`TreeSpace`: one version's tree as the kernel sees it. Rows are the tree's own.

Lives on the event loop; a method without an `await` is atomic.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import pyfuse3

from fusefs.attributes import BLOCK_BYTES, PREFERRED_READ, AttributeWriter, absent
from fusefs.spaces import OpenFile, first_inode
from store.errors import ObjectCorrupt
from store.open_objects import OpenObject
from store.tree import ROOT_ROW, UNKNOWN
from store.tree_files import TreeFiles

LINK_MAX: Final = 4095
"""Bytes. The longest target of a symlink that Linux takes."""

DOTS: Final = (b".", b"..")
"""What every listing begins with: the kernel adds them not, and `ls -a` shows what is listed."""

OID: Final = b"user.fusefs.oid"
CACHED: Final = b"user.fusefs.cached"
VERIFIED: Final = b"user.fusefs.verified"
REV: Final = b"user.fusefs.rev"


class TreeFile:
    """An open file of a tree."""

    direct: Final = False

    def __init__(self, files: TreeFiles, row: int, opened: OpenObject) -> None:
        self._files = files
        self._row = row
        self._opened = opened

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        return await self._files.read(self._row, self._opened, offset, length)

    def close(self) -> None:
        self._files.close(self._opened)


class TreeDirectory:
    """A directory of a tree that is being listed."""

    def __init__(self, space: TreeSpace, row: int) -> None:
        self._space = space
        self._files = space.files
        self._row = row

    async def list(self, start: int, token: pyfuse3.ReaddirToken) -> None:
        tree, sizes = self._files.tree, self._files.sizes
        fill = self._space.writer_for_listing(self._row).fill
        reply, name_of = pyfuse3.readdir_reply, tree.name
        for place in range(start, len(DOTS)):
            row = tree.parent[self._row] if place else self._row
            if not reply(token, DOTS[place], fill(row, UNKNOWN), place + 1):
                return
        rows, first = tree.children(self._row), max(start - len(DOTS), 0)
        while first < len(rows):
            last = len(rows)
            if self._files.sizes_unknown:
                known = await self._files.learn_around(rows[first]) - rows.start
                # Meanwhile another version may have been put in this one's place.
                fill = self._space.writer_for_listing(self._row).fill
                last = min(last, known)
            for place in range(first, last):
                row = rows[place]
                if not reply(token, name_of(row), fill(row, sizes[row]), len(DOTS) + place + 1):
                    return
            first = last


class TreeSpace:
    """A version's tree at one place of the mount; its directories have the inodes of space `number`.

    A version may stand in several places, and the kernel allows a directory only one: met in another
    it is moved there, from under whoever works in it. So each place has directories of its own. Files may
    stand anywhere: theirs are the inodes of space `files_number`, one for all places, and what the
    kernel caches of them is there once.
    """

    def __init__(
        self,
        files: TreeFiles,
        *,
        number: int,
        files_number: int,
        uid: int,
        gid: int,
        umask: int,
        oid: str,
        rev: str,
        private_to: int = -1,
        preferred_read: int = PREFERRED_READ,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self.files = files
        self.tree = files.tree
        self.number = number
        self.oid = oid
        self.rev = rev
        self._new_writer = partial(
            AttributeWriter,
            files.tree,
            uid=uid,
            gid=gid,
            umask=umask,
            private_to=private_to,
            preferred_read=preferred_read,
            block_bytes=block_bytes,
            first_directory=first_inode(number),
            first_file=first_inode(files_number),
        )
        self._writer = self._new_writer()
        self._expiring: AttributeWriter | None = None

    def root_names(self) -> list[bytes]:
        """The names in the tree's root."""
        return [self.tree.name(row) for row in self.tree.children(ROOT_ROW)]

    def supersede(self) -> None:
        """Another version is shown at the mount's root now: what is listed here must not be kept there."""
        self._expiring = self._expiring or self._new_writer(entry_timeout=0)

    def restore(self) -> None:
        """This version is shown at the mount's root (again)."""
        self._expiring = None

    def writer_for_listing(self, row: int) -> AttributeWriter:
        """Fills the entries of a directory's listing. That of a former root outlives a switch, and
        its entries would be taken for the new root's: they share the root's inode."""
        return self._expiring if self._expiring is not None and row == ROOT_ROW else self._writer

    def capacity(self) -> tuple[int, int]:
        """Bytes, as far as they are known, and entries."""
        return self.files.bytes_known, self.tree.rows

    async def lookup(self, row: int, name: bytes) -> pyfuse3.EntryAttributes:
        if name in DOTS:  # asked for only when the mount is exported by NFS
            return self._writer.fill(self.tree.parent[row] if name == b".." else row, UNKNOWN)
        child = self.tree.lookup(row, name)
        return absent() if child is None else self._writer.fill(child, self.files.size_now(child))

    async def getattr(self, row: int) -> pyfuse3.EntryAttributes:
        size = UNKNOWN if self.tree.is_directory(row) else await self.files.size(row)
        return self._writer.fill(row, size)

    def root(self, timeout: float) -> pyfuse3.EntryAttributes:
        """The tree's root, under a name that holds for `timeout` seconds."""
        entry = self._writer.fill(ROOT_ROW, UNKNOWN)
        entry.entry_timeout = timeout
        return entry

    async def readlink(self, row: int) -> bytes:
        opened = await self.files.open(row)
        try:
            if opened.size > LINK_MAX:
                raise ObjectCorrupt(f"{self.tree.path(row)!r} is a link with a target of {opened.size} bytes")
            return bytes(await self.files.read(row, opened, 0, opened.size))
        finally:
            self.files.close(opened)

    def opendir(self, row: int) -> TreeDirectory:
        return TreeDirectory(self, row)

    async def open(self, row: int) -> OpenFile:
        return TreeFile(self.files, row, await self.files.open(row))

    def xattr_names(self, row: int) -> tuple[bytes, ...]:
        names: tuple[bytes, ...] = ()
        if not self.tree.is_directory(row):
            names = (OID, CACHED, VERIFIED)
        elif row == ROOT_ROW and self.oid:
            names = (OID,)
        return (*names, REV) if self.rev else names

    async def xattr(self, row: int, name: bytes) -> bytes | None:
        if name not in self.xattr_names(row):
            return None
        if name == OID:
            return (self.oid if self.tree.is_directory(row) else str(self.tree.oid(row))).encode()
        if name == CACHED:
            return b"1" if await self.files.is_cached(row) else b"0"
        if name == VERIFIED:
            return (await self.files.proof(row)).encode()
        return self.rev.encode()
