"""`BackupReader`: a backup's members as they come, from a file or a pipe. Backups are hostile input.

Nothing is believed that is not proved: names are those of objects or the format's own, each object comes
once, no more bytes are read than the header says, and only plain headers of regular files are understood:
none that ask for memory or lead elsewhere. Blocking; one thread.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

import xxhash

from store.backup.format import HEADER_LIMIT, HEADER_NAME, TRAILER_LIMIT, TRAILER_NAME, Header, Sum
from store.backup.members import BLOCK, member_oid, padding, product_key, read_header
from store.errors import InputError
from store.oid import Oid

PIECE: Final = 1 << 20


class Member:
    """Something whose bytes are to be read, once, before the next one."""

    def __init__(self, reader: BackupReader, size: int) -> None:
        self.size = size
        self._reader = reader
        self._left = size

    def pieces(self) -> Iterator[bytes]:
        """The bytes, unproved. Raises `InputError` where the backup ends before them."""
        while self._left:
            piece = self._reader.take(min(self._left, PIECE))
            self._left -= len(piece)
            yield piece


class ObjectMember(Member):
    """An object, `oid`."""

    def __init__(self, reader: BackupReader, oid: Oid, size: int) -> None:
        super().__init__(reader, size)
        self.oid = oid


class ProductMember(Member):
    """A product, by its key."""

    def __init__(self, reader: BackupReader, key: str, size: int) -> None:
        super().__init__(reader, size)
        self.key = key


@dataclass(slots=True)
class _Quota:
    """How many members of a kind, and bytes of them, a header allows, and how many have come."""

    most: int
    most_bytes: int
    count: int = 0
    bytes: int = 0

    def take(self, size: int) -> None:
        self.count += 1
        self.bytes += size

    @property
    def is_exceeded(self) -> bool:
        return self.count > self.most or self.bytes > self.most_bytes

    @property
    def is_used_up(self) -> bool:
        return (self.count, self.bytes) == (self.most, self.most_bytes)


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
        """Objects and then products, in order; what of one has not been read is read on the way to the next.

        Raises `InputError` for what a backup does not have, and where it ends early; when the iteration has
        ended, the whole of it was as it had been written.
        """
        header = self.header
        objects = _Quota(header.objects, header.content_bytes)
        products = _Quota(header.products, header.product_bytes)
        seen: set[str] = set()
        while True:
            name, size = self._next()
            if name == TRAILER_NAME:
                break
            oid, key = member_oid(name), product_key(name)
            member: Member
            if oid is not None and not products.count:
                member, quota = ObjectMember(self, oid, size), objects
            elif key:
                member, quota = ProductMember(self, key, size), products
            else:
                raise InputError(f"{self._where} holds {name[:100]!r}, which no backup does there")
            quota.take(size)
            if name in seen or quota.is_exceeded:
                raise InputError(f"{self._where} holds {name!r} twice, or more than it says")
            seen.add(name)
            yield member
            for _ in member.pieces():
                pass
            self._end(name, size)
        if not objects.is_used_up or not products.is_used_up:
            raise InputError(
                f"{self._where} holds {objects.count} objects and {products.count} products, and not the "
                f"{header.objects} and {header.products} it says"
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
        found = read_header(block)
        if found is not None:
            return found
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
