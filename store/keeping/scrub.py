"""A scrub: reads objects of a cache again and tells which do not have the bytes that their names promise.

Callers: `fusefs cache verify` and `repair`. Blocking; reads in threads of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from store.errors import CacheUnusable, InputError, ObjectCorrupt, ObjectMissing
from store.hashing import Hasher
from store.keeping.deleting import open_root
from store.keeping.leases import hold
from store.layouts import OBJECT_ROOTS
from store.local_cache import LocalCache
from store.oid import DVC_ALGORITHMS, Oid
from store.openat2 import open_beneath
from store.ownership import OPEN_DIRECTORY

READ_BYTES: Final = 1 << 20
AHEAD: Final = 64
"""Objects that wait for a thread at most."""


class State(Enum):
    """What a scrub found of an object."""

    SOUND = "sound"
    CORRUPT = "corrupt"
    GONE = "gone"
    """It was removed meanwhile."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Found:
    """An object that was looked at. `detail` is a phrase for what is wrong, empty for nothing."""

    oid: Oid
    size: int
    state: State
    detail: str = ""


class Scrub:
    """A scrub of the objects of one cache. `advance` is told of bytes that were read; any thread."""

    def __init__(self, cache: Path, jobs: int, advance: Callable[[int], object] = lambda _: None) -> None:
        self._cache = LocalCache(cache)
        self._jobs = jobs
        self._advance = advance
        self._cancelled = threading.Event()

    def run(self, objects: Iterable[tuple[Oid, int | None]]) -> Generator[Found, None, None]:
        """What is found of each object, of the length that it must have where one is known.

        When the iterator is closed early, reading ends soon.
        """
        waiting: list[Future[Found | None]] = []
        with ThreadPoolExecutor(self._jobs) as pool:
            try:
                for oid, size in objects:
                    waiting.append(pool.submit(self._check, oid, size))
                    if len(waiting) >= AHEAD:
                        yield from _results(waiting[:1])
                        del waiting[0]
                yield from _results(waiting)
            finally:
                self._cancelled.set()
                pool.shutdown(cancel_futures=True)
                self._cache.close()

    def _check(self, oid: Oid, size: int | None) -> Found | None:
        """None where the scrub was given up."""
        try:
            descriptor, length = self._cache.open(oid)
        except ObjectMissing:
            return Found(oid, 0, State.GONE)
        except ObjectCorrupt:
            return Found(oid, 0, State.CORRUPT, "it is no regular file")
        except CacheUnusable as error:
            return Found(oid, 0, State.UNREADABLE, str(error))
        try:
            hold(descriptor)
            if size not in (None, length):
                return Found(oid, length, State.CORRUPT, f"it has {length} bytes and not {size}")
            hasher = Hasher(oid.algorithm)
            buffer = memoryview(bytearray(min(READ_BYTES, length + 1)))
            while count := os.readv(descriptor, [buffer]):
                if self._cancelled.is_set():
                    return None
                hasher.update(buffer[:count])
                self._advance(count)
            if hasher.matches(oid):
                return Found(oid, length, State.SOUND)
            return Found(oid, length, State.CORRUPT, "its bytes have another hash")
        except OSError as error:  # a disk that goes bad: nothing that can be read is lost by quarantining
            return Found(oid, length, State.UNREADABLE, f"it cannot be read: {error.strerror}")
        finally:
            os.close(descriptor)


def list_objects(cache: Path) -> Iterator[tuple[Oid, int]]:
    """Every object that lies in a cache, whoever put it there, and its length."""
    with contextlib.ExitStack() as stack:
        try:
            root = open_root(cache)
        except FileNotFoundError:
            return
        stack.callback(os.close, root)
        for algorithm in DVC_ALGORITHMS:
            for number in range(256):
                with contextlib.suppress(OSError):
                    yield from _list_prefix(root, algorithm, f"{number:02x}")


def _list_prefix(root: int, algorithm: str, prefix: str) -> list[tuple[Oid, int]]:
    place = f"{OBJECT_ROOTS[algorithm]}/{prefix}".lstrip("/")
    found = []
    path = open_beneath(root, place.encode(), flags=os.O_PATH)
    try:
        directory = os.open(".", OPEN_DIRECTORY, dir_fd=path)
    finally:
        os.close(path)
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(InputError, FileNotFoundError):
                    oid = Oid.parse(prefix + entry.name, algorithm)
                    if str(oid) == prefix + entry.name:
                        found.append((oid, entry.stat(follow_symlinks=False).st_size))
    finally:
        os.close(directory)
    return sorted(found)


def _results(waiting: Iterable[Future[Found | None]]) -> Iterator[Found]:
    for future in waiting:
        found = future.result()
        if found is not None:
            yield found
