"""`ControlSpace`: the hidden directory `.fusefs`, where a mount speaks of itself.

It is never listed and reachable by name, as `.zfs` is. Data of that name wins; control is then
`.fusefs-control`. Row 0 is the directory, its files come behind. The files are made anew at every
open, have no size beforehand (as in /proc) and are read past the page cache.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import pyfuse3

from fusefs.attributes import absent
from fusefs.errnos import EISDIR
from fusefs.plain import BytesFile, ListedDirectory, PlainSpace
from fusefs.spaces import CONTROL_SPACE, OpenFile, first_inode
from store.tree import ROOT_ROW, Tree

NAMES: Final = (b".fusefs", b".fusefs-control")
DIRECTORY_ROW: Final = 0
DIRECTORY_SECONDS: Final = 1.0
"""For so long the kernel knows the way into these directories, or else every path would ask for it."""


def control_name(tree: Tree | None) -> bytes:
    """The name that the data leaves free; empty where it takes both."""
    if tree is None:
        return NAMES[0]
    return next((name for name in NAMES if tree.lookup(ROOT_ROW, name) is None), b"")


class HasDirectory(Protocol):
    """A space that is entered through the control directory."""

    def directory(self) -> pyfuse3.EntryAttributes:
        """The attributes of its first directory."""


class ControlSpace(PlainSpace):
    """Names, attributes and contents of the control files, and the directories that stand beside them."""

    def __init__(
        self,
        files: Mapping[bytes, Callable[[], bytes]],
        directories: Mapping[bytes, HasDirectory],
        *,
        uid: int,
        gid: int,
        number: int = CONTROL_SPACE,
        hidden: Mapping[bytes, HasDirectory] | None = None,
    ) -> None:
        self._number = number
        self._directories = directories
        self._hidden = hidden or {}
        self._names = tuple(files)
        self._makers = tuple(files.values())
        self._uid = uid
        self._gid = gid

    def directory(self) -> pyfuse3.EntryAttributes:
        return self._attributes(DIRECTORY_ROW)

    def _attributes(self, row: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(first_inode(self._number) + row)
        entry.st_uid, entry.st_gid = self._uid, self._gid
        kind, entry.st_nlink = (stat.S_IFREG | 0o444, 1) if row else (stat.S_IFDIR | 0o555, 2)
        entry.st_mode = pyfuse3.ModeT(kind)
        entry.entry_timeout = entry.attr_timeout = 0 if row else DIRECTORY_SECONDS
        return entry

    async def lookup(self, row: int, name: bytes) -> pyfuse3.EntryAttributes:
        if name in self._names:
            return self._attributes(1 + self._names.index(name))
        if name in self._directories:
            return self._directories[name].directory()
        if name in self._hidden:
            return self._hidden[name].directory()
        return self._attributes(row) if name == b"." else absent()

    async def getattr(self, row: int) -> pyfuse3.EntryAttributes:
        return self._attributes(row)

    def opendir(self, row: int) -> ListedDirectory:
        named = [(name, self._attributes(place)) for place, name in enumerate(self._names, 1)]
        beside = [(name, space.directory()) for name, space in self._directories.items()]
        return ListedDirectory([(b".", self.directory()), (b"..", self.directory()), *named, *beside])

    async def open(self, row: int) -> OpenFile:
        if row == DIRECTORY_ROW:
            raise pyfuse3.FUSEError(EISDIR)
        return BytesFile(self._makers[row - 1](), direct=True)

    def capacity(self) -> tuple[int, int]:
        return 0, len(self._names)
