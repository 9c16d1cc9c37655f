"""Two locks beside a cache's ledger: `flock`s, which end with whoever holds them.

A commit keeps all eviction away while it counts on what it finds in the cache, and one keeper at a time
sweeps. Any thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from store.keeping.records import HOME, open_home

EVICTING: Final = "evicting.lock"
SWEEPING: Final = "sweeping.lock"

_RETRY_SECONDS: Final = 0.01


def has_locks(cache: Path) -> bool:
    """Has anybody ever evicted something from the cache, or collected garbage there?"""
    return os.path.lexists(cache / HOME / EVICTING)


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
