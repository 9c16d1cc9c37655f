"""An exclusive lock on a file that only locks: `flock`, with a deadline.

Callers: `store.git.clones`. Blocking; any thread.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from store.errors import LockTimeout, RepositoryUnusable

_RETRY_SECONDS: Final = 0.1


@contextmanager
def lock_file(path: Path, seconds: float) -> Iterator[int]:
    """Hold the lock of `path`, which is made if need be and stays; gives the descriptor that holds it.

    A child that is given the descriptor holds the lock, too, for as long as it lives. Raises
    `LockTimeout`, and `RepositoryUnusable` if there can be no such file.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RepositoryUnusable(f"{path} cannot be locked: {error.strerror}") from None
    try:
        deadline = time.monotonic() + seconds
        while not _try(descriptor):
            left = deadline - time.monotonic()
            if left <= 0:
                raise LockTimeout(f"another process has held the lock {path} for {seconds:g} s; try later")
            time.sleep(min(_RETRY_SECONDS, left))
        yield descriptor
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
