"""`LayersSpace`: the root of a FUSE session in native mode, which nobody sees but the overlay above it.

The layers `tree` and `fetch`, and each `beside` (`fusefs.native.layers`). Lives on the event loop.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from typing import Final

import pyfuse3

from fusefs.attributes import FOREVER, absent
from fusefs.native.fetch_layer import FetchLayer
from fusefs.native.layers import BESIDE, FETCH, TREE
from fusefs.native.tree_layer import TreeLayer
from fusefs.plain import PlainSpace

ROOT_ROW: Final = 0
_FIRST_BESIDE: Final = 1
_BESIDE: Final = re.compile(BESIDE.encode() + rb"([0-9]{1,5})")


def beside_inode(root: int) -> pyfuse3.InodeT:
    """Of the directory that is empty but for what the root of that number hides."""
    return pyfuse3.InodeT(pyfuse3.ROOT_INODE + _FIRST_BESIDE + root)


class LayersSpace(PlainSpace):
    """Row 0, and one for every `beside`. `tree` tells the attributes of the layer of names, `shown` is the
    version that `df` tells of, if there is one."""

    def __init__(
        self, tree: Callable[[], pyfuse3.EntryAttributes], fetch: FetchLayer, shown: TreeLayer | None
    ) -> None:
        self._tree = tree
        self._fetch = fetch
        self.shown = shown

    async def lookup(self, row: int, name: bytes) -> pyfuse3.EntryAttributes:
        if row != ROOT_ROW:
            return absent()
        if name == TREE.encode():
            return self._tree()
        if name == FETCH.encode():
            return self._fetch.directory()
        beside = _BESIDE.fullmatch(name)
        return self._attributes(_FIRST_BESIDE + int(beside[1])) if beside else absent()

    async def getattr(self, row: int) -> pyfuse3.EntryAttributes:
        return self._attributes(row)

    def _attributes(self, row: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(pyfuse3.ROOT_INODE + row)
        entry.st_mode, entry.st_nlink = pyfuse3.ModeT(stat.S_IFDIR | 0o755), 2
        entry.entry_timeout = entry.attr_timeout = FOREVER
        return entry

    def capacity(self) -> tuple[int, int]:
        return self.shown.capacity() if self.shown is not None else (0, 0)
