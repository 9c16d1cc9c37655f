"""`CacheLayers`: what the kernel finds of objects in cache directories that were given to it as layers.

It holds on to the very directories: one that is moved away and made anew is another one, and what comes there
is not found; nor is what is mounted inside of one, nor what lies behind a symlink. Whoever has the kernel
look again must know that it will find the object. Callers: `fusefs.native.fetch_layer`.

Blocking; the `try_` twin answers from the kernel's caches or raises `BlockingIOError`. Any thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from store.layouts import object_path
from store.oid import Oid
from store.openat2 import open_beneath
from store.tree import UNKNOWN


class CacheLayers:
    """The directories, in the order in which they are asked, and then one in `memory`, which stays open.
    Raises OSError for one that is not there."""

    def __init__(self, roots: Sequence[Path], memory: int = -1) -> None:
        self._directories: list[int] = []
        try:
            for root in roots:
                self._directories.append(os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            self._on_disk = len(self._directories)
            if memory >= 0:
                self._directories.append(os.dup(memory))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        while self._directories:
            os.close(self._directories.pop())

    def length(self, oid: Oid) -> int:
        """The length of the object in bytes, in the first layer that has it; `UNKNOWN` where none has."""
        return self._length(oid, cached=False)

    def try_length(self, oid: Oid) -> int:
        """As `length`, but raises `BlockingIOError` instead of waiting for the disk."""
        return self._length(oid, cached=True)

    def _length(self, oid: Oid, *, cached: bool) -> int:
        path = object_path(oid).encode("ascii")
        for number, directory in enumerate(self._directories):
            # Memory never waits, nor remembers the names of what is not there.
            by_caches = cached and number < self._on_disk
            try:
                descriptor = open_beneath(directory, path, flags=os.O_PATH, cached=by_caches, one_mount=True)
            except BlockingIOError:
                raise
            except OSError:
                continue
            try:
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            if stat.S_ISREG(status.st_mode):
                return status.st_size
        return UNKNOWN
