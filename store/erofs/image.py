"""A tree as an EROFS image: names and attributes for the kernel to serve by itself, without a daemon.

    block 0     the superblock
    then        inodes of directories and symlinks, the root's first; what is small lies inline behind them
    then        blocks of the directories that are not
    then        inodes of files, in the order of rows, so that those of a directory lie together
    at the end  512 bytes, which the superblock does not count: the xxh3-128 of all before, and zeros

The file is written from front to back, once. It holds nothing but what follows from tree, sizes and `Look`:
two images of these are equal, byte by byte. Where they are kept: `store.erofs.shelf`.

Blocking; any thread. Memory: some 20 bytes a row.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from store.erofs.directories import Directory, directory_bytes, plan_directory
from store.erofs.files import OID, OPAQUE, Files
from store.erofs.layout import (
    BLOCK,
    INLINE,
    INODE,
    INODE_BYTES,
    PLAIN,
    SLOT,
    Attribute,
    inode_format,
    round_up,
    superblock,
    xattr_bytes,
    xattr_count,
)
from store.erofs.look import USER, Look
from store.erofs.shelf import trailer
from store.errors import StoreError
from store.layouts import OBJECT_ROOTS
from store.tree import DIRECTORY, ROOT_ROW, SYMLINK, UNKNOWN, Tree

LARGEST_FILE: Final = (1 << 44) - BLOCK + 1
"""Bytes, and one more than a file can have: blocks are counted with 32 bits."""
_AT_ONCE: Final = 1 << 14
"""Files whose records are made together."""
_SYMLINK_MODE: Final = 0o120_777
_DIRECTORY_MODE: Final = 0o040_777
_PRIVATE_MODE: Final = 0o040_700


@dataclass(frozen=True, slots=True)
class Described:
    """What an image is made of."""

    tree: Tree
    sizes: NDArray[np.int64]
    """Bytes, by row; all of files are known."""
    times: NDArray[np.uint32]
    """Seconds since the epoch, by row."""
    look: Look
    targets: Mapping[int, bytes]
    """Where symlinks lead, by row."""
    oid: str = ""
    """Of the root, where the tree is one directory of DVC's."""


