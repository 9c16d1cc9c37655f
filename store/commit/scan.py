"""What a folder holds: the files that a version of it will name, as DVC would choose them.

Called by `version` before anything is written, so that a folder that cannot be committed is
refused at once. Pure reading; any thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from store.dvc.ignore import DVCIGNORE
from store.errors import InputError

_KINDS: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class Found(msgspec.Struct, frozen=True, gc=False):
    """A regular file of the folder. `relpath` is `/`-separated; times are in nanoseconds."""

    relpath: str
    size: int
    device: int
    inode: int
    mtime_ns: int
    ctime_ns: int
    isexec: bool
    is_symlink: bool


def scan(source: str, ignores: Callable[[str, bool], bool]) -> list[Found]:
    """All files below the directory `source` (absolute); those of one directory by inode.

    `ignores(relpath, is_dir)` says what is left out, of paths relative to `source`. As in DVC:
    symbolic links to files count with the content of their target, those to directories are left
    out, empty directories leave no trace. Raises `InputError` for what cannot be committed: a broken
    link, a FIFO, socket or device, an unreadable directory, and a `.dvcignore` inside the folder (its
    rules would be lost with the version).
    """
    found: list[Found] = []
    pending = [""]
    while pending:
        below = pending.pop()
        prefix = f"{below}/" if below else ""
        for entry in _list_directory(f"{source}/{below}"):
            relpath = prefix + entry.name
            if _is_directory(entry):
                if not entry.is_symlink() and not ignores(relpath, True):
                    pending.append(relpath)
            elif not ignores(relpath, False):
                if entry.name == DVCIGNORE:
                    raise InputError(
                        f"{entry.path!r}: a {DVCIGNORE} cannot be part of a version; "
                        "move its rules to one above the folder"
                    )
                found.append(_describe(entry, relpath))
    return found


def describe_file(path: str, name: str) -> Found:
    """The single file at `path`, to be called `name`; errors as from `scan`."""
    try:
        is_symlink = Path(path).is_symlink()
        status = Path(path).stat()
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error.strerror}") from None
    return _found(path, name, status, is_symlink)


def _list_directory(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            # What was made one after the other mostly lies so on the disk, inodes and bytes.
            return sorted(entries, key=os.DirEntry.inode)
    except OSError as error:
        raise InputError(f"cannot read the directory {directory!r}: {error.strerror}") from None


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into a loop, or to where we may not look: not a directory to us
        return False


def _describe(entry: os.DirEntry[str], relpath: str) -> Found:
    is_symlink = entry.is_symlink()
    try:
        status = entry.stat()
    except OSError as error:
        if is_symlink:
            raise InputError(
                f"{entry.path!r} is a broken symbolic link; remove it or name it in {DVCIGNORE}"
            ) from None
        raise InputError(f"cannot read {entry.path!r}: {error.strerror}") from None
    return _found(entry.path, relpath, status, is_symlink)


def _found(path: str, relpath: str, status: os.stat_result, is_symlink: bool) -> Found:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "not a regular file")
        raise InputError(f"{path!r} is {kind}, which no version can hold; name it in {DVCIGNORE}")
    return Found(
        relpath,
        status.st_size,
        status.st_dev,
        status.st_ino,
        status.st_mtime_ns,
        status.st_ctime_ns,
        bool(status.st_mode & 0o111),
        is_symlink,
    )
