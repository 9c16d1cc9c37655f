"""Files of an open directory of logs: reached by no symlink, written whole. Blocking; any thread."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable

from store.oplog.logs import LogName


def names(place: int) -> dict[str, int]:
    """The logs in a directory, and their lengths. Raises `OSError`."""
    with os.scandir(place) as entries:
        return {
            entry.name: entry.stat(follow_symlinks=False).st_size
            for entry in entries
            if LogName.parse(entry.name) and entry.is_file(follow_symlinks=False)
        }


def open_file(place: int, name: str) -> int:
    """A regular file, to be read. Raises `OSError`."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(name)
    return descriptor


def read(place: int, name: str, limit: int) -> bytes:
    """At most so many bytes of a file. Raises `OSError`."""
    with open(open_file(place, name), "rb") as file:
        return file.read(limit)


def peek(place: int, name: str) -> bytes:
    """What is in a small file; empty where there is none."""
    with contextlib.suppress(OSError):
        return read(place, name, 1 << 10)
    return b""


def write(place: int, name: str, data: bytes | Iterable[bytes]) -> None:
    """A file whole or not at all. Raises `OSError`, and what iterating raises."""
    temporary = f".{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o644, dir_fd=place)
    try:
        with open(descriptor, "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
        os.rename(temporary, name, src_dir_fd=place, dst_dir_fd=place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=place)
        raise


def remove(place: int, name: str) -> None:
    """Remove a file, if it is there. Raises `OSError`."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=place)
