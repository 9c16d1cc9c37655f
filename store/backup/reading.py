"""`BackupReader`: a backup's members as they come, from a file or a pipe. Backups are hostile input.

Nothing is believed that is not proved: names are those of objects or the format's own, each object comes
once, no more bytes are read than the header says, and only plain headers of regular files are understood:
none that ask for memory or lead elsewhere. Blocking; one thread.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, Final

import xxhash

from store.backup.format import (
    BLOCK,
    HEADER_LIMIT,
    HEADER_NAME,
    TRAILER_LIMIT,
    TRAILER_NAME,
    Header,
    Sum,
    member_oid,
    padding,
)
from store.errors import InputError
from store.oid import Oid

PIECE: Final = 1 << 20


class Member:
    """An object whose bytes are to be read, once, before the next one."""

    def __init__(self, reader: BackupReader, oid: Oid, size: int) -> None:
        self.oid = oid
        self.size = size
        self._reader = reader
        self._left = size

    def pieces(self) -> Iterator[bytes]:
        """The bytes, unproved. Raises `InputError` where the backup ends before them."""
        while self._left:
            piece = self._reader.take(min(self._left, PIECE))
            self._left -= len(piece)
            yield piece


class BackupReader:
    """A backup that is called `where` in messages."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        """Reads the header. Raises `InputError` for what is no backup."""
        self._file = file
        self._where = where
        self._sum = Sum()
        self._state = xxhash.xxh3_128()
        name, size = self._next()
        if name != HEADER_NAME or size > HEADER_LIMIT:
            raise InputError(f"{where} is not a backup of fusefs")
        self.header = Header.from_bytes(self._whole(name, size), where)

    def members(self) -> Iterator[Member]:
        """The objects, in order; what of one has not been read is read on the way to the next.

        Raises `InputError` for what a backup does not have, and where it ends early; when the iteration has
        ended, the whole of it was as it had been written.
        """
        seen: set[str] = set()
        total = 0
        while True:
            name, size = self._next()
            if name == TRAILER_NAME:
                break
            oid = member_oid(name)
            if oid is None:
                raise InputError(f"{self._where} holds {name[:100]!r}, which no backup does")
            total += size
            if name in seen or len(seen) >= self.header.objects or total > self.header.content_bytes:
                raise InputError(f"{self._where} holds {name!r} twice, or more than it says")
            seen.add(name)
            member = Member(self, oid, size)
            yield member
            for _ in member.pieces():
                pass
            self._end(name, size)
        if (len(seen), total) != (self.header.objects, self.header.content_bytes):
            raise InputError(
                f"{self._where} holds {len(seen)} objects and not the {self.header.objects} it says"
            )
        expected = self._sum.trailer()
        if size > TRAILER_LIMIT or json.loads(expected) != self._parse(self._whole(TRAILER_NAME, size)):
            raise InputError(f"{self._where} is damaged: its checksum is not that of what is in it")

    def take(self, length: int) -> bytes:
        """Bytes of the member that is being read. Raises `InputError`."""
        data = self._read(length)
        self._state.update(data)
        return data

    def _next(self) -> tuple[str, int]:
        self._state.reset()
        block = self._read(BLOCK)
        try:
            info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, ValueError):
            raise InputError(f"{self._where} is damaged, or not a backup of fusefs") from None
        if info.type != tarfile.REGTYPE or info.size < 0:
            raise InputError(f"{self._where} holds {info.name[:100]!r}, which is no plain file")
        return info.name, info.size

    def _whole(self, name: str, size: int) -> bytes:
        data = self.take(size)
        self._end(name, size)
        return data

    def _end(self, name: str, size: int) -> None:
        self._read(padding(size))
        self._sum.add(name, size, self._state)

    def _read(self, length: int) -> bytes:
        pieces: list[bytes] = []
        while length:
            try:
                piece = self._file.read(length)
            except OSError as error:
                raise InputError(f"{self._where} cannot be read: {error.strerror}") from None
            if not piece:
                raise InputError(f"{self._where} is cut short")
            pieces.append(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @staticmethod
    def _parse(data: bytes) -> object:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            return None
