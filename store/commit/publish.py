"""`ObjectWriter`: puts whole, durable objects into a cache, where DVC looks for those of one algorithm.

The order is the promise: bytes in the room, bytes on the disk, then the rename to the place that
DVC trusts. One sync of the file system serves a whole batch. Everything below the cache's root
is reached through directory descriptors and never through a symbolic link, so a stranger who
shares the cache cannot send our writes elsewhere.

`has` may be called by any thread; the rest by one at a time.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from store.commit.room import Room, open_room
from store.errors import CacheUnusable
from store.layouts import OBJECT_ROOTS
from store.oid import MD5, Oid
from store.oplog.changes import note_changes
from store.ownership import OPEN_DIRECTORY, Ownership, make_root
from store.syncing import sync_file_system

_FEW: Final = 32
"""Up to so many files are synced one by one: a sync of the file system would also wait for
everything else that was ever written to it."""


class Staged(NamedTuple):
    """A file of the room that is to become the object `oid` (as DVC prints it)."""

    name: str
    oid: str
    size: int


class ObjectWriter:
    """An open cache. Made by `open_writer`."""

    def __init__(self, root: int, objects: int, algorithm: str, room: Room) -> None:
        self.room = room
        self._root = root
        self._objects = objects
        self._algorithm = algorithm
        self._prefixes: dict[str, int] = {}
        self._dirty = {objects}
        with os.scandir(objects) as entries:
            names = [entry.name for entry in entries if len(entry.name) == 2]
        for name in names:
            with contextlib.suppress(NotADirectoryError):
                self._prefixes[name] = os.open(name, OPEN_DIRECTORY, dir_fd=objects)

    def close(self) -> None:
        for fd in self._prefixes.values():
            os.close(fd)

    def has(self, oid: str, size: int) -> bool:
        """Whether the object is there with the length it must have."""
        prefix = self._prefixes.get(oid[:2])
        if prefix is None:
            return False
        try:
            status = os.stat(oid[2:], dir_fd=prefix, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == size

    def publish(self, batch: Sequence[Staged]) -> int:
        """Make a batch durable, then give every object its name; how many were not there before.

        The names are durable after `settle`. Raises `OSError`.
        """
        self._sync_files(batch)
        new = []
        for staged in batch:
            # The same content may have been staged twice, or published by somebody meanwhile.
            if self.has(staged.oid, staged.size):
                self.room.discard(staged.name)
                continue
            prefix = self._prefix(staged.oid[:2])
            os.rename(staged.name, staged.oid[2:], src_dir_fd=self.room.fd, dst_dir_fd=prefix)
            self._dirty.add(prefix)
            new.append(staged)
        note_changes(self._root, ((Oid.parse(one.oid, self._algorithm), one.size) for one in new))
        return len(new)

    def settle(self) -> None:
        """Make the names of all published objects durable. Raises `OSError`."""
        if len(self._dirty) > _FEW:
            sync_file_system(self._objects)
        else:
            for fd in self._dirty:
                os.fsync(fd)
        self._dirty.clear()

    def _prefix(self, name: str) -> int:
        fd = self._prefixes.get(name)
        if fd is None:
            fd = self.room.ownership.open_directory(name, self._objects, create=True)
            self._prefixes[name] = fd
            self._dirty.add(self._objects)
        return fd

    def _sync_files(self, batch: Sequence[Staged]) -> None:
        if len(batch) > _FEW:
            sync_file_system(self.room.fd)
            return
        for staged in batch:
            fd = os.open(staged.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.room.fd)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


@contextlib.contextmanager
def open_writer(
    cache: Path, *, shared_with_group: bool, new_mode: int, algorithm: str = MD5
) -> Iterator[ObjectWriter]:
    """Open (or make, with `new_mode` less the umask) the cache at `cache` for writing.

    Every `OSError` from within leaves as `CacheUnusable`, whose one line names the cache.
    """
    try:
        with contextlib.ExitStack() as stack:
            make_root(cache, new_mode, shared_with_group=shared_with_group)
            # The root itself is the user's word, and may be a symbolic link.
            root = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, root)
            ownership = Ownership.of_directory(root, shared_with_group=shared_with_group)
            objects = root
            made = []
            for part in filter(None, OBJECT_ROOTS[algorithm].split("/")):
                made.append(objects)
                objects = ownership.open_directory(part, objects, create=True)
                stack.callback(os.close, objects)
            room = stack.enter_context(open_room(root, ownership))
            for fd in made:
                os.fsync(fd)
            writer = ObjectWriter(root, objects, algorithm, room)
            stack.callback(writer.close)
            yield writer
    except OSError as error:
        name = error.filename2 or error.filename  # a rename's second one is the object's
        what = f" ({name!r})" if name else ""
        raise CacheUnusable(f"cannot write to the cache {str(cache)!r}: {error.strerror}{what}") from error
