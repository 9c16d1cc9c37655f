"""`FlightLocks`: which process of this host is fetching what. Any thread; never waits for another holder.

One file, `<cache>/fusefs/locks`, of which nothing is ever written: an oid, or a block of one, is a byte far
out in it, and holding the byte's lock means to be fetching it. The locks belong to the open file, so they
end with the process however it ends. Two names may share a byte; then one waits for the other in vain, once
in 2**62 pairs.

They save work and keep nothing apart that must be: where the file system has no locks, or the file cannot
be made, everything can be held (`work` says which), and two processes may fetch the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
from pathlib import Path
from typing import Final

import xxhash

from store.oid import Oid
from store.ownership import Ownership

WHOLE: Final = -1
"""The block that stands for an object as a whole."""

_FLOCK: Final = struct.Struct("hhqqi4x")
"""`struct flock` of 64-bit Linux: type, whence, start, length, pid (0 for locks of an open file)."""
_OFFSET_BITS: Final = 62


class FlightLocks:
    """The locks of one cache. Shared by all threads of a process."""

    def __init__(self, cache_root: Path) -> None:
        self._root = cache_root
        self._guard = threading.Lock()
        self._held: set[int] = set()
        """The kernel does not tell threads of one process apart."""
        self._descriptor = -1
        self._is_closed = False
        self._works = self._open()

    @property
    def work(self) -> bool:
        """Whether other processes heed what is held here."""
        with self._guard:
            if not self._held:
                self._follow_the_name()
            return self._works

    def close(self) -> None:
        """Let go of everything."""
        with self._guard:
            self._held.clear()
            self._close()
            self._is_closed = True
            self._works = False

    def disown(self) -> None:
        """In a forked child: the locks are its parent's alone, and must end with that. Waits for nobody."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)  # the guard may be held by a thread that the fork left behind

    def try_hold(self, oid: Oid, block: int = WHOLE) -> bool:
        """Hold the lock if nobody has it, this process included. True says that it is held now."""
        offset = _offset(oid, block)
        with self._guard:
            if offset in self._held:
                return False
            if not self._held:
                self._follow_the_name()
            if self._works and not self._set(fcntl.F_WRLCK, offset):
                return False
            self._held.add(offset)
            return True

    def release(self, oid: Oid, block: int = WHOLE) -> None:
        """Let go of a lock that is held; nothing where it is not."""
        offset = _offset(oid, block)
        with self._guard:
            if offset in self._held:
                self._held.discard(offset)
                if self._works:
                    self._set(fcntl.F_UNLCK, offset)

    def _set(self, kind: int, offset: int) -> bool:
        wanted = _FLOCK.pack(kind, os.SEEK_SET, offset, 1, 0)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, wanted)
        except (BlockingIOError, PermissionError):
            return False  # EAGAIN or EACCES: somebody holds it
        except OSError:
            # ENOLCK, EINVAL, ENOSYS, EOPNOTSUPP: no locks here.
            self._works = False
        return True

    def _follow_the_name(self) -> None:
        """Somebody may have made the cache or cleared it away: then others lock another file by this name."""
        if self._descriptor < 0 and not self._is_closed:
            self._works = self._open()
        elif self._works and os.fstat(self._descriptor).st_nlink == 0:
            self._close()
            self._works = self._open()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> bool:
        try:
            with contextlib.ExitStack() as stack:
                root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, root)
                ownership = Ownership.of_directory(root, shared_with_group=False)
                ours = ownership.open_directory("fusefs", root, create=True)
                stack.callback(os.close, ours)
                self._descriptor = ownership.open_own_file("locks", ours)
        except OSError:
            return False
        return True


def _offset(oid: Oid, block: int) -> int:
    name = f"{oid.algorithm}:{oid}:{block}".encode()
    return xxhash.xxh3_64_intdigest(name) >> (64 - _OFFSET_BITS)
