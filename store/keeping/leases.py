"""Who uses a file, so that nobody deletes it: `flock`s, which end with whoever holds them.

A user holds a shared lock on the very file that it has open or mapped (an object, a compiled tree, a
clone's directory) and has nothing to release: the lock goes with the last descriptor or mapping of that
opening. Whoever wants to delete takes the exclusive lock first, and leaves what is refused. Somebody who
opens a file just then keeps its bytes, as of any file that is unlinked.

Nothing here waits; any thread.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

_SHARED: Final = fcntl.LOCK_SH | fcntl.LOCK_NB


def hold(descriptor: int) -> None:
    """Say that the file is in use for as long as this opening of it lives. Waits for nothing."""
    # Refused for the moment in which somebody deletes it, or for good where there are no such locks:
    # then the bytes stay readable all the same.
    try:  # not contextlib.suppress, which costs as much as the call: every open comes here
        fcntl.flock(descriptor, _SHARED)
    except OSError:
        pass


def claim(descriptor: int) -> bool:
    """Does nobody else use the file? Then nobody is until it is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class Lease:
    """A file or directory that is held until the lease is closed, or nothing refers to it any more."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError` where there is nothing at `path`."""
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        hold(self._descriptor)

    def is_at(self, path: Path) -> bool:
        """Is what is held what lies there now?"""
        try:
            return os.path.samestat(os.fstat(self._descriptor), path.stat())
        except OSError:
            return False

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.close()
