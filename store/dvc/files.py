"""`Files`: where the bytes of metafiles come from; `WorkingFiles`: from a directory on the disk.

Everything that reads what DVC wrote asks a `Files`, never the disk, so that the same code reads a
working tree and a git revision. Paths are `/`-separated and relative to the root that the object
was made for; the root is the empty path. Names that are not UTF-8 hold lone surrogates.

Callers: `store.dvc.ignore`, `store.dvc.discovery`, `store.dvc.target`. Blocking; no state that changes.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from errno import ENAMETOOLONG
from pathlib import Path
from typing import Protocol

from store.errors import InputError


@dataclass(frozen=True, slots=True)
class Item:
    """One name in a directory. A symlink is never a directory here: nothing walks through one."""

    name: str
    is_dir: bool


class Files(Protocol):
    """The files of a working tree or of a git revision."""

    def read(self, path: str, limit: int) -> bytes | None:
        """The bytes of the file at `path`, at most `limit` + 1 of them; None where nothing is.

        Raises `OSError` where there is something that cannot be read, or that is no file.
        """

    def list(self, path: str) -> list[Item]:
        """What the directory `path` holds, sorted by name. Raises `OSError`."""

    def exists(self, path: str) -> bool:
        """Whether anything has that path."""


@dataclass(frozen=True, slots=True)
class WorkingFiles:
    """`Files` of the directory `root` on the disk."""

    root: Path

    def read(self, path: str, limit: int) -> bytes | None:
        return read_regular(self.root / path, limit)

    def list(self, path: str) -> list[Item]:
        with os.scandir(self.root / path) as entries:
            items = [Item(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        return sorted(items, key=lambda item: item.name)

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.root / path)


@dataclass(frozen=True, slots=True)
class SubFiles:
    """`Files` of the directory `root` within other files."""

    files: Files
    root: str

    def read(self, path: str, limit: int) -> bytes | None:
        return self.files.read(join(self.root, path), limit)

    def list(self, path: str) -> list[Item]:
        return self.files.list(join(self.root, path))

    def exists(self, path: str) -> bool:
        return self.files.exists(join(self.root, path))


def join(directory: str, path: str) -> str:
    """`path` in `directory`, which may be the root."""
    return f"{directory}/{path}" if directory and path else directory or path


def read_regular(path: Path, limit: int, *, follow: bool = True) -> bytes | None:
    """At most `limit` + 1 bytes of a regular file; None where nothing is.

    Raises `OSError`, with a `strerror` for people, for what cannot be read and for what is no
    regular file; never waits for a FIFO or a device. `follow=False` refuses a symlink as well.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == ENAMETOOLONG:
            return None  # nothing can be there
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(0, "not a regular file")
        parts = []
        wanted = limit + 1
        while wanted > 0 and (part := os.read(fd, wanted)):
            parts.append(part)
            wanted -= len(part)
    finally:
        os.close(fd)
    return b"".join(parts)


def absolute_path(path: Path) -> Path:
    """`path` from the top. Raises `InputError` where it is relative to a directory that was removed."""
    try:
        return path.absolute()
    except FileNotFoundError:
        raise InputError("the current directory was removed; change to one that exists") from None


def is_directory(path: Path) -> bool:
    """Whether `path` is a directory or leads to one; False as well where that cannot be told."""
    try:
        return path.is_dir()
    except OSError:  # denied, or a name that is too long
        return False
