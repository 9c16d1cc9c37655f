"""Whose a new directory or object in a cache is, and who may read it.

A cache belongs to whoever made its directory: what is written into it takes owner, group and
mode from there, also when root writes it, so that its people can go on using it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store.layouts import OBJECT_ROOTS
from store.oid import MD5

OBJECT_MODE: Final = 0o444
SHARED_DIRECTORY_MODE: Final = 0o2775
OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Ownership:
    """What new things in one cache get. `uid` or `gid` -1: what the kernel gives is right."""

    uid: int
    gid: int
    directory_mode: int
    fix_mode: bool
    """The umask takes bits from `OBJECT_MODE`, so every object needs an `fchmod`."""

    @classmethod
    def of_directory(cls, fd: int, *, shared_with_group: bool) -> Ownership:
        """Ownership as the directory `fd` (the cache's root) shows it, and what DVC has made there:
        `cache.shared` may have come later than the root."""
        status = os.fstat(fd)
        mode = stat.S_IMODE(status.st_mode) & 0o2777 | _group_bits(OBJECT_ROOTS[MD5], fd)
        if shared_with_group:
            mode = SHARED_DIRECTORY_MODE
        is_root = os.geteuid() == 0
        uid = status.st_uid if is_root and status.st_uid != 0 else -1
        # A directory with the setgid bit hands its group on; otherwise a stranger's group must be set.
        regroup = status.st_gid != os.getegid() and (is_root or shared_with_group)
        return cls(uid, status.st_gid if regroup else -1, mode, bool(_umask() & OBJECT_MODE))

    @property
    def changes_owner(self) -> bool:
        return self.uid != -1 or self.gid != -1

    def settle_object(self, fd: int) -> None:
        """Give the new file `fd`, created with `OBJECT_MODE`, its owner, group and mode."""
        if self.changes_owner:
            self._chown(fd)
        if self.fix_mode:
            os.fchmod(fd, OBJECT_MODE)

    def open_directory(self, name: str, parent: int, *, create: bool) -> int:
        """Descriptor of the directory `name` in `parent`, which is made where it is missing.

        Never follows a symbolic link. Raises `OSError`; `FileNotFoundError` if not `create`.
        """
        try:
            return os.open(name, OPEN_DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            if not create:
                raise
        with contextlib.suppress(FileExistsError):  # another commit was quicker
            os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, OPEN_DIRECTORY, dir_fd=parent)
        try:
            if os.fstat(fd).st_uid == os.geteuid():
                self._chown(fd)
                os.fchmod(fd, self.directory_mode)  # after chown, which may clear the setgid bit
        except BaseException:
            os.close(fd)
            raise
        return fd

    def open_own_file(self, name: str, parent: int) -> int:
        """Descriptor, for reading and writing, of our own file `name`, which is made where it is missing.

        Who may write to the cache may open it, and nobody else. Never follows a symbolic link.
        Raises `OSError`.
        """
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent)
        except FileExistsError:
            fd = os.open(name, flags, dir_fd=parent)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                raise
            return fd
        try:
            self._chown(fd)
            os.fchmod(fd, 0o600 | self.directory_mode & 0o060)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _chown(self, fd: int) -> None:
        if not self.changes_owner:
            return
        try:
            os.fchown(fd, self.uid, self.gid)
        except PermissionError:
            # Not root, and not a member of the group: the file stays ours, and readable.
            if os.geteuid() == 0:
                raise


def _group_bits(name: str, parent: int) -> int:
    """What a directory lets its group do that it is shared with; nothing where there is none."""
    try:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except OSError:
        return 0
    return mode & 0o2070 if stat.S_ISDIR(mode) and mode & stat.S_ISGID else 0


def make_root(path: Path, mode: int, *, shared_with_group: bool = False) -> None:
    """Make the cache directory `path` (and its parents) where it is missing, for the owner of the
    nearest directory that is there. `mode` is subject to the umask. Raises `OSError`."""
    missing = []
    current = path
    while not current.exists():
        missing.append(current)
        current = current.parent
    owner = current.stat()
    for directory in reversed(missing):
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode)
            if os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (0, 0):
                os.chown(directory, owner.st_uid, owner.st_gid, follow_symlinks=False)
            if shared_with_group:
                directory.chmod(SHARED_DIRECTORY_MODE)  # after chown, which may clear the setgid bit


def _umask() -> int:
    # os.umask can only be read by setting it, for all threads at once.
    match = re.search(r"^Umask:\s*([0-7]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(match[1], 8) if match else 0o777
