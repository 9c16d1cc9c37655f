"""The pyfuse3 handlers: translation between the kernel's requests and the spaces, nothing more.

An inode says which space answers for it (`fusefs.spaces`), so no table of inodes is kept and
`forget` has nothing to do. A handle names its file, because `read` gets the handle and not the
inode; one that another daemon gave, which was killed, is opened again (`fusefs.handles`). Everything runs on
the event loop; a handler without an `await` is atomic.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, cast

import pyfuse3
import trio

from fusefs.attributes import DIRECTORY_BYTES
from fusefs.control import DIRECTORY_ROW, control_name
from fusefs.errnos import ENAMETOOLONG, ENODATA, ESTALE, answering
from fusefs.handles import Handles
from fusefs.spaces import CONTROL_SPACE, OpenDirectory, OpenFile, Space, first_inode, locate
from fusefs.views.numbers import Numbers
from store.content_store import Counters
from store.tree import NAME_MAX, ROOT_ROW, Tree

log = logging.getLogger(__name__)

XATTRS: Final = (b"user.fusefs.", b"trusted.overlay.", b"user.overlay.")
"""What spaces have: ours, and in native mode what the overlay asks for."""


class Operations(pyfuse3.Operations):
    """Serves whatever space is shown at the root, the control directory in it, and those that are added."""

    def __init__(self, counters: Counters, requests: dict[str, int], handles: Handles | None = None) -> None:
        super().__init__()
        self.requests = requests
        self._counters = counters
        self.numbers = Numbers()
        """Those of the spaces of views, which are found by it."""
        self._spaces: dict[int, Space] = {}
        self._root: Space
        self._controls: dict[int, tuple[bytes, int]] = {}
        self._files: dict[int, OpenFile] = {}
        self._directories: dict[int, OpenDirectory] = {}
        self._handles = handles or Handles()
        self._root_inode = int(pyfuse3.ROOT_INODE)
        self._opening: dict[int, trio.Event] = {}

    def add(self, number: int, space: Space) -> None:
        """Answer for the inodes of a space from now on."""
        self._spaces[number] = space

    def show(self, root: Space, tree: Tree | None, number: int = 0) -> None:
        """Show the first row of a space at the root, instead of what was shown there; `tree` is the version's
        that is seen in it, `number` the space's."""
        self._root = root
        self._root_inode = first_inode(number)
        self.put_control(pyfuse3.ROOT_INODE, tree, CONTROL_SPACE)

    def put_control(self, inode: int, tree: Tree | None, number: int) -> None:
        """Have a control directory, of the space `number`, in the root `inode` that shows `tree`."""
        self._controls[inode] = (control_name(tree), number)

    def failed(self, message: str) -> None:
        """Count a failed request and say why in the log. Called by `answering`."""
        self._counters.errors += 1
        if message:
            log.error("%s", message)

    @property
    def open_files(self) -> int:
        """How many files readers have open through us."""
        return self._handles.files

    def close_all(self) -> None:
        """Close what readers still held when the mount ended."""
        for opened in self._files.values():
            opened.close()
        self._files.clear()

    def _at(self, inode: int) -> tuple[Space, int]:
        """Who answers for an inode. The root's is 1 whichever version is shown there."""
        if inode == pyfuse3.ROOT_INODE:
            return self._root, ROOT_ROW
        number, row = locate(inode)
        space = self._spaces.get(number)
        if space is None:
            try:
                space = self.numbers.find(number)
            except KeyError:  # of a daemon before us, and could not be found again: never another one
                raise pyfuse3.FUSEError(ESTALE) from None
        return space, row

    # Names and attributes

    @answering
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if len(name) > NAME_MAX:  # the kernel stops at 1024 only
            raise pyfuse3.FUSEError(ENAMETOOLONG)
        control = self._controls.get(parent_inode)
        if control is not None and control[0] == name:
            return await self._spaces[control[1]].getattr(DIRECTORY_ROW)
        space, row = self._at(parent_inode)
        return await space.lookup(row, name)

    @answering
    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        space, row = self._at(inode)
        return await space.getattr(row)

    @answering
    async def readlink(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileNameT:
        space, row = self._at(inode)
        return pyfuse3.FileNameT(await space.readlink(row))

    @answering
    async def opendir(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        space, row = self._at(inode)
        opened = space.opendir(row)
        # A listing goes on with what is at the root now, whatever comes there.
        own = self._root_inode if inode == pyfuse3.ROOT_INODE else inode
        handle = pyfuse3.FileHandleT(self._handles.take(own, directory=True))
        self._directories[handle] = opened
        return handle

    @answering
    async def readdir(self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        opened = self._directories.get(fh)
        if opened is None:
            space, row = self._at(self._left(fh))
            opened = self._directories[fh] = space.opendir(row)
        await opened.list(start_id, token)

    @answering
    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        self._directories.pop(fh, None)
        self._handles.give_back(fh, directory=True)

    # Bytes

    @answering
    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        space, row = self._at(inode)
        opened = await space.open(row)
        handle = pyfuse3.FileHandleT(self._handles.take(inode))
        self._files[handle] = opened
        return pyfuse3.FileInfo(fh=handle, direct_io=opened.direct, keep_cache=not opened.direct)

    @answering
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        # pyfuse3 takes any buffer, whatever it declares, and copies it before the next checkpoint.
        opened = self._files.get(fh) or await self._open_again(fh)
        return cast(bytes, await opened.read(off, size))

    @answering
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        opened = self._files.pop(fh, None)
        self._handles.give_back(fh)
        if opened is not None:
            opened.close()

    def _left(self, handle: int) -> pyfuse3.InodeT:
        """What a handle of the daemon before us stands for."""
        try:
            return pyfuse3.InodeT(self._handles.find(handle))
        except KeyError:
            raise pyfuse3.FUSEError(ESTALE) from None

    async def _open_again(self, handle: int) -> OpenFile:
        """A file that the daemon before us had open. Reads of it come several at a time."""
        while (other := self._opening.get(handle)) is not None:
            await other.wait()
        opened = self._files.get(handle)
        if opened is not None:
            return opened
        space, row = self._at(self._left(handle))
        done = self._opening[handle] = trio.Event()
        try:
            opened = await space.open(row)
        finally:
            del self._opening[handle]
            done.set()
        if opened.direct:  # made at `open`: the rest of what was read before is gone
            opened.close()
            raise pyfuse3.FUSEError(ESTALE)
        self._files[handle] = opened
        return opened

    # The rest

    @answering
    async def getxattr(
        self, inode: pyfuse3.InodeT, name: pyfuse3.XAttrNameT, ctx: pyfuse3.RequestContext
    ) -> bytes:
        value = None
        if name.startswith(XATTRS):
            space, row = self._at(inode)
            value = await space.xattr(row, name)
        if value is None:
            raise pyfuse3.FUSEError(ENODATA)
        return value

    @answering
    async def listxattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> Sequence[pyfuse3.XAttrNameT]:
        space, row = self._at(inode)
        return [pyfuse3.XAttrNameT(name) for name in space.xattr_names(row)]

    @answering
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = DIRECTORY_BYTES
        size, entries = self._root.capacity()
        data.f_blocks = -(-size // DIRECTORY_BYTES)
        data.f_bfree = data.f_bavail = 0
        data.f_files = entries
        data.f_ffree = data.f_favail = 0
        data.f_namemax = NAME_MAX
        return data
