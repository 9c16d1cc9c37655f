"""The pyfuse3 handlers: translation between the kernel's requests and the store, nothing more.

Inode = row + `first_inode`, so no table of inodes is kept and `forget` has nothing to do. A
handle names its file, because `read` gets the handle and not the inode. Everything runs on the
event loop; a handler without an `await` is atomic.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import pyfuse3

from fusefs.attributes import DIRECTORY_BYTES, AttributeWriter, absent
from fusefs.control import CONTROL_INODE, ControlDirectory
from fusefs.errnos import EISDIR, ENAMETOOLONG, ENODATA, answering
from store.content_store import ContentStore, OpenObject
from store.manifest import NAME_MAX
from store.tree import ROOT_ROW, UNKNOWN, Tree

log = logging.getLogger(__name__)

SIZES_AHEAD: Final = 512
"""Rows of a listing whose sizes are asked for together: a hop to a thread costs as much as twenty answers."""

XATTR: Final = b"user.fusefs."

DOTS: Final = (b".", b"..")
"""What every listing begins with: the kernel adds them not, and `ls -a` shows what is listed."""


@dataclass(slots=True)
class OpenDirectory:
    """A directory that is being listed; the sizes of its first `asked` children have been asked for."""

    inode: int
    asked: int = 0


class Operations(pyfuse3.Operations):
    """Serves one tree, read-only."""

    def __init__(
        self,
        tree: Tree,
        store: ContentStore,
        writer: AttributeWriter,
        control: ControlDirectory,
        *,
        oid: str,
        rev: str,
    ) -> None:
        super().__init__()
        self._tree = tree
        self._store = store
        self._writer = writer
        self._control = control
        self._oid = oid
        self._rev = rev
        self._first_inode = writer.first_inode
        self._files: dict[int, OpenObject | bytes] = {}
        self._directories: dict[int, OpenDirectory] = {}
        self._last_handle = 0

    def failed(self, message: str) -> None:
        """Count a failed request and say why in the log. Called by `answering`."""
        self._store.counters.errors += 1
        if message:
            log.error("%s", message)

    def close_all(self) -> None:
        """Close what readers still held when the mount ended."""
        for opened in self._files.values():
            if isinstance(opened, OpenObject):
                self._store.close(opened)
        self._files.clear()

    # Names and attributes

    @answering
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if self._control.owns(parent_inode):
            return self._lookup_control(parent_inode, name)
        if len(name) > NAME_MAX:  # the kernel stops at 1024 only
            raise pyfuse3.FUSEError(ENAMETOOLONG)
        parent = parent_inode - self._first_inode
        if name in (b".", b".."):  # asked for only when the mount is exported by NFS
            return self._writer.fill(parent if name == b"." else self._tree.parent[parent], UNKNOWN)
        row = self._tree.lookup(parent, name)
        if row is None:
            if parent == ROOT_ROW and name == self._control.name:
                return self._control.attributes(CONTROL_INODE)
            return absent()
        return self._writer.fill(row, self._store.size_now(row))

    def _lookup_control(self, parent_inode: int, name: bytes) -> pyfuse3.EntryAttributes:
        if name == b".":
            return self._control.attributes(parent_inode)
        if name == b"..":
            return self._writer.fill(ROOT_ROW, UNKNOWN)
        inode = self._control.lookup(name)
        return absent() if inode is None else self._control.attributes(inode)

    @answering
    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        if self._control.owns(inode):
            return self._control.attributes(inode)
        row = inode - self._first_inode
        if self._tree.is_directory(row):
            return self._writer.fill(row, UNKNOWN)
        size = self._store.sizes[row]
        if size == UNKNOWN:
            size = await self._store.size(row)
        return self._writer.fill(row, size)

    @answering
    async def opendir(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        handle = self._new_handle()
        self._directories[handle] = OpenDirectory(inode)
        return handle

    @answering
    async def readdir(self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        directory = self._directories[fh]
        if self._control.owns(directory.inode):
            self._list_control(start_id, token)
            return
        tree, fill, sizes = self._tree, self._writer.fill, self._store.sizes
        reply, name_of = pyfuse3.readdir_reply, tree.name
        row = directory.inode - self._first_inode
        for place in range(start_id, len(DOTS)):
            if not reply(token, DOTS[place], fill(tree.parent[row] if place else row, UNKNOWN), place + 1):
                return
        rows, start = tree.children(row), max(start_id - len(DOTS), 0)
        if self._store.sizes_unknown and start >= directory.asked:
            directory.asked = start + SIZES_AHEAD
            await self._store.learn_sizes(rows[start : directory.asked])
        for place in range(start, len(rows)):
            row = rows[place]
            if not reply(token, name_of(row), fill(row, sizes[row]), len(DOTS) + place + 1):
                break

    def _list_control(self, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        attributes = self._control.attributes
        entries = [(name, attributes(inode)) for name, inode in self._control.entries()]
        dots = [(DOTS[0], attributes(CONTROL_INODE)), (DOTS[1], self._writer.fill(ROOT_ROW, UNKNOWN))]
        for place, (name, entry) in list(enumerate([*dots, *entries], 1))[start_id:]:
            if not pyfuse3.readdir_reply(token, name, entry, place):
                return

    @answering
    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        self._directories.pop(fh, None)

    # Bytes

    @answering
    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        if self._control.owns(inode):
            if self._control.is_directory(inode):
                raise pyfuse3.FUSEError(EISDIR)
            handle = self._new_handle()
            self._files[handle] = self._control.content(inode)
            return pyfuse3.FileInfo(fh=handle, direct_io=True)
        opened = await self._store.open(inode - self._first_inode)
        handle = self._new_handle()
        self._files[handle] = opened
        return pyfuse3.FileInfo(fh=handle, keep_cache=True)

    @answering
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        opened = self._files[fh]
        if isinstance(opened, bytes):
            return opened[off : off + size]
        # pyfuse3 takes any buffer, whatever it declares, and copies it before the next checkpoint.
        return cast(bytes, await self._store.read(opened, off, size))

    @answering
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        opened = self._files.pop(fh, None)
        if isinstance(opened, OpenObject):
            self._store.close(opened)

    # The rest

    @answering
    async def getxattr(
        self, inode: pyfuse3.InodeT, name: pyfuse3.XAttrNameT, ctx: pyfuse3.RequestContext
    ) -> bytes:
        if not name.startswith(XATTR) or self._control.owns(inode):
            raise pyfuse3.FUSEError(ENODATA)
        value = self._xattrs(inode).get(name)
        if name == XATTR + b"cached" and not self._tree.is_directory(inode - self._first_inode):
            value = b"1" if await self._store.is_cached(inode - self._first_inode) else b"0"
        if value is None:
            raise pyfuse3.FUSEError(ENODATA)
        return value

    @answering
    async def listxattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> Sequence[pyfuse3.XAttrNameT]:
        return [] if self._control.owns(inode) else [pyfuse3.XAttrNameT(name) for name in self._xattrs(inode)]

    def _xattrs(self, inode: int) -> dict[bytes, bytes]:
        """A row's extended attributes; the value of `cached` is filled in by whoever needs it."""
        row = inode - self._first_inode
        values = {}
        if not self._tree.is_directory(row):
            values[XATTR + b"oid"] = str(self._tree.oid(row)).encode()
            values[XATTR + b"cached"] = b""
        elif row == ROOT_ROW and self._oid:
            values[XATTR + b"oid"] = self._oid.encode()
        if self._rev:
            values[XATTR + b"rev"] = self._rev.encode()
        return values

    @answering
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = DIRECTORY_BYTES
        data.f_blocks = -(-self._store.bytes_known // DIRECTORY_BYTES)
        data.f_bfree = data.f_bavail = 0
        data.f_files = self._tree.rows
        data.f_ffree = data.f_favail = 0
        data.f_namemax = NAME_MAX
        return data

    def _new_handle(self) -> pyfuse3.FileHandleT:
        self._last_handle += 1
        return pyfuse3.FileHandleT(self._last_handle)
