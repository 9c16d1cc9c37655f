"""`LayersSpace`: the root of a FUSE session in native mode, which nobody sees but the overlay above it.

The layers `tree`, `fetch` and `beside` (`fusefs.native.layers`). Lives on the event loop.
"""

from __future__ import annotations

import stat
from typing import Final

import pyfuse3

from fusefs.attributes import FOREVER, absent
from fusefs.native.fetch_layer import FetchLayer
from fusefs.native.layers import BESIDE, FETCH, TREE
from fusefs.native.tree_layer import TreeLayer
from fusefs.plain import PlainSpace

ROOT_ROW: Final = 0
BESIDE_ROW: Final = 1


class LayersSpace(PlainSpace):
    """Row 0, and row 1, which is `beside`. `shown` is the version that `df` tells of."""

    def __init__(self, tree: TreeLayer, fetch: FetchLayer) -> None:
        self._tree = tree
        self._fetch = fetch
        self.shown = tree

    async def lookup(self, row: int, name: bytes) -> pyfuse3.EntryAttributes:
        if row == BESIDE_ROW:
            return absent()
        if name == TREE.encode():
            return self._tree.root(FOREVER)
        if name == BESIDE.encode():
            return self._attributes(BESIDE_ROW)
        return self._fetch.directory() if name == FETCH.encode() else absent()

    async def getattr(self, row: int) -> pyfuse3.EntryAttributes:
        return self._attributes(row)

    def _attributes(self, row: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(pyfuse3.ROOT_INODE + row)
        entry.st_mode, entry.st_nlink = pyfuse3.ModeT(stat.S_IFDIR | 0o755), 2
        entry.entry_timeout = entry.attr_timeout = FOREVER
        return entry

    def capacity(self) -> tuple[int, int]:
        return self.shown.capacity()
