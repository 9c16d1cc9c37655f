"""`Tree`: a version compiled to immutable columns, memory-mapped. Row = inode.

A million names cost no Python objects: the file is mapped, pages come and go with the kernel's
page cache, and two daemons that serve one version share them. `store/tree_compiler.py` writes
the file; this module opens and asks it. Pure reading, safe from any thread.

Rows are in breadth-first order, the root is row 0, the children of a directory are contiguous
and sorted by name (as bytes), so that a look-up is a binary search and a listing a range.

The file: magic (8 bytes), length of the header (u32), xxh3-64 of the header (u64), the header
(msgpack), then the columns, each at a multiple of 8 and with its own xxh3-64, little-endian:

    name_end  u32 × rows   end of the row's name in `names`, behind its NUL
    names     bytes        the names, each with a NUL behind
    parent    u32 × rows
    first     u32 × rows   first child's row (directories; else 0)
    count     u32 × rows   how many children (directories; else 0)
    digest    width × rows files: the oid's digest; directories: xxh3-128 over their children;
                           padded with zeros to the widest digest in the tree (16, 20 or 32 bytes)
    size      i64 × rows   bytes; -1 where nothing has told it yet
    flags     u8 × rows    see the constants

A damaged file is never believed: `Tree.open` verifies every checksum and raises `TreeDamaged`,
upon which the caller compiles it anew.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import struct
import sys
import time
from bisect import bisect_left
from pathlib import Path
from typing import Any, Final, Literal

import msgpack
import xxhash

from store.errors import StoreError
from store.keeping.leases import hold
from store.oid import ALGORITHMS, DIGEST_BYTES, Oid

MAGIC: Final = b"FUSEFS\x02\n"
PREAMBLE: Final = struct.Struct("<8sIQ")
DIRECTORY: Final = 0x01
EXECUTABLE: Final = 0x02
SYMLINK: Final = 0x04
ALGORITHM_SHIFT: Final = 4
UNKNOWN: Final = -1
NAME_MAX: Final = 255
"""Bytes of a name: what the kernel's own file systems take."""
ROOT_ROW: Final = 0
HEADER_MAX: Final = 1 << 16

# Column → memoryview format.
COLUMNS: Final[dict[str, Literal["B", "I", "q"]]] = {
    "name_end": "I",
    "names": "B",
    "parent": "I",
    "first": "I",
    "count": "I",
    "digest": "B",
    "size": "q",
    "flags": "B",
}

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("compiled trees are little-endian, and so must the machine be")


class TreeDamaged(StoreError):
    """The file is not a tree that this version wrote whole. Compile it anew."""


