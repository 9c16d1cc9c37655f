"""`VersionFile`: a file of a version as Python reads it, for `fusefs.filesystem`. One thread at a time."""

from __future__ import annotations

from errno import EIO
from typing import Any, Final, Protocol

from fsspec.spec import AbstractBufferedFile

from fusefs.python_errors import python_errors
from fusefs.session import OpenedObject

BLOCK_BYTES: Final = 1 << 18
"""What an open file reads at a time: more is read ahead where it pays, below."""
COPY_BYTES: Final = 4 << 20


class OpensObjects(Protocol):
    """What a file asks of its file system."""

    def open_object(self, path: str) -> OpenedObject: ...


class VersionFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file that is read. It keeps its bytes whatever happens to the cache meanwhile."""

    def __init__(self, fs: OpensObjects, path: str, mode: str = "rb", **options: Any) -> None:
        self._object = fs.open_object(path)
        options.pop("size", None)
        super().__init__(fs, path, mode, size=self._object.size, **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        if not self._object.is_here:  # a fork has left behind what fetches it
            self._object = self.fs.open_object(self.path)
        with python_errors(self.path):
            return self._object.read(start, end - start)

    def close(self) -> None:
        super().close()
        self._object.close()


def copy_object(opened: OpenedObject, path: str, file: Any, callback: Any) -> None:
    """Write all of an open file into another, and close it. Raises OSError."""
    try:
        callback.set_size(opened.size)
        for offset in range(0, opened.size, COPY_BYTES):
            with python_errors(path):
                part = opened.read(offset, COPY_BYTES)
            if file.write(part) not in (None, len(part)):
                raise OSError(EIO, "the local file took fewer bytes than it was given", path)
            callback.relative_update(len(part))
    finally:
        opened.close()
