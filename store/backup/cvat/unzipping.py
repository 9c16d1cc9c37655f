"""`CheckedZip`: the members of somebody's zip, of which nothing is believed that is not checked.

Everything that the directory says is judged before the first byte is unpacked: names inside, each once, no
links, no encryption, members that do not overlap, sizes that the archive can hold. Bytes are then held
against the declared length and the CRC-32. Blocking; one thread.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, cast

from store.dvc.ignore import DVCIGNORE
from store.errors import InputError
from store.manifest import path_fault

MOST_MEMBERS: Final = 1_000_000
DIRECTORY_LIMIT: Final = 128 << 20
"""Bytes that are read at once: the zip's directory is, before it can be judged."""
PIECE: Final = 1 << 20
RATIO: Final = 200
"""What is unpacked may be so many times the archive: media hardly shrink, and JSON some 20 times."""
SPARED: Final = 16 << 20
"""Bytes that may be unpacked of any archive."""

_ENCRYPTED: Final = 0x1
_UTF8: Final = 0x800
_LOCAL_HEADER: Final = 30
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_FAULTS: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError)


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A file in a zip."""

    name: str
    size: int
    """Bytes, unpacked."""


class CheckedZip:
    """A zip that is called `where` in messages. The file must be one that can be sought in."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        """Raises `InputError` for what is no zip, or one that must not be unpacked."""
        self._where = where
        try:
            size = file.seek(0, 2)
            self._zip = zipfile.ZipFile(cast("BinaryIO", _Bounded(file, where)))
        except _FAULTS as error:
            raise InputError(f"{where} is not a zip that can be read: {str(error)[:100]}") from None
        except OSError as error:
            raise InputError(f"{where} cannot be read: {error.strerror}; a zip must be a file") from None
        self._infos = self._judge(size)
        self.members = tuple(ZipMember(name, info.file_size) for name, info in self._infos.items())

    def pieces(self, member: ZipMember) -> Iterator[bytes]:
        """The bytes of a member. Raises `InputError` where they are not what the zip says."""
        left = member.size
        try:
            with self._zip.open(self._infos[member.name]) as file:
                while piece := file.read(min(PIECE, left + 1)):
                    left -= len(piece)
                    if left < 0:
                        break
                    yield piece
        except _FAULTS:
            raise InputError(f"{self._where} is damaged: {member.name!r} cannot be unpacked") from None
        except OSError as error:
            raise InputError(f"{self._where} cannot be read: {error.strerror}") from None
        if left:
            raise InputError(f"{self._where} is damaged: {member.name!r} has another length than it says")

    def read(self, member: ZipMember, limit: int) -> bytes:
        """All of a member of at most so many bytes. Raises `InputError`."""
        if member.size > limit:
            raise InputError(f"{self._where}: {member.name!r} has {member.size} bytes, more than {limit}")
        return b"".join(self.pieces(member))

    def _judge(self, size: int) -> dict[str, zipfile.ZipInfo]:
        infos = self._zip.infolist()
        if len(infos) > MOST_MEMBERS:
            raise InputError(f"{self._where} has {len(infos)} members, more than {MOST_MEMBERS}")
        found: dict[str, zipfile.ZipInfo] = {}
        above: set[str] = set()
        end = unpacked = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            name = self._name_of(info)
            if info.header_offset < end:
                raise InputError(f"{self._where}: {name!r} overlaps another member")
            end = info.header_offset + _LOCAL_HEADER + len(name.encode()) + info.compress_size
            if end > size:
                raise InputError(f"{self._where} is cut short: {name!r} lies beyond its end")
            unpacked += info.file_size
            if unpacked > RATIO * size + SPARED:
                raise InputError(f"{self._where} unpacks to more than {RATIO} times its size; it is a bomb")
            if info.is_dir():
                continue
            if name in found:
                raise InputError(f"{self._where} holds {name!r} twice")
            found[name] = info
            parts = name.split("/")
            above.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
        clash = next((name for name in found if name in above), None)
        if clash is not None:
            raise InputError(f"{self._where} holds {clash!r} as a file and as a directory")
        return found

    def _name_of(self, info: zipfile.ZipInfo) -> str:
        """A member's name. Raises `InputError` where it must not be unpacked."""
        name = info.orig_filename
        shown = f"{self._where}: {name[:100]!r}"
        if not info.flag_bits & _UTF8 and not name.isascii():
            raise InputError(f"{shown} is a name that is not UTF-8")
        if name.rpartition("/")[2] == DVCIGNORE:
            raise InputError(f"{shown} would hide files from DVC, and cannot be part of a version")
        fault = path_fault(name.removesuffix("/"))
        if fault or name != info.filename or "\\" in name:
            raise InputError(f"{shown} is not a path inside the archive")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG):
            raise InputError(f"{shown} is a link, or no plain file")
        if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
            raise InputError(f"{shown} is encrypted, or packed in a way that CVAT does not use")
        if info.is_dir() and info.file_size:
            raise InputError(f"{shown} is a directory with bytes of its own")
        if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
            raise InputError(f"{shown} has two different lengths")
        return name


class _Bounded:
    """A file of which no more is read at once than a directory may have."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file = file
        self._where = where

    def read(self, length: int = -1) -> bytes:
        if length > DIRECTORY_LIMIT:
            raise InputError(f"{self._where} has a directory of {length} bytes, more than {DIRECTORY_LIMIT}")
        return self._file.read(DIRECTORY_LIMIT if length < 0 else length)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True
