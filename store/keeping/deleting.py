"""Deleting beneath a directory: one regular file of the expected length, through no link, that nobody uses.

The directory may be shared with people who would like our rights to delete something else. Callers:
`store.keeping`. Blocking; any thread.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from enum import Enum
from errno import ELOOP, ENOTDIR
from pathlib import Path

from store.keeping.leases import claim
from store.openat2 import open_beneath


class Fate(Enum):
    """What became, or would become, of a file that is to be deleted."""

    FREE = "free"
    """It is deleted, or could be."""
    GONE = "gone"
    """It is not there any more."""
    OTHER = "other"
    """Something else is in its place: no regular file, or one of another length."""
    PINNED = "pinned"
    """It has more names: deleting this one frees nothing."""
    OPEN = "open"
    """Somebody uses it."""
    DENIED = "denied"
    """It is not ours to delete."""


def fate_of(root: int, path: str, size: int | None) -> Fate:
    """What would become of the file at the relative `path`, which should have `size` bytes."""
    with _claimed(root, path, size) as (fate, _):
        return fate


def delete_file(root: int, path: str, size: int | None) -> Fate:
    """Delete it, if `fate_of` is `FREE`."""
    with _claimed(root, path, size) as (fate, parent):
        if fate is Fate.FREE:
            try:
                os.unlink(path.rpartition("/")[2], dir_fd=parent)
            except FileNotFoundError:
                return Fate.GONE
            except OSError:
                return Fate.DENIED
        return fate


def open_root(path: Path) -> int:
    """A directory, to delete beneath it; the way to it is the user's word. Raises `OSError`."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextlib.contextmanager
def _claimed(root: int, path: str, size: int | None) -> Iterator[tuple[Fate, int]]:
    """The fate of a file, which nobody begins to use meanwhile without being noticed, and its directory."""
    directory, _, name = path.rpartition("/")
    with contextlib.ExitStack() as stack:
        try:
            parent = open_beneath(root, os.fsencode(directory or "."), flags=os.O_PATH)
            stack.callback(os.close, parent)
            file = open_beneath(parent, os.fsencode(name))
            stack.callback(os.close, file)
        except FileNotFoundError:
            yield Fate.GONE, -1
        except OSError as error:
            yield (Fate.OTHER if error.errno in (ELOOP, ENOTDIR) else Fate.DENIED), -1
        else:
            yield _judge(file, parent, name, size), parent


def _judge(file: int, parent: int, name: str, size: int | None) -> Fate:
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or size not in (None, status.st_size):
        return Fate.OTHER
    if status.st_nlink > 1:
        return Fate.PINNED
    if not claim(file):
        return Fate.OPEN
    try:
        there = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return Fate.GONE
    return Fate.FREE if os.path.samestat(status, there) else Fate.GONE
