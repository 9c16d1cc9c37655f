"""`LocalCache`: the whole objects of a cache directory, as DVC lays them out. Reading only.

DVC trusts what lies there without hashing it, and so must a reader; but a length that is not the
known one, a symlink, a FIFO or a device where an object should be is refused. The directory may
be shared with other users and is opened beneath, never through links (its root may be one).

Blocking calls for worker threads; the `try_` twins answer from the kernel's caches or raise
`BlockingIOError`, and are for the event loop.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from errno import ELOOP, ENOENT, ENOTDIR
from pathlib import Path

from store.errors import CacheUnusable, ObjectCorrupt, ObjectMissing
from store.layouts import OBJECT_ROOTS, object_path
from store.oid import Oid
from store.openat2 import open_beneath
from store.tree import UNKNOWN


class _Directory:
    """The open root of a cache. Closed when the last call that uses it is done, in whatever thread."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)

    def is_at(self, path: Path) -> bool:
        try:
            return os.path.samestat(os.fstat(self.descriptor), path.stat())
        except OSError:
            return False


class LocalCache:
    """A cache directory. It need not exist yet: then every object is missing.

    It may be removed and made anew meanwhile, as `rm -rf` and a fetch do: whoever does not find
    an object looks whether the directory is still the one that is at the root's path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._directory: _Directory | None = None

    def close(self) -> None:
        self._directory = None

    def open(self, oid: Oid) -> tuple[int, int]:
        """Open an object: (descriptor, its length in bytes).

        Raises `ObjectMissing`, `ObjectCorrupt` where something else lies in its place, and
        `CacheUnusable` where it is there and cannot be read.
        """
        return self._open(oid, cached=False)

    def try_open(self, oid: Oid) -> tuple[int, int]:
        """As `open`, but raises `BlockingIOError` instead of waiting for the disk."""
        return self._open(oid, cached=True)

    def find(self, oid: Oid) -> tuple[int, int] | None:
        """As `open`, at less cost for what is missing; None where nothing can be served.

        It is looked for in the directory that was opened last: `follow` sees to that being the right one.
        """
        try:
            path = object_path(oid).encode("ascii")
            descriptor = open_beneath(self._open_root().descriptor, path)
        except OSError:
            return None
        try:
            return descriptor, self._length(oid, descriptor)
        except (OSError, ObjectCorrupt):
            os.close(descriptor)
            return None

    def follow(self) -> None:
        """Look into the directory that is at the root's path now, if there is one, from here on."""
        with contextlib.suppress(OSError):
            self._open_root(anew=True)

    def size(self, oid: Oid) -> int:
        """The length of an object in bytes. Raises as `open` does."""
        return self._size(oid, cached=False)

    def try_size(self, oid: Oid) -> int:
        """As `size`, but raises `BlockingIOError` instead of waiting for the disk."""
        return self._size(oid, cached=True)

    def lengths(self, digests: Sequence[str], algorithm: str) -> list[int]:
        """The lengths of many files' objects, given by their hex digits; `UNKNOWN` for what cannot be told.

        For listings: a fifth of the cost of `size`, because nothing is opened.
        """
        found = self.look_at(digests, algorithm)
        return [UNKNOWN if status is None else status.st_size for status in found]

    def look_at(self, digests: Sequence[str], algorithm: str) -> list[os.stat_result | None]:
        """As `lengths`, with all that `stat` tells; None for what cannot be told."""
        root = OBJECT_ROOTS[algorithm]
        prefix = f"{root}/" if root else ""
        try:
            directory = self._open_root(anew=True)
        except OSError:
            return [None] * len(digests)
        plain: dict[str, bool] = {}
        found: list[os.stat_result | None] = []
        for digest in digests:
            try:
                if not _is_plain(prefix + digest[:2], directory.descriptor, plain):
                    found.append(None)
                    continue
                status = os.stat(
                    f"{prefix}{digest[:2]}/{digest[2:]}", dir_fd=directory.descriptor, follow_symlinks=False
                )
            except OSError:
                found.append(None)
            else:
                found.append(status if stat.S_ISREG(status.st_mode) else None)
        return found

    def has(self, oid: Oid) -> bool:
        """Is there something that can be served in the object's place?"""
        try:
            self.size(oid)
        except (ObjectMissing, ObjectCorrupt, CacheUnusable):
            return False
        return True

    def read(self, oid: Oid) -> bytes:
        """A small object whole (a manifest). Raises as `open` does."""
        descriptor, _ = self.open(oid)
        with open(descriptor, "rb") as file:
            return file.read()

    def _open(self, oid: Oid, *, cached: bool) -> tuple[int, int]:
        descriptor = self._descend(oid, os.O_RDONLY, cached)
        try:
            return descriptor, self._length(oid, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def _size(self, oid: Oid, *, cached: bool) -> int:
        descriptor = self._descend(oid, os.O_PATH, cached)
        try:
            return self._length(oid, descriptor)
        finally:
            os.close(descriptor)

    def _descend(self, oid: Oid, flags: int, cached: bool) -> int:
        path = object_path(oid).encode("ascii")
        try:
            directory = self._open_root()
            try:
                return open_beneath(directory.descriptor, path, flags=flags, cached=cached)
            except FileNotFoundError:
                if cached:
                    raise BlockingIOError from None  # the disk must tell where the directory is now
                anew = self._open_root(anew=True)
                if anew is directory:
                    raise
                return open_beneath(anew.descriptor, path, flags=flags)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno == ENOENT:
                raise ObjectMissing(f"object {oid} is not in the cache {self.root}") from None
            if error.errno in (ELOOP, ENOTDIR):
                raise ObjectCorrupt(
                    f"object {oid} in the cache {self.root} lies behind a symlink or is one; "
                    "objects are regular files"
                ) from None
            raise CacheUnusable(f"object {oid} in the cache {self.root}: {error.strerror}") from None

    def _open_root(self, *, anew: bool = False) -> _Directory:
        """The root, opened; with `anew`, the one that is there now."""
        directory = self._directory
        if directory is None or (anew and not directory.is_at(self.root)):
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            directory = self._directory = _Directory(os.open(self.root, flags))
        return directory

    def _length(self, oid: Oid, descriptor: int) -> int:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ObjectCorrupt(f"object {oid} in the cache {self.root} is not a regular file; remove it")
        return status.st_size


def _is_plain(path: str, root: int, known: dict[str, bool]) -> bool:
    """Whether a prefix directory is one and no link to one: what a link leads to tells no sizes here."""
    if path not in known:
        known[path] = stat.S_ISDIR(os.stat(path, dir_fd=root, follow_symlinks=False).st_mode)
    return known[path]
