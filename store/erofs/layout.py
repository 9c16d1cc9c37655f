"""What an EROFS image consists of: the superblock, inodes, directory entries and extended attributes.

The format is the kernel's (`fs/erofs/erofs_fs.h`), of which this is the part that uncompressed names and
attributes need: extended inodes, since only these have times of their own, data plain in blocks or inline
behind the inode, extended attributes inline. An inode's number is its place in units of 32 bytes. All is
little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np

BLOCK_BITS: Final = 12
BLOCK: Final = 1 << BLOCK_BITS
SLOT: Final = 32
"""Bytes; inodes begin at multiples of it, and are numbered by it."""
INODE_BYTES: Final = 64

REGULAR: Final = 1
DIRECTORY: Final = 2
SYMLINK: Final = 7
"""Kinds of directory entries."""

PLAIN: Final = 0
INLINE: Final = 2
"""Where data lie: in blocks of their own, or right behind the inode and its attributes."""

DIRENT: Final = np.dtype([("nid", "<u8"), ("name", "<u2"), ("kind", "u1"), ("reserved", "u1")])
INODE: Final = np.dtype(
    [
        ("format", "<u2"),
        ("xattr_count", "<u2"),
        ("mode", "<u2"),
        ("reserved", "<u2"),
        ("size", "<u8"),
        ("start", "<u4"),
        ("ino", "<u4"),
        ("uid", "<u4"),
        ("gid", "<u4"),
        ("mtime", "<u8"),
        ("mtime_nsec", "<u4"),
        ("nlink", "<u4"),
        ("reserved2", "V16"),
    ]
)

_MAGIC: Final = 0xE0F5E1E2
_SUPERBLOCK: Final = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23s")
_SUPERBLOCK_PLACE: Final = 1024
_EXTENDED: Final = 1
_XATTR_HEAD: Final = struct.Struct("<IB7x")
_XATTR_ENTRY: Final = struct.Struct("<BBH")
_WORD: Final = 4


class Attribute(NamedTuple):
    """An extended attribute: its name space, its name behind that, its value."""

    space: int
    name: bytes
    value: bytes


def superblock(*, root: int, inodes: int, blocks: int) -> bytes:
    """The image's first block: `root` is the number of the root's inode, below 2^16.

    No checksum of its own, and no label or identity: images of equal content are equal.
    """
    packed = _SUPERBLOCK.pack(
        *(_MAGIC, 0, 0, BLOCK_BITS, 0, root, inodes, 0, 0, blocks, 0, 0, b"", b""),
        *(0, 0, 0, 0, 0, 0, 0, 0, 0, b""),
    )
    return packed.rjust(_SUPERBLOCK_PLACE + len(packed), b"\0").ljust(BLOCK, b"\0")


def inode_format(layout: int) -> int:
    """The first word of an extended inode."""
    return _EXTENDED | layout << 1


def xattr_bytes(attributes: Iterable[Attribute]) -> bytes:
    """Extended attributes as they stand behind an inode; nothing where there are none."""
    packed = b"".join(map(_pack_entry, attributes))
    return _XATTR_HEAD.pack(0, 0) + packed if packed else b""


def xattr_count(length: int) -> int:
    """What an inode says of attributes that take `length` bytes behind it."""
    return (length - _XATTR_HEAD.size) // _WORD + 1 if length else 0


def _pack_entry(attribute: Attribute) -> bytes:
    head = _XATTR_ENTRY.pack(len(attribute.name), attribute.space, len(attribute.value))
    entry = head + attribute.name + attribute.value
    return entry.ljust(-(-len(entry) // _WORD) * _WORD, b"\0")


def round_up(length: int, unit: int) -> int:
    """The next multiple of `unit`."""
    return -(-length // unit) * unit
