"""`MediaSource`: where a video's or an image's bytes are read from, and `SourceFile`, the same for libav.

A source is immutable content: a file in the cache, an object on a remote that is fetched by range, plain
bytes. What reads media knows nothing of where they come from.

Blocking; any thread or process. Several threads may read a `MediaSource` at once, one a `SourceFile`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from store.errors import ObjectCorrupt, ObjectMissing

LEAST_READ: Final = 32 << 10
"""Bytes that a first or a jumping read takes: libav seldom jumps for less."""
MOST_READ: Final = 512 << 10
"""Bytes of one request of a reader that goes straight on: few round trips, and little that is thrown away."""


class MediaSource(Protocol):
    """Content of a known length that is read by ranges."""

    @property
    def size(self) -> int:
        """Its length in bytes."""

    @property
    def oid(self) -> str:
        """The identity of the content, as text; empty where nobody has hashed it."""

    @property
    def name(self) -> str:
        """For messages, and to guess a kind by its suffix. Never opened."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly the bytes of a range that lies within the source. Raises `StoreError`."""


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A local file, read by its descriptor, which it owns."""

    descriptor: int
    size: int
    oid: str
    name: str

    def read_at(self, offset: int, length: int) -> bytes:
        """See `MediaSource`. Raises `ObjectCorrupt` when the file has become shorter or cannot be read."""
        pieces: list[bytes] = []
        while length:
            try:
                piece = os.pread(self.descriptor, length, offset)
            except OSError as error:
                raise ObjectCorrupt(f"{self.name} cannot be read: {error.strerror}") from error
            if not piece:
                raise ObjectCorrupt(
                    f"{self.name} ends at {offset} and is shorter than the {self.size} it had"
                )
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Give the descriptor back; once."""
        os.close(self.descriptor)

    def __enter__(self) -> LocalSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source_file(path: Path, oid: str = "", name: str = "") -> LocalSource:
    """A local file as a source; `name` is what messages call it, by default its own.

    Raises `ObjectMissing` when there is no such file, and `ObjectCorrupt` when it cannot be read.
    """
    name = name or path.name
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ObjectMissing(f"{path} does not exist") from error
    except OSError as error:
        raise ObjectCorrupt(f"{path} cannot be opened: {error.strerror}") from error
    return LocalSource(descriptor, os.fstat(descriptor).st_size, oid, name)


class SourceFile:
    """A source as a seekable binary file, for libav, Pillow and zipfile.

    One window is kept. A read outside of it asks for `LEAST_READ`, and each that goes straight on for twice
    as much as the one before, up to `MOST_READ`: a remote is asked seldom, and little is fetched in vain.

    With `hold_errors` a read that fails looks like the end of the file, and so do all that follow, until
    `raise_error` says what it was: libav goes on after errors, and prints those that it cannot pass on.
    """

    def __init__(self, source: MediaSource, *, hold_errors: bool = False) -> None:
        self._source = source
        self._hold_errors = hold_errors
        self._position = 0
        self._start = 0
        self._window = b""
        self._next_length = LEAST_READ
        self._error: Exception | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Where the next read begins; beyond the end is allowed, as with files."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise ValueError(f"{base + offset} is before the beginning")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """`size` bytes, fewer only at the end; all that is left for -1."""
        left = 0 if self._error else max(self._source.size - self._position, 0)
        size = left if size is None or size < 0 else min(size, left)
        pieces: list[bytes] = []
        while size:
            if not self._start <= self._position < self._start + len(self._window):
                try:
                    self._fill(size)
                except Exception as error:
                    if not self._hold_errors:
                        raise
                    self._error = self._error or error
                    return b""
            begin = self._position - self._start
            pieces.append(self._window[begin : begin + size])
            self._position += len(pieces[-1])
            size -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def raise_error(self) -> None:
        """Raise what the source raised, if it did, and forget it."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _fill(self, size: int) -> None:
        goes_on = self._window != b"" and self._position == self._start + len(self._window)
        self._next_length = min(2 * self._next_length, MOST_READ) if goes_on else LEAST_READ
        length = min(max(size, self._next_length), self._source.size - self._position)
        self._window = self._source.read_at(self._position, length)
        self._start = self._position
