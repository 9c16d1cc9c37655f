"""A directory as a remote: of this machine, or mounted from another.

It may be shared with other users: what is read is opened beneath it, through no symlink (the directory itself
may be one), and is a regular file. Any thread. A network mount that hangs keeps a thread; nothing else waits
for it, since whoever called gave it a deadline.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EACCES, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ENXIO, EPERM, EXDEV
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from store.errors import (
    InputError,
    RemoteAbsent,
    RemoteCorrupt,
    RemoteDenied,
    RemoteError,
    RemoteMissing,
    RemoteUnreachable,
)
from store.openat2 import open_beneath
from store.remotes.local_writing import DirectoryWriter
from store.remotes.spec import RemoteSpec
from store.remotes.storage import CHUNK_BYTES, Address, Limits, Listed

DEEPEST: Final = 32
"""Directories below each other that a listing follows."""


@dataclass(frozen=True, slots=True)
class LocalBody:
    """A part of an open file."""

    descriptor: int
    offset: int
    size: int
    length: int
    validator: str
    who: str
    what: str

    def __iter__(self) -> Iterator[bytes]:
        at, end = self.offset, self.offset + self.length
        while at < end:
            try:
                part = os.pread(self.descriptor, min(end - at, CHUNK_BYTES), at)
            except OSError as error:
                raise _error(error, self.who, self.what) from None
            if not part:
                raise RemoteCorrupt(f"{self.who}: {self.what} became shorter while it was read")
            at += len(part)
            yield part


class LocalStorage:
    """A remote in a directory. It need not exist yet; it may be mounted later, or anew."""

    def __init__(self, spec: RemoteSpec, root: Path) -> None:
        self._who = f"remote {spec.name}"
        self._root = root
        self._writer = DirectoryWriter(self._who, root, shared=spec.options.get("shared") == "group")

    @property
    def can_list(self) -> bool:
        return True

    def size(self, address: Address) -> int:
        """Length in bytes."""
        with self._opened(address, os.O_PATH) as descriptor:
            return self._status(descriptor, address.key).st_size

    @contextmanager
    def read(
        self, address: Address, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> Iterator[LocalBody]:
        """As `Storage.read`; the validator is of inode, length and time."""
        what = address.key
        with self._opened(address, os.O_RDONLY) as descriptor:
            status = self._status(descriptor, what)
            found = f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
            if validator and validator != found:
                raise RemoteCorrupt(f"{self._who}: {what} has changed since it was first read")
            coming = status.st_size - offset if length is None else length
            if coming < 0 or offset + coming > status.st_size:
                raise RemoteCorrupt(f"{self._who} does not have that much of {what}")
            yield LocalBody(descriptor, offset, status.st_size, coming, found, self._who, what)

    def list(self, prefix: str) -> Iterator[Listed]:
        """As `Storage.list`: regular files; symlinks are passed over, directories behind them, too."""
        pending = [(prefix, 0)]
        while pending:
            directory, depth = pending.pop()
            for entry, status in self._entries(directory):
                if stat.S_ISDIR(status.st_mode) and depth < DEEPEST:
                    pending.append((f"{directory}{entry}/", depth + 1))
                elif stat.S_ISREG(status.st_mode):
                    yield Listed(directory + entry, status.st_size, status.st_mtime)

    def put(self, key: str, parts: Iterable[bytes], size: int, *, if_absent: bool = False) -> bool:
        """As `WritableStorage.put`."""
        return self._writer.put(key, parts, size, if_absent=if_absent)

    def delete(self, keys: Sequence[str]) -> None:
        """As `WritableStorage.delete`."""
        self._writer.delete(keys)

    def close(self) -> None:
        """Nothing is kept open between calls."""

    def _entries(self, directory: str) -> Iterator[tuple[str, os.stat_result]]:
        try:
            place = Address(directory.rstrip("/") or ".")
            with self._opened(place, os.O_RDONLY) as descriptor, os.scandir(descriptor) as entries:
                for entry in entries:
                    try:
                        yield entry.name, entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
        except RemoteMissing:
            self._check_root()  # no such prefix: an empty listing; no such remote: an error
        except OSError as error:
            raise _error(error, self._who, directory) from None

    @contextmanager
    def _opened(self, address: Address, flags: int) -> Iterator[int]:
        """A file below the root: where it is now, since what is mounted there may change."""
        if address.version:
            raise RemoteMissing(f"{self._who} keeps no versions of {address.key}")
        try:
            root = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._root_error(error) from None
        try:
            descriptor = open_beneath(root, os.fsencode(address.key), flags=flags)
        except (OSError, ValueError) as error:
            raise _error(error, self._who, address.key) from None
        finally:
            os.close(root)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _check_root(self) -> None:
        try:
            self._root.stat()
        except OSError as error:
            raise self._root_error(error) from None

    def _root_error(self, error: OSError) -> RemoteError:
        if error.errno in (EACCES, EPERM):
            return RemoteDenied(f"{self._who}: its directory may not be entered")
        return RemoteAbsent(f"{self._who}: its directory is not there; is it to be mounted?")

    def _status(self, descriptor: int, what: str) -> os.stat_result:
        try:
            status = os.fstat(descriptor)
        except OSError as error:
            raise _error(error, self._who, what) from None
        if stat.S_ISDIR(status.st_mode):
            raise RemoteMissing(f"{self._who} has no {what}: it is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise RemoteCorrupt(f"{self._who}: {what} is not a regular file")
        return status


def open_local(spec: RemoteSpec, limits: Limits) -> LocalStorage:
    """Raises `InputError` for a path that is not absolute. A disk has no limits to be given."""
    path = urlsplit(spec.url).path if spec.url.lower().startswith("file://") else spec.url
    if not path.startswith("/") or "\0" in path:
        raise InputError(f"remote {spec.name}: its path must be absolute")
    return LocalStorage(spec, Path(path))


def _error(error: OSError | ValueError, who: str, what: str) -> RemoteError:
    code = error.errno if isinstance(error, OSError) else EINVAL
    if code in (ENOENT, ENOTDIR, ENAMETOOLONG, EINVAL, EXDEV):
        return RemoteMissing(f"{who} has no {what}")
    if code in (ELOOP, ENXIO):
        return RemoteCorrupt(f"{who}: {what} lies behind a symlink or is no regular file")
    if code in (EACCES, EPERM):
        return RemoteDenied(f"{who} does not let us read {what}")
    return RemoteUnreachable(f"{who}: {what}: {os.strerror(code or EINVAL).lower()}")
