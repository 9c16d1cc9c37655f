"""`Room`: one commit's temporary directory, `<cache>/fusefs/tmp/<unique>/`.

It lies in the cache because only a rename within one file system is atomic, and outside the
two-digit directories that `dvc gc` cleans. A lock on its file `lock` says that its commit
lives: whoever can take that lock may clear the room away, so a killed commit's leftovers go at
the next one. Used by one commit; `create`, `link` and `discard` by any of its threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from store.errors import CacheUnusable
from store.ownership import OBJECT_MODE, OPEN_DIRECTORY, Ownership

_LOCK: Final = "lock"
_ATTEMPTS: Final = 10


@dataclass(frozen=True, slots=True)
class Room:
    """A directory for objects that are not whole or not durable yet."""

    fd: int
    ownership: Ownership

    def create(self, name: str) -> int:
        """A new empty file, open for reading and writing, with an object's owner and mode."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, OBJECT_MODE, dir_fd=self.fd)
        try:
            self.ownership.settle_object(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def link(self, source: int, name: str) -> None:
        """A hard link to the very file that is open as `source`. Raises `OSError`."""
        os.link(f"/proc/self/fd/{source}", name, dst_dir_fd=self.fd, follow_symlinks=True)

    def discard(self, name: str) -> None:
        os.unlink(name, dir_fd=self.fd)


@contextlib.contextmanager
def open_room(cache: int, ownership: Ownership) -> Iterator[Room]:
    """A new room in the cache directory `cache` for as long as the context lasts.

    Clears what dead commits left. Raises `OSError`, `CacheUnusable`.
    """
    with contextlib.ExitStack() as stack:
        ours = ownership.open_directory("fusefs", cache, create=True)
        stack.callback(os.close, ours)
        rooms = ownership.open_directory("tmp", ours, create=True)
        stack.callback(os.close, rooms)
        for name in _names(rooms):
            _clear_if_dead(name, rooms)
        name, fd, lock = _make_room(rooms)
        stack.callback(os.close, lock)
        stack.callback(_clear, name, fd, rooms)
        yield Room(fd, ownership)


def _names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]


def _make_room(rooms: int) -> tuple[str, int, int]:
    for _ in range(_ATTEMPTS):
        name = f"{os.getpid()}-{secrets.token_hex(6)}"
        os.mkdir(name, 0o700, dir_fd=rooms)
        # Between these calls another commit may take the room for a dead one and clear it: then
        # the lock is refused, or its file has no name any more. Begin anew.
        with contextlib.suppress(FileNotFoundError, BlockingIOError), contextlib.ExitStack() as stack:
            fd = os.open(name, OPEN_DIRECTORY, dir_fd=rooms)
            stack.callback(os.close, fd)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(_LOCK, flags, 0o600, dir_fd=fd)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:
                stack.pop_all()
                return name, fd, lock
    raise CacheUnusable("cannot keep a temporary directory in the cache: something removes it at once")


def _clear_if_dead(name: str, rooms: int) -> None:
    """Remove the room `name` if its commit is dead. Other people's rooms may be closed to us."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        fd = os.open(name, OPEN_DIRECTORY, dir_fd=rooms)
        try:
            lock = os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        except FileNotFoundError:
            os.close(fd)
            os.rmdir(name, dir_fd=rooms)  # fails if it is not empty: then it is not a room of ours
            return
        stack.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return
        _clear(name, fd, rooms)


def _clear(name: str, fd: int, rooms: int) -> None:
    """Remove the room `name` with all that is in it, the lock last; closes `fd`."""
    try:
        for inner in _names(fd):
            if inner != _LOCK:
                os.unlink(inner, dir_fd=fd)
        os.unlink(_LOCK, dir_fd=fd)
        os.rmdir(name, dir_fd=rooms)
    finally:
        os.close(fd)
