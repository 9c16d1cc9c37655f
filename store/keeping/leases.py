"""Who uses a file, so that nobody deletes it: `flock`s, which end with whoever holds them.

A user holds a shared lock on the very file that it has open or mapped (an object, a compiled tree, a
clone's directory) and has nothing to release: the lock goes with the last descriptor or mapping of that
opening. Whoever wants to delete takes the exclusive lock first, and leaves what is refused. Somebody who
opens a file just then keeps its bytes, as of any file that is unlinked.

Two more locks lie beside a cache's ledger: a commit keeps all eviction away while it counts on what it
finds in the cache, and one keeper at a time sweeps.

Blocking only where it says so; any thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from store.keeping.records import open_home

EVICTING: Final = "evicting.lock"
SWEEPING: Final = "sweeping.lock"

_RETRY_SECONDS: Final = 0.01


def hold(descriptor: int) -> None:
    """Say that the file is in use for as long as this opening of it lives. Waits for nothing."""
    # Refused for the moment in which somebody deletes it, or for good where there are no such locks:
    # then the bytes stay readable all the same.
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def claim(descriptor: int) -> bool:
    """Does nobody else use the file? Then nobody is until it is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def keep_away_eviction(cache: Path, seconds: float) -> Iterator[bool]:
    """Within, nothing is evicted from the cache; gives whether that is so.

    Waits for an eviction that is under way, some milliseconds, `seconds` at most.
    """
    with contextlib.ExitStack() as stack:
        try:
            lock = _open_lock(cache, EVICTING)
        except OSError:
            yield False
            return
        stack.callback(os.close, lock)
        deadline = time.monotonic() + seconds
        while not (held := _try(lock, fcntl.LOCK_SH)) and time.monotonic() < deadline:
            time.sleep(_RETRY_SECONDS)
        yield held


@contextlib.contextmanager
def sole(cache: Path, name: str) -> Iterator[bool]:
    """Take one of the cache's two locks alone, if nobody has it; gives whether that is so."""
    try:
        lock = _open_lock(cache, name)
    except OSError:
        yield False
        return
    try:
        yield _try(lock, fcntl.LOCK_EX)
    finally:
        os.close(lock)


def _open_lock(cache: Path, name: str) -> int:
    with open_home(cache) as (home, ownership):
        return ownership.open_own_file(name, home)


def _try(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
