"""Row → `stat`: one reused `EntryAttributes` is filled for every answer.

Everything but owner and mode is implied by content, so that two mounts of one version are the
same everywhere. Times too: mtime = ctime = atime is a date between 2000 and 2017 that the content's
digest picks (a directory's: the digest of all that is below it). A file that differs between two
versions gets another time, one that does not keeps it, so that rsync, make and caches keyed by
time and size stay right across versions; a commit's date could promise neither.

Names and bytes never change, so the kernel may keep attributes for ever; a size that is still
unknown is listed with a timeout of zero, upon which the kernel asks again before it is used.
"""

from __future__ import annotations

import stat
from typing import Final

import pyfuse3

from fusefs.content_times import time_of
from store.tree import DIRECTORY, EXECUTABLE, ROOT_ROW, SYMLINK, UNKNOWN, Tree

FOREVER: Final = 3600.0 * 24 * 365
"""Seconds. The kernel takes it as never: it drops entries for want of memory long before."""

_NANOSECONDS: Final = 10**9
BLOCK_BYTES: Final = 512
DIRECTORY_BYTES: Final = 4096
PREFERRED_READ: Final = 1 << 17
WORD_BYTES: Final = 4


class AttributeWriter:
    """Fills attributes for the rows of one tree. Lives on the event loop.

    `fill` returns the same object every time: use it before the next checkpoint. `first_directory` and
    `first_file` are the inodes that row 0 would have as the one and as the other. With `private_to` the root
    belongs to that user, and nobody else may enter. What a file is said to take of the disk is a multiple of
    `block_bytes`.
    """

    def __init__(
        self,
        tree: Tree,
        *,
        uid: int,
        gid: int,
        umask: int,
        first_directory: int,
        first_file: int,
        entry_timeout: float = FOREVER,
        private_to: int = -1,
        preferred_read: int = PREFERRED_READ,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._tree = tree
        self._block_bytes = block_bytes
        self._blocks_each = block_bytes // BLOCK_BYTES
        self._first_directory = first_directory
        self._first_file = first_file
        self._entry_timeout = entry_timeout
        self._words = tree.digest_words
        self._words_per_digest = tree.digest_width // WORD_BYTES
        self._flags = tree.flags
        self._directory_mode = stat.S_IFDIR | (0o777 & ~umask)
        self._file_modes = {
            0: pyfuse3.ModeT(stat.S_IFREG | (0o666 & ~umask)),
            EXECUTABLE: pyfuse3.ModeT(stat.S_IFREG | (0o777 & ~umask)),
            SYMLINK: pyfuse3.ModeT(stat.S_IFLNK | 0o777),
        }
        self._file = _blank(uid, gid, entry_timeout)
        self._file.st_blksize = preferred_read
        self._file.st_nlink = 1
        self._directory = _blank(uid, gid, entry_timeout)
        self._directory.st_mode = pyfuse3.ModeT(self._directory_mode)
        self._directory.st_size = DIRECTORY_BYTES
        self._root = self._directory
        if private_to >= 0:
            self._root = _blank(private_to, gid, entry_timeout)
            self._root.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o700)
            self._root.st_size = DIRECTORY_BYTES

    def fill(self, row: int, size: int) -> pyfuse3.EntryAttributes:
        """The attributes of a row; `size` in bytes is ignored for directories."""
        flags = self._flags[row]
        first = self._first_file
        if flags & DIRECTORY:
            first = self._first_directory
            entry = self._root if row == ROOT_ROW else self._directory
            children = self._tree.children(row)
            # A directory's flags are that one bit and nothing else, so its subdirectories can be counted.
            below = bytes(self._flags[children.start : children.stop]).count(DIRECTORY)
            entry.st_nlink = 2 + below
            entry.entry_timeout = self._entry_timeout
        else:
            entry = self._file
            entry.st_mode = self._file_modes[flags & (EXECUTABLE | SYMLINK)]
            if size == UNKNOWN:
                entry.st_size = entry.st_blocks = 0
                entry.attr_timeout = 0
            else:
                entry.st_size = size
                entry.st_blocks = -(-size // self._block_bytes) * self._blocks_each
                entry.attr_timeout = FOREVER
        entry.st_ino = pyfuse3.InodeT(row + first)
        digest = self._words[row * self._words_per_digest]
        entry.st_mtime_ns = entry.st_ctime_ns = entry.st_atime_ns = time_of(digest) * _NANOSECONDS
        return entry


def _blank(uid: int, gid: int, entry_timeout: float) -> pyfuse3.EntryAttributes:
    entry = pyfuse3.EntryAttributes()
    entry.st_uid = uid
    entry.st_gid = gid
    entry.st_blksize = PREFERRED_READ
    entry.entry_timeout = entry_timeout
    entry.attr_timeout = FOREVER
    return entry


def absent() -> pyfuse3.EntryAttributes:
    """The answer to a look-up that finds nothing: an inode of zero, which the kernel may keep too."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(0)
    entry.entry_timeout = FOREVER
    return entry