class Tree:
    """An opened tree. Rows are ints from 0 to `rows - 1`; what a row is must be asked before what it has."""

    __slots__ = (
        "_map",
        "bytes_known",
        "count",
        "digest",
        "digest_width",
        "digest_words",
        "file",
        "files",
        "first",
        "flags",
        "name_end",
        "names",
        "parent",
        "rows",
        "size",
        "sizes_unknown",
    )

    name_end: memoryview
    names: memoryview
    parent: memoryview
    first: memoryview
    count: memoryview
    digest: memoryview
    size: memoryview
    flags: memoryview

    def __init__(
        self, mapped: mmap.mmap, header: dict[str, Any], columns: dict[str, memoryview], file: Path
    ) -> None:
        self.file = file
        """Where it was opened."""
        self._map = mapped
        self.rows = int(header["rows"])
        self.files = int(header["files"])
        self.bytes_known = int(header["bytes_known"])
        self.sizes_unknown = int(header["sizes_unknown"])
        self.digest_width = int(header["digest_width"])
        for name, view in columns.items():
            setattr(self, name, view)
        self.digest_words = self.digest.cast("I")

    @classmethod
    def open(cls, path: Path) -> Tree:
        """Map and verify the file. Raises `TreeDamaged`, or `FileNotFoundError` where there is none."""
        with path.open("rb") as file:
            # For as long as it is mapped: what is in use is not aged out. The time tells what is not.
            hold(file.fileno())
            status = os.fstat(file.fileno())
            with contextlib.suppress(OSError):
                os.utime(file.fileno(), ns=(time.time_ns(), status.st_mtime_ns))
            length = status.st_size
            if length < PREAMBLE.size:
                raise TreeDamaged(f"compiled tree {path} is cut short")
            mapped = mmap.mmap(file.fileno(), length, prot=mmap.PROT_READ)
        try:
            header = _read_header(mapped, path)
            columns = _read_columns(mapped, header, path)
            return cls(mapped, header, columns, path)
        except (KeyError, TypeError, ValueError) as error:
            raise TreeDamaged(f"compiled tree {path} is damaged ({error})") from None

    def name(self, row: int) -> bytes:
        """The row's name; empty for the root."""
        start = self.name_end[row - 1] if row else 0
        return bytes(self.names[start : self.name_end[row] - 1])

    def path(self, row: int) -> str:
        """The row's path from the root, for messages and logs; empty for the root."""
        parts: list[bytes] = []
        while row:
            parts.append(self.name(row))
            row = self.parent[row]
        return os.fsdecode(b"/".join(reversed(parts)))

    def is_directory(self, row: int) -> bool:
        return bool(self.flags[row] & DIRECTORY)

    def children(self, row: int) -> range:
        """The rows of a directory's children, in the order of their names."""
        first = self.first[row]
        return range(first, first + self.count[row])

    def lookup(self, row: int, name: bytes) -> int | None:
        """The child of directory `row` that is called `name`."""
        rows = self.children(row)
        place = bisect_left(rows, name, key=self.name)
        if place < len(rows) and self.name(rows[place]) == name:
            return rows[place]
        return None

    def find(self, path: bytes) -> int | None:
        """The row at `path` (`/`-separated, from the root; empty for the root itself)."""
        row: int | None = ROOT_ROW
        for part in path.split(b"/") if path else ():
            if row is None or not self.is_directory(row):
                return None
            row = self.lookup(row, part)
        return row

    def is_symlink(self, row: int) -> bool:
        return bool(self.flags[row] & SYMLINK)

    def digest_of(self, row: int) -> bytes:
        """A file's digest, or the 16 bytes that stand for what is below a directory."""
        start = row * self.digest_width
        length = 16 if self.is_directory(row) else DIGEST_BYTES[self.algorithm(row)]
        return bytes(self.digest[start : start + length])

    def algorithm(self, row: int) -> str:
        return ALGORITHMS[self.flags[row] >> ALGORITHM_SHIFT]

    def rows_of(self, oid: Oid) -> list[int]:
        """The files whose content has this oid. Looks at all rows: milliseconds a million."""
        found = []
        pattern = re.compile(re.escape(oid.raw))
        match = pattern.search(self.digest)
        while match:
            row, rest = divmod(match.start(), self.digest_width)
            if not rest and not self.is_directory(row) and self.oid(row) == oid:
                found.append(row)
            match = pattern.search(self.digest, match.start() + 1)
        return found

    def oid(self, row: int) -> Oid:
        """The oid of a file's content."""
        algorithm = self.algorithm(row)
        start = row * self.digest_width
        return Oid(self.digest[start : start + DIGEST_BYTES[algorithm]].hex(), algorithm=algorithm)


def _read_header(mapped: mmap.mmap, path: Path) -> dict[str, Any]:
    magic, length, checksum = PREAMBLE.unpack_from(mapped)
    if magic != MAGIC:
        raise TreeDamaged(f"{path} is not a compiled tree of this version")
    if length > HEADER_MAX:
        raise TreeDamaged(f"compiled tree {path} is damaged (header of {length} bytes)")
    raw = mapped[PREAMBLE.size : PREAMBLE.size + length]
    if xxhash.xxh3_64_intdigest(raw) != checksum:
        raise TreeDamaged(f"compiled tree {path} is damaged (header)")
    header = msgpack.unpackb(raw)
    if not isinstance(header, dict):
        raise TreeDamaged(f"compiled tree {path} is damaged (header)")
    return header


def _read_columns(mapped: mmap.mmap, header: dict[str, Any], path: Path) -> dict[str, memoryview]:
    places = header["columns"]
    if not isinstance(places, dict):
        raise TreeDamaged(f"compiled tree {path} is damaged (columns)")
    whole = memoryview(mapped)
    columns = {}
    for name, layout in COLUMNS.items():
        offset, length, checksum = places[name]
        view = whole[offset : offset + length]
        if len(view) != length or xxhash.xxh3_64_intdigest(view) != checksum:
            raise TreeDamaged(f"compiled tree {path} is damaged (column {name})")
        columns[name] = view.cast(layout)
    return columns
