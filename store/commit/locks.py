"""Locks that keep two writers of one project apart: DVC's own where there is DVC, else a directory's.

DVC's lock is `.dvc/tmp/lock`: `flock`, exclusive, the holder's pid for people to read; that the file
exists means nothing. With `core.hardlink_lock` it is a lock of flufl.lock instead, for file systems
without `flock`. Without DVC the directory that gets the metafile is locked, which leaves nothing
behind. Every wait has a deadline; DVC's own is three seconds.

Used by `version`; blocking.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

from store.errors import CacheUnusable, LockTimeout

_RETRY_SECONDS: Final = 0.1
_FOR_GOOD: Final = timedelta(days=365)
"""What DVC says, too: a lock that expired would be broken by whoever comes next."""


@contextlib.contextmanager
def lock_dvc(dvc_dir: Path, timeout: float, *, hardlink: bool) -> Iterator[None]:
    """Hold the lock of the DVC repository whose `.dvc` is `dvc_dir`.

    Raises `LockTimeout` after `timeout` seconds.
    """
    path = dvc_dir / "tmp" / "lock"
    try:
        _make_for_owner(path.parent)
        stack = _hardlink_lock(path, timeout) if hardlink else _file_lock(path, timeout)
    except OSError as error:
        raise CacheUnusable(f"cannot lock the repository with {str(path)!r}: {error.strerror}") from None
    with stack:
        yield


@contextlib.contextmanager
def lock_directory(directory: Path, timeout: float) -> Iterator[None]:
    """Hold a lock on `directory` itself. Raises `LockTimeout` after `timeout` seconds."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _flock(fd, timeout, directory)
        yield
    finally:
        os.close(fd)


def _file_lock(path: Path, timeout: float) -> contextlib.ExitStack:
    # Never truncated before it is ours: the pid in it may be somebody's who still works.
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, fd)
        _give_to_owner(fd, path.parent)
        _flock(fd, timeout, path)
        content = f" {os.getpid()}\n".encode()
        os.write(fd, content)
        os.ftruncate(fd, len(content))
        return stack.pop_all()


def _make_for_owner(directory: Path) -> None:
    with contextlib.suppress(FileExistsError):
        directory.mkdir()
        if os.geteuid() == 0:
            owner = directory.parent.stat()
            os.chown(directory, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _give_to_owner(fd: int, directory: Path) -> None:
    """A lock file that root made would lock the people of the repository out for good."""
    if os.geteuid() == 0 and os.fstat(fd).st_uid == 0:
        owner = directory.stat()
        if owner.st_uid != 0:
            os.fchown(fd, owner.st_uid, owner.st_gid)


def _hardlink_lock(path: Path, timeout: float) -> contextlib.ExitStack:
    from flufl.lock import Lock, TimeOutError  # only for those who need it

    lock = Lock(str(path), lifetime=_FOR_GOOD, default_timeout=timedelta(seconds=timeout))
    try:
        lock.lock()
    except TimeOutError:
        raise _timeout(path, timeout) from None
    stack = contextlib.ExitStack()
    stack.callback(lock.unlock)
    return stack


def _flock(fd: int, timeout: float, path: Path) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _timeout(path, timeout) from None
            time.sleep(min(_RETRY_SECONDS, left))


def _timeout(path: Path, timeout: float) -> LockTimeout:
    return LockTimeout(
        f"another commit or DVC command has held the lock {str(path)!r} for {timeout:g} s; "
        "try again when it is done"
    )
