"""`Space`: one part of what a mount shows, with inodes of its own.

A mount shows trees of several versions and directories that are made up (the control directory,
later views). Each is a space with a number, and a node of it is a row: inode = number · 2³² + row
+ 1. So an inode says by itself who answers for it, and none is ever used again: a switch to another
version takes a fresh number.
"""

from __future__ import annotations

from typing import Final, Protocol

import pyfuse3

SPACE_BITS: Final = 32
ROW_MASK: Final = (1 << SPACE_BITS) - 1
FIRST_TREE: Final = 1
"""Trees count up from here. Inode 1, of space 0, is whatever is shown at the root: the kernel admits it
nowhere else, and a version may stand under `revs` as well."""
CONTROL_SPACE: Final = 1 << 20
"""The control directory's number; trees never get there."""
REVISIONS_SPACE: Final = CONTROL_SPACE + 1
FETCH_SPACE: Final = CONTROL_SPACE + 2
"""The layer that the kernel asks for what no cache has (`fusefs.native.fetch_layer`)."""
FIRST_ROOT_SPACE: Final = CONTROL_SPACE + 16
"""In native mode every version that comes to the root takes some numbers, from here on
(`fusefs.native.roots`)."""


def first_inode(number: int) -> int:
    """The inode of row 0."""
    return (number << SPACE_BITS) + 1


def locate(inode: int) -> tuple[int, int]:
    """An inode's space and row."""
    return (inode - 1) >> SPACE_BITS, (inode - 1) & ROW_MASK


class OpenFile(Protocol):
    """A file that somebody holds open."""

    @property
    def direct(self) -> bool:
        """Made at `open`, of no known size: to be read past the page cache."""

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """What there is from `offset`, at most `length` bytes; valid until the next checkpoint."""

    def close(self) -> None: ...


class OpenDirectory(Protocol):
    """A directory that somebody lists. What is open stays what it was when it was opened."""

    async def list(self, start: int, token: pyfuse3.ReaddirToken) -> None:
        """Reply entries from the place `start` on, until they are all told or the buffer is full."""


class Space(Protocol):
    """Answers for its rows. Attributes are valid until the caller's next checkpoint."""

    async def lookup(self, row: int, name: bytes) -> pyfuse3.EntryAttributes:
        """The entry `name` of a directory; an inode of zero where there is none."""

    async def getattr(self, row: int) -> pyfuse3.EntryAttributes: ...

    async def readlink(self, row: int) -> bytes: ...

    def opendir(self, row: int) -> OpenDirectory: ...

    async def open(self, row: int) -> OpenFile: ...

    def xattr_names(self, row: int) -> tuple[bytes, ...]: ...

    async def xattr(self, row: int, name: bytes) -> bytes | None: ...

    def capacity(self) -> tuple[int, int]:
        """Bytes and entries, for `df`."""
