"""What spaces without anything special answer, and the simplest of open things."""

from __future__ import annotations

import pyfuse3

from fusefs.errnos import EINVAL, EISDIR
from fusefs.spaces import OpenDirectory, OpenFile


class BytesFile:
    """An open file whose bytes are there. `direct` as in `OpenFile`."""

    def __init__(self, content: bytes, *, direct: bool = False) -> None:
        self._content = content
        self.direct = direct

    async def read(self, offset: int, length: int) -> memoryview:
        return memoryview(self._content)[offset : offset + length]

    def close(self) -> None:
        pass


class ListedDirectory:
    """A listing that was made when the directory was opened."""

    def __init__(self, entries: list[tuple[bytes, pyfuse3.EntryAttributes]]) -> None:
        self._entries = entries

    async def list(self, start: int, token: pyfuse3.ReaddirToken) -> None:
        for place in range(start, len(self._entries)):
            name, attributes = self._entries[place]
            if not pyfuse3.readdir_reply(token, name, attributes, place + 1):
                return


class PlainSpace:
    """A space without links and attributes, where nothing can be listed or opened unless a heir says so."""

    async def readlink(self, row: int) -> bytes:
        raise pyfuse3.FUSEError(EINVAL)

    def opendir(self, row: int) -> OpenDirectory:
        return ListedDirectory([])

    async def open(self, row: int) -> OpenFile:
        raise pyfuse3.FUSEError(EISDIR)

    def xattr_names(self, row: int) -> tuple[bytes, ...]:
        return ()

    async def xattr(self, row: int, name: bytes) -> bytes | None:
        return None

    def capacity(self) -> tuple[int, int]:
        """As `Space`."""
        return 0, 0
