"""`TreeLayer`: a version's tree as the layer of names: what `TreeSpace` shows, and where the kernel finds
bytes.

A file with the overlay's two attributes has its bytes at that place below the caches, where the kernel looks
for them at `open`. A file without them is read through us, as in fuse mode: what git tracks, an object that
does not have the length that is told of it, which the kernel would not notice, and one of a stream of missing
ones. Lives on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pyfuse3

from fusefs.native.held_files import HeldFiles
from fusefs.native.stream import Stream
from fusefs.spaces import OpenFile
from fusefs.tree_space import TreeFile, TreeSpace
from store.errors import ObjectCorrupt
from store.layouts import object_path
from store.oid import DVC_ALGORITHMS, Oid
from store.open_objects import OpenBytes, OpenObject
from store.open_objects import OpenFile as CachedFile

BLOCK_BYTES: Final = 4096
"""Until the kernel knows what a file takes on the disk, it rounds its size up to so many bytes; and what is
read through us has to stay as it was."""
MOST_MISSING: Final = 1024
"""Names that are looked at and not opened stay in mind."""
METACOPY: Final = (b"trusted.overlay.metacopy", b"user.overlay.metacopy")
REDIRECT: Final = (b"trusted.overlay.redirect", b"user.overlay.redirect")
"""As root, and in a user namespace; nobody but the overlay gets to ask for them."""


class TreeLayer(TreeSpace):
    """A version at one place. `held` are files that were opened when the kernel looked for their bytes;
    `asked` is told of what is opened here; `find_anew` is called when the kernel could have found it, or will
    be able to; `stream` is of what is missing."""

    def __init__(
        self,
        *arguments: Any,
        held: HeldFiles,
        asked: Callable[[Oid], None],
        find_anew: Callable[[], None],
        stream: Stream,
        **keywords: Any,
    ) -> None:
        super().__init__(*arguments, **keywords, preferred_read=BLOCK_BYTES, block_bytes=BLOCK_BYTES)
        self._held = held
        self.wrong_sizes: set[int] = set()
        """Rows of which the kernel was told another size, which cannot be corrected: not to be read."""
        self._asked = asked
        self._find_anew = find_anew
        self._stream = stream
        self._missing: set[int] = set()
        """Rows of a stream, of which it was just found out that no cache has them."""

    def check_size(self, row: int) -> None:
        """Raises `ObjectCorrupt` for a file of which the kernel was told a wrong size."""
        if row in self.wrong_sizes:
            raise ObjectCorrupt(f"{self.tree.path(row)!r}: another size was told; open it again")

    async def open(self, row: int) -> OpenFile:
        opened = self._held.take(self.files, row)
        if opened is None:
            is_missing = row in self._missing
            self._missing.discard(row)
            opened = await self.files.open(row, is_missing=is_missing)
            if self._is_an_object(row):
                self._note_opened(opened)
        self._asked(self.tree.oid(row))
        return TreeFile(self.files, row, opened)

    async def xattr(self, row: int, name: bytes) -> bytes | None:
        if name in METACOPY:
            return b"" if await self._is_the_kernels(row) else None
        if name in REDIRECT:
            return b"/" + object_path(self.tree.oid(row)).encode() if self._is_an_object(row) else None
        return await super().xattr(row, name)

    def entry(self, row: int, size: int) -> pyfuse3.EntryAttributes:
        """A file's attributes, for whoever shows it elsewhere too."""
        return self._writer.fill(row, size)

    def _is_an_object(self, row: int) -> bool:
        tree = self.tree
        return not (tree.is_directory(row) or tree.is_symlink(row)) and tree.algorithm(row) in DVC_ALGORITHMS

    def _note_opened(self, opened: OpenObject) -> None:
        """An object is read through us: what is in a cache, or will be, need not be for long."""
        if isinstance(opened, OpenBytes):
            self._stream.note()
            if self._stream.is_on():
                self._find_anew()
        elif isinstance(opened, CachedFile):
            self._find_anew()

    async def _is_the_kernels(self, row: int) -> bool:
        """Is the kernel to look for a file's bytes? For those that are missing too, unless many are."""
        if not self._is_an_object(row):
            return False
        if self._stream.is_on():
            is_here = await self.files.is_here_as_told(row)
            if not is_here:
                if len(self._missing) >= MOST_MISSING:
                    self._missing.clear()
                self._missing.add(row)
            return is_here
        return await self.files.is_as_long_as_told(row)
