"""The hidden directory `.fusefs` at the root of every mount: where the mount speaks of itself.

It is never listed and reachable by name, as `.zfs` is. Data of that name wins; control is then
`.fusefs-control`. Its files are made anew at every open, have no size beforehand (as in /proc)
and are read with `direct_io`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Final

import pyfuse3

from store.tree import ROOT_ROW, Tree

NAMES: Final = (b".fusefs", b".fusefs-control")
CONTROL_INODE: Final = 1 << 48
"""The directory's inode; its files come behind. Far above every row of a tree."""


def control_name(tree: Tree) -> bytes:
    """The name that the data leaves free; empty where it takes both."""
    return next((name for name in NAMES if tree.lookup(ROOT_ROW, name) is None), b"")


class ControlDirectory:
    """Names, attributes and contents of the control files."""

    def __init__(self, name: bytes, files: dict[bytes, Callable[[], bytes]], *, uid: int, gid: int) -> None:
        self.name = name
        self._names = tuple(files)
        self._makers = tuple(files.values())
        self._uid = uid
        self._gid = gid

    def owns(self, inode: int) -> bool:
        return inode >= CONTROL_INODE

    def is_directory(self, inode: int) -> bool:
        return inode == CONTROL_INODE

    def lookup(self, name: bytes) -> int | None:
        """The inode of the control file called `name`."""
        return CONTROL_INODE + 1 + self._names.index(name) if name in self._names else None

    def entries(self) -> list[tuple[bytes, int]]:
        return [(name, CONTROL_INODE + 1 + place) for place, name in enumerate(self._names)]

    def content(self, inode: int) -> bytes:
        """What a control file holds at this moment."""
        return self._makers[inode - CONTROL_INODE - 1]()

    def attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode)
        entry.st_uid, entry.st_gid = self._uid, self._gid
        if inode == CONTROL_INODE:
            entry.st_mode, entry.st_nlink = pyfuse3.ModeT(stat.S_IFDIR | 0o555), 2
        else:
            entry.st_mode, entry.st_nlink = pyfuse3.ModeT(stat.S_IFREG | 0o444), 1
        entry.entry_timeout = entry.attr_timeout = 0
        return entry
