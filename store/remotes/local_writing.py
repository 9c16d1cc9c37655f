"""Writing to a directory that is a remote: files enter it whole, hard on the disk, and by a rename.

What is new takes owner, group and mode from the directory (`store.ownership`), objects are 0444: DVC trusts
those of a local remote for that. On its way a file lies in `fusefs/uploads` and is locked, so what a process
left behind that was killed can be told, and is removed by the next one. Names are not synced one by one: a
file system's journal has them in the order in which they were given. Blocking; any thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from errno import EDQUOT, EFBIG, ELOOP, ENOENT, ENOSPC, ENOTDIR, ENOTSUP, EPERM, EROFS
from pathlib import Path
from typing import Final

from store.errors import RemoteAbsent, RemoteCorrupt, RemoteDenied, RemoteError, RemoteFull, RemoteUnreachable
from store.ownership import OBJECT_MODE, Ownership, make_root
from store.remotes.storage import UPLOADS, measured
from store.syncing import write_all

DEAD_SECONDS: Final = 86400.0
"""An upload that nobody has locked or written to for so long is nobody's."""
_NEW_ROOT_MODE: Final = 0o777  # as far as the umask lets it
_FULL: Final = frozenset({ENOSPC, EDQUOT, EFBIG})
_NO_LINKS: Final = frozenset({EPERM, ENOTSUP})


class DirectoryWriter:
    """What `LocalStorage` writes with."""

    def __init__(self, who: str, root: Path, *, shared: bool) -> None:
        """`shared`: with the group, as DVC's option `shared` has it."""
        self._who = who
        self._root = root
        self._shared = shared
        self._has_swept = False

    def put(self, key: str, parts: Iterable[bytes], size: int, *, if_absent: bool) -> bool:
        """As `WritableStorage.put`. The directory is made where it is missing, as DVC does."""
        *above, name = self._segments(key)
        with self._told(key), self._opened_root(create=True) as (root, ownership):
            uploads = self._descend(UPLOADS.strip("/").split("/"), root, ownership)
            try:
                self._sweep(uploads)
                directory = self._descend(above, root, ownership)
                try:
                    return self._write(directory, name, uploads, ownership, parts, size, if_absent)
                finally:
                    os.close(directory)
            finally:
                os.close(uploads)

    def delete(self, keys: Sequence[str]) -> None:
        """As `WritableStorage.delete`; directories stay."""
        for key in keys:
            *above, name = self._segments(key)
            with self._told(key), self._opened_root(create=False) as (root, ownership):
                try:
                    directory = self._descend(above, root, ownership, create=False)
                except FileNotFoundError:
                    continue
                try:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=directory)
                finally:
                    os.close(directory)

    def _write(
        self,
        directory: int,
        name: str,
        uploads: int,
        ownership: Ownership,
        parts: Iterable[bytes],
        size: int,
        if_absent: bool,
    ) -> bool:
        """Write a new file and give it its name."""
        if if_absent and _is_there(name, directory):
            return False
        upload = secrets.token_hex(16)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(upload, flags, OBJECT_MODE, dir_fd=uploads)
        try:
            with contextlib.suppress(OSError):  # a network's file system may have no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for part in _guarded(measured(parts, size)):
                write_all(descriptor, part)
            if os.fstat(descriptor).st_size != size:
                raise RemoteCorrupt(f"{self._who}: its file system has kept another length than was written")
            ownership.settle_object(descriptor)
            os.fsync(descriptor)
            if if_absent:
                if not _link(upload, uploads, name, directory):
                    return False
            else:
                os.rename(upload, name, src_dir_fd=uploads, dst_dir_fd=directory)
            return True
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(upload, dir_fd=uploads)

    def _segments(self, key: str) -> list[str]:
        segments = key.split("/")
        if not {"", ".", ".."}.isdisjoint(segments) or "\0" in key:
            raise RemoteError(f"{self._who} can have no such key")
        return segments

    @contextlib.contextmanager
    def _opened_root(self, *, create: bool) -> Iterator[tuple[int, Ownership]]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            root = os.open(self._root, flags)
        except FileNotFoundError:
            if not create:
                raise RemoteAbsent(f"{self._who}: its directory is not there; is it to be mounted?") from None
            make_root(self._root, _NEW_ROOT_MODE)
            root = os.open(self._root, flags)
        try:
            yield root, Ownership.of_directory(root, shared_with_group=self._shared)
        finally:
            os.close(root)

    def _descend(self, segments: Sequence[str], root: int, ownership: Ownership, create: bool = True) -> int:
        """A directory below the root, by no symlink. Raises `OSError`."""
        current = os.dup(root)
        for segment in segments:
            above = current
            try:
                current = ownership.open_directory(segment, above, create=create)
            finally:
                os.close(above)
        return current

    def _sweep(self, uploads: int) -> None:
        """Remove, once, what was left behind."""
        if self._has_swept:
            return
        self._has_swept = True
        with contextlib.suppress(OSError), os.scandir(uploads) as entries:
            for entry in entries:
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > DEAD_SECONDS:
                    _remove_unlocked(entry.name, uploads)

    @contextlib.contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """What the system says, as errors of our own; what comes of the parts passes through."""
        try:
            yield
        except _OfParts as error:
            raise error.cause from None
        except OSError as error:
            raise self._error(error, key) from None

    def _error(self, error: OSError, key: str) -> RemoteError:
        if error.errno in _FULL:
            return RemoteFull(f"{self._who} has no room for {key}: {os.strerror(error.errno or 0).lower()}")
        if error.errno == EROFS:
            return RemoteDenied(f"{self._who} is mounted read-only")
        if isinstance(error, PermissionError):
            return RemoteDenied(f"{self._who} does not let us write {key}")
        if error.errno in (ELOOP, ENOTDIR):
            return RemoteCorrupt(f"{self._who}: a directory of {key} is a symlink or is none")
        if isinstance(error, IsADirectoryError):
            return RemoteCorrupt(f"{self._who}: {key} is a directory")
        return RemoteUnreachable(f"{self._who}: {key}: {os.strerror(error.errno or ENOENT).lower()}")


class _OfParts(Exception):
    """Carries what iterating the parts raised past the handlers that are for the directory."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__()
        self.cause = cause


def _guarded(parts: Iterator[bytes]) -> Iterator[bytes]:
    while True:
        try:
            part = next(parts)
        except StopIteration:
            return
        except Exception as error:
            raise _OfParts(error) from None
        yield part


def _link(upload: str, uploads: int, name: str, directory: int) -> bool:
    """Give a file its name unless that is taken."""
    try:
        os.link(upload, name, src_dir_fd=uploads, dst_dir_fd=directory)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without links: a look before is all there is.
        if _is_there(name, directory):
            return False
        os.rename(upload, name, src_dir_fd=uploads, dst_dir_fd=directory)
    return True


def _is_there(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _remove_unlocked(name: str, directory: int) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        descriptor = os.open(name, flags, dir_fd=directory)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=directory)
        finally:
            os.close(descriptor)
