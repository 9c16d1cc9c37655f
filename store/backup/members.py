"""Members of a backup: which names objects and products have in the archive, and the headers before them."""

from __future__ import annotations

import re
import tarfile
from typing import Final

from store.layouts import object_path
from store.making.products import BELOW, place
from store.oid import MD5, MD5_DOS2UNIX, Oid

BLOCK: Final = 512
TIME: Final = 315_532_800
"""Of every member, 1980-01-01: a backup follows from its content."""

_MD5_PLACE = re.compile(r"files/md5/([0-9a-f]{2})/([0-9a-f]{30}(?:\.dir)?)")
_OLD_PLACE = re.compile(r"([0-9a-f]{2})/([0-9a-f]{30}(?:\.dir)?)")
_PRODUCT_PLACE = re.compile(re.escape(BELOW) + r"/([0-9a-f]{2})/([0-9a-f]{30})")


def _tar_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o444, TIME
    return info.tobuf(tarfile.GNU_FORMAT)


_OCTAL_LIMIT: Final = 1 << 33
"""Bytes from which on a length is written in another way."""
_NAME_BYTES: Final = 100
_SIZE: Final = slice(124, 135)
_CHECKSUM: Final = slice(148, 156)
_EMPTY_HEADER: Final = _tar_header("", 0)


def member_name(oid: Oid) -> str:
    """The name of an object's member."""
    return object_path(oid)


def member_oid(name: str) -> Oid | None:
    """The object that a member of this name must be; None for a name that no object has."""
    for pattern, algorithm in ((_MD5_PLACE, MD5), (_OLD_PLACE, MD5_DOS2UNIX)):
        match = pattern.fullmatch(name)
        if match:
            return Oid.parse(match[1] + match[2], algorithm)
    return None


def product_name(key: str) -> str:
    """The name of a product's member."""
    return f"{BELOW}/{place(key)}"


def product_key(name: str) -> str:
    """The key of the product that a member of this name must be; empty for a name that none has."""
    match = _PRODUCT_PLACE.fullmatch(name)
    return match[1] + match[2] if match else ""


def member_header(name: str, size: int) -> bytes:
    """The 512 bytes before a member: as `tarfile` writes them, for a third of its time."""
    if size >= _OCTAL_LIMIT:
        return _tar_header(name, size)
    header = bytearray(_EMPTY_HEADER)
    header[: len(name)] = name.encode("ascii")
    header[_SIZE] = b"%011o" % size
    header[_CHECKSUM] = b" " * 8
    header[_CHECKSUM] = b"%06o\0 " % sum(header)
    return bytes(header)


def read_header(block: bytes) -> tuple[str, int] | None:
    """Name and size of a member, if its header is one that `member_header` makes."""
    try:
        name, size = block[:_NAME_BYTES].rstrip(b"\0").decode("ascii"), int(block[_SIZE], 8)
    except ValueError:
        return None
    return (name, size) if 0 <= size < _OCTAL_LIMIT and block == member_header(name, size) else None


def padding(size: int) -> int:
    """Zeros behind a member of `size` bytes."""
    return -size % BLOCK
