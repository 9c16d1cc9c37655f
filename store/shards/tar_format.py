"""The bytes of a tar archive around its members' bodies: headers, padding and end, from path and size.

A member has a USTAR header, with mode 0444, owner and group 0 without names, and one time for all, `MTIME`.
Its path stands there in raw bytes, as GNU tar and Python write and read it. A path that does not fit (more
than 100 bytes, and no slash where it could be cut in two) or a size of 8 GiB and more is in a pax extended
header before it; of a path that is not UTF-8 pax wants to be told so (`hdrcharset=BINARY`).

These bytes are content that readers have seen: another format would be another `LAYOUT`. Pure.
"""

from __future__ import annotations

from typing import Final

LAYOUT: Final = "ustar+pax v1"
BLOCK: Final = 512
RECORD: Final = 20 * BLOCK
"""An archive is filled up with zeros to a multiple of it, as tar writes it."""
END: Final = 2 * BLOCK
"""At least so many zeros end an archive."""
MTIME: Final = 946_684_800
"""2000-01-01: where the dates of a mount's files begin. Fixed, for equal members have equal headers."""
NAME_BYTES: Final = 100
"""A path of up to this many bytes needs no second look."""
SIZE_LIMIT: Final = 8**11
"""Bytes: the first size that has no place in a header."""

_PREFIX_BYTES: Final = 155
_NUMBERS: Final = b"0000444\0" + b"0000000\0" * 2
_TIME: Final = b"%011o\0" % MTIME
_BLANK: Final = b" " * 8
_MAGIC: Final = bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2
_BINARY: Final = b"21 hdrcharset=BINARY\n"
_PAX_NAME: Final = b"PaxHeader"
_FILE: Final = b"0"
_PAX: Final = b"x"


def padding(length: int) -> int:
    """How many zeros fill the last block of so many bytes."""
    return -length % BLOCK


def member_header(path: bytes, size: int) -> bytes:
    """All that stands before a member's body: a multiple of `BLOCK`."""
    records = _records(path, size)
    prefix, name = _split(path) or (b"", path.rpartition(b"/")[2][:NAME_BYTES])
    ordinary = _ustar(prefix, name, size if size < SIZE_LIMIT else 0, _FILE)
    if not records:
        return ordinary
    return _ustar(b"", _PAX_NAME, len(records), _PAX) + records + bytes(padding(len(records))) + ordinary


def member_header_length(path: bytes, size: int) -> int:
    """The length of `member_header`, for less."""
    extended = len(_records(path, size))
    return BLOCK + (BLOCK + extended + padding(extended) if extended else 0)


def archive_length(members: int) -> int:
    """The length of an archive whose members take so many bytes."""
    return -(-(members + END) // RECORD) * RECORD


def _split(path: bytes) -> tuple[bytes, bytes] | None:
    """The path as prefix and name, cut at a slash as early as can be; None where that cannot be."""
    if len(path) <= NAME_BYTES:
        return b"", path
    cut = path.find(b"/", len(path) - NAME_BYTES - 1)
    return (path[:cut], path[cut + 1 :]) if 0 < cut <= _PREFIX_BYTES else None


def _ustar(prefix: bytes, name: bytes, size: int, kind: bytes) -> bytes:
    before = name.ljust(100, b"\0") + _NUMBERS + b"%011o\0" % size + _TIME
    behind = kind + _MAGIC + prefix.ljust(167, b"\0")
    return before + b"%06o\0 " % (sum(before) + sum(_BLANK) + sum(behind)) + behind


def _records(path: bytes, size: int) -> bytes:
    """What the extended header has to say of a member; nothing for most."""
    records = b""
    if _split(path) is None:
        records = _record(b"path", path)
        try:
            path.decode()
        except UnicodeDecodeError:
            records = _BINARY + records
    return records if size < SIZE_LIMIT else records + _record(b"size", b"%d" % size)


def _record(keyword: bytes, value: bytes) -> bytes:
    """A record begins with its own length, which counts its own digits."""
    rest = b" %b=%b\n" % (keyword, value)
    length = len(rest) + 1
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d%b" % (length, rest)
