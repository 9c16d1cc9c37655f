"""Whether a directory can be mounted on: everything that is wrong with it, one clear line each.

Called by `fusefs mount` before anything is started. Blocking, with deadlines: what may lie in a
dead mount is asked by a child (`fusefs.bounded`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fusefs import kernel_mount, mountinfo
from fusefs.bounded import call_bounded
from fusefs.logs import escape
from fusefs.mountinfo import Mount
from store.errors import InputError

SECONDS: Final = 5.0
"""How long a mount may take to say that it lives."""
LOCK_SECONDS: Final = 120.0
"""How long another command may take to mount."""
_RETRY_SECONDS: Final = 0.05


@contextlib.contextmanager
def claimed_mountpoint(path: str, *, nonempty: bool) -> Iterator[str]:
    """The real path of a directory that is free to be mounted on; a dead mount on it is cleared.

    Whoever else wants to mount there waits meanwhile, and is then told that it is mounted already. Raises
    `InputError`, or `MountFailed` for a dead mount that cannot be cleared.
    """
    if not path:
        raise InputError("the mountpoint is an empty name")
    try:
        mounts = mountinfo.read_mounts()
        place = mountinfo.resolve(path, mounts)
    except OSError as error:
        raise InputError(f"mountpoint {path}: {error.strerror}") from error
    mount = mountinfo.mount_at(place, mounts)
    if mount is not None and not mount.is_automount:
        _clear_dead(mount)
        mount = mountinfo.mount_at(place, mountinfo.read_mounts())
    with _alone_at(place):
        # Whoever had the lock has mounted; and whoever is not the automounter's has just had it mount there
        # what it has.
        came = mountinfo.mount_at(place, mountinfo.read_mounts())
        if came is not None and came != mount:
            _clear_dead(came)
        try:
            _check_directory(place, nonempty)
        except OSError as error:
            raise InputError(_explain(place, error)) from error
        yield place


@contextlib.contextmanager
def _alone_at(place: str) -> Iterator[None]:
    """Hold a lock on the directory that will be mounted on; what cannot be locked is left to chance."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            held.callback(os.close, directory)
            deadline = time.monotonic() + LOCK_SECONDS
            while not _lock(directory):
                if time.monotonic() > deadline:
                    raise InputError(f"another command has been mounting on {place} for {LOCK_SECONDS:.0f} s")
                time.sleep(_RETRY_SECONDS)  # flock(2) itself waits without a deadline
        yield


def _lock(directory: int) -> bool:
    """Whether the lock is ours now. Raises `OSError` where there are no locks."""
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear_dead(mount: Mount) -> None:
    if not mount.is_ours:
        raise InputError(f"{mount.mountpoint} is mounted already: {mount.fstype} from {mount.source}")
    if not is_dead(mount):
        raise InputError(
            f"{mount.mountpoint} is mounted already, with {mount.target}; `fusefs umount` frees it"
        )
    kernel_mount.unmount(mount, lazy=True)
    below = mountinfo.mount_at(mount.mountpoint, mountinfo.read_mounts())
    if below is not None and not below.is_automount:
        _clear_dead(below)


def is_dead(mount: Mount) -> bool:
    """Whether the daemon of one of our mounts is gone: its readers get ENOTCONN for ever."""

    def ask() -> bytes:
        os.statvfs(mount.mountpoint)  # unlike stat, never answered from the kernel's caches
        return b""

    try:
        call_bounded(ask, SECONDS)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def _check_directory(place: str, nonempty: bool) -> None:
    status = Path(place).stat()
    if not stat.S_ISDIR(status.st_mode):
        raise InputError(f"mountpoint {place} is not a directory")
    if not kernel_mount.has_capability(kernel_mount.CAP_SYS_ADMIN):
        if status.st_mode & stat.S_ISVTX and status.st_uid != os.getuid():
            raise InputError(f"mountpoint {place} is not yours: mount on a directory of your own")
        if not os.access(place, os.W_OK):
            raise InputError(f"mountpoint {place} is not writable: mount on a directory of your own")
    if not nonempty:
        with os.scandir(place) as entries:
            first = next(entries, None)
        if first is not None:
            raise InputError(f"mountpoint {place} is not empty; -o nonempty hides what is in it")


def _explain(place: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"mountpoint {place} does not exist; `mkdir -p` makes it"
    if error.errno == errno.ENOTDIR:
        return f"mountpoint {place} does not exist: something above it is not a directory"
    return f"mountpoint {place}: {error.strerror}"


def forbid_overlap(place: str, cache: Path) -> None:
    """Refuse a mountpoint that would hide the cache, or be an object in it. Raises `InputError`."""
    real = cache.resolve()
    if Path(place).is_relative_to(real):
        raise InputError(f"mountpoint {place} lies inside the cache {escape(str(real))}: choose another")
    if real.is_relative_to(place):
        raise InputError(f"mountpoint {place} would hide the cache {escape(str(real))}: choose another")