def write_image(described: Described, path: Path) -> None:
    """Write the image, whole or not at all. Mode 0600.

    Raises `StoreError` where a size is not known or too large, and `OSError`.
    """
    tree = described.tree
    is_file = (np.frombuffer(tree.flags, np.uint8) & (DIRECTORY | SYMLINK)) == 0
    unknown = int(np.count_nonzero(described.sizes[is_file] == UNKNOWN))
    if unknown:
        raise StoreError(f"no image can be made while the sizes of {unknown} files are not known")
    if (described.sizes[is_file] >= LARGEST_FILE).any():
        raise StoreError(
            f"no image can be made: a file has {described.sizes.max()} bytes, more than one can show"
        )
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            _Writer(described, file).write()
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class _Writer:
    def __init__(self, described: Described, file: BinaryIO) -> None:
        self._of = described
        self._file = file
        self._state = xxhash.xxh3_128()
        self._written = 0
        tree = described.tree
        flags = np.frombuffer(tree.flags, np.uint8)
        self._small = np.flatnonzero(flags & (DIRECTORY | SYMLINK)).tolist()
        self._file_rows = np.flatnonzero((flags & (DIRECTORY | SYMLINK)) == 0)
        self._files = Files(tree, described.sizes, described.times, OBJECT_ROOTS, described.look)
        root = [Attribute(USER, OID, described.oid.encode())] if described.oid else []
        self._root_attributes = xattr_bytes(root)
        # Nothing is merged into directories but into the root: the layers below are not asked for more.
        self._top_attributes = xattr_bytes([Attribute(described.look.space, OPAQUE, b"y")])
        self._places: NDArray[np.int64] = np.zeros(tree.rows, np.int64)
        self._planned: dict[int, Directory] = {}
        self._starts: dict[int, int] = {}
        """The first block of those directories and symlinks that are not inline."""

    def write(self) -> None:
        tree = self._of.tree
        files_start, end = self._place()
        nids = (self._places // SLOT).astype(np.uint64)
        blocks = round_up(end, BLOCK) // BLOCK
        self._put(superblock(root=int(nids[ROOT_ROW]), inodes=tree.rows, blocks=blocks))
        for row in self._small:
            self._pad(int(self._places[row]))
            self._put(self._inode(row))
            if row not in self._starts:
                self._put(self._data(row, nids))
        for row in self._starts:
            self._pad(self._starts[row] * BLOCK)
            self._put(self._data(row, nids))
        self._pad(files_start)
        for start in range(0, len(self._file_rows), _AT_ONCE):
            self._put(self._files.records(self._file_rows[start : start + _AT_ONCE]))
        self._pad(blocks * BLOCK)
        self._file.write(trailer(self._state))

    def _place(self) -> tuple[int, int]:
        """Give everything its place. Where the files begin, and where all ends."""
        tree, place = self._of.tree, BLOCK
        outside: list[tuple[int, int]] = []
        for row in self._small:
            size = self._size(row)
            head = INODE_BYTES + len(self._attributes(row))
            length = head + size
            if length > BLOCK:
                outside.append((row, size))
                length = head
            if place % BLOCK + length > BLOCK:  # what is inline must lie in one block with its inode
                place = round_up(place, BLOCK)
            self._places[row] = place
            place = round_up(place + length, SLOT)
        place = round_up(place, BLOCK)
        for row, size in outside:
            self._starts[row] = place // BLOCK
            place += round_up(size, BLOCK)
        lengths = self._files.lengths(self._file_rows)
        ends = np.cumsum(lengths)
        self._places[self._file_rows] = place + ends - lengths
        assert tree.rows == len(self._small) + len(lengths)
        return place, place + (int(ends[-1]) if len(ends) else 0)

    def _size(self, row: int) -> int:
        if not self._of.tree.is_directory(row):
            return len(self._of.targets[row])
        planned = self._planned[row] = plan_directory(self._of.tree, row)
        return planned.size

    def _attributes(self, row: int) -> bytes:
        if row == ROOT_ROW:
            return self._root_attributes
        tree = self._of.tree
        return self._top_attributes if tree.parent[row] == ROOT_ROW and tree.is_directory(row) else b""

    def _inode(self, row: int) -> bytes:
        tree, look = self._of.tree, self._of.look
        attributes = self._attributes(row)
        inode: NDArray[Any] = np.zeros(1, INODE)
        inode["format"] = inode_format(PLAIN if row in self._starts else INLINE)
        inode["xattr_count"] = xattr_count(len(attributes))
        inode["start"] = self._starts.get(row, 0)
        inode["ino"], inode["uid"], inode["gid"] = row + 1, look.uid, look.gid
        inode["mtime"] = self._of.times[row]
        if tree.is_directory(row):
            children = tree.children(row)
            # A directory's flags are that one bit and nothing else.
            below = bytes(tree.flags[children.start : children.stop]).count(DIRECTORY)
            inode["mode"], inode["nlink"] = _DIRECTORY_MODE & ~look.umask, 2 + below
            inode["size"] = self._planned[row].size
            if row == ROOT_ROW and look.private_to >= 0:
                inode["mode"], inode["uid"] = _PRIVATE_MODE, look.private_to
        else:
            inode["mode"], inode["nlink"] = _SYMLINK_MODE, 1
            inode["size"] = len(self._of.targets[row])
        return inode.tobytes() + attributes

    def _data(self, row: int, nids: NDArray[np.uint64]) -> bytes:
        if not self._of.tree.is_directory(row):
            return self._of.targets[row]
        return directory_bytes(self._of.tree, self._planned.pop(row), nids)

    def _pad(self, place: int) -> None:
        self._put(bytes(place - self._written))

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._state.update(data)
        self._written += len(data)
