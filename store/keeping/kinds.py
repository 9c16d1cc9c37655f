"""The kinds of things that we keep beside objects: where they lie, what they take, and how one is dropped.

All of it can be had again: from a remote, a repository, or by computing. What somebody uses is held by a
lease (`store.keeping.leases`) and stays. Blocking; any thread.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from store.contents.kept_indexes import INDEXES
from store.errors import CacheUnusable, StoreError
from store.fetching.flight_locks import FlightLocks
from store.fetching.partials import DIRECTORY, Leftover, Partials
from store.git.file_lock import lock_file
from store.keeping.deleting import Fate, delete_file, fate_of, open_root
from store.keeping.leases import claim
from store.openat2 import open_beneath
from store.ownership import OPEN_DIRECTORY

DAY: Final = 86_400.0
AGE: Final = 90 * DAY
"""What was not used for so long goes, whatever the budget."""
PARTIAL_AGE: Final = 30 * DAY
_DEEP: Final = 6
_BLOCK: Final = 512
"""`st_blocks` counts in these."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing: a path below its kind's directory, bytes on the disk, seconds since the epoch."""

    name: str
    on_disk: int
    used: float


class Kind(Protocol):
    """A kind of things."""

    @property
    def name(self) -> str: ...

    @property
    def place(self) -> Path:
        """The directory that they lie in; it need not be there."""

    @property
    def max_age(self) -> float:
        """Seconds after which an unused one goes; 0: never."""

    @property
    def counts_as_used_again(self) -> bool:
        """Does it belong with what is used again and again, or with what may go first?"""

    def items(self) -> Iterator[Item]:
        """All of them; what cannot be looked at is left out."""

    def fate_of(self, item: Item) -> Fate: ...

    def drop(self, item: Item) -> Fate:
        """Delete it, if nobody uses it."""


@dataclass(frozen=True, slots=True)
class Files:
    """A kind whose things are the regular files `below` the directory `root`, at any depth."""

    name: str
    root: Path
    below: str
    max_age: float = AGE
    counts_as_used_again: bool = False
    suffix: str = ""
    """Only files whose names end so."""

    @property
    def place(self) -> Path:
        return self.root / self.below

    def items(self) -> Iterator[Item]:
        with contextlib.suppress(OSError), _opened(self.root, self.below) as directory:
            yield from (item for item in _walk(directory, "", _DEEP) if item.name.endswith(self.suffix))

    def fate_of(self, item: Item) -> Fate:
        return self._ask(item, delete=False)

    def drop(self, item: Item) -> Fate:
        return self._ask(item, delete=True)

    def _ask(self, item: Item, *, delete: bool) -> Fate:
        try:
            with _opened(self.root, self.below) as directory:
                return (delete_file if delete else fate_of)(directory, item.name, None)
        except FileNotFoundError:
            return Fate.GONE
        except OSError:
            return Fate.DENIED


@dataclass(frozen=True, slots=True)
class PartialObjects:
    """Objects of which only some blocks are here (`store.fetching.partials`)."""

    cache: Path
    name: str = "partials"
    max_age: float = PARTIAL_AGE
    counts_as_used_again: bool = False

    @property
    def place(self) -> Path:
        return self.cache / "fusefs" / DIRECTORY

    def items(self) -> Iterator[Item]:
        if not self.place.is_dir():
            return
        with _partials(self.cache) as partials:
            for found in partials.leftovers():
                yield Item(os.fspath(found.path.relative_to(self.place)), found.bytes_on_disk, found.last_use)

    def fate_of(self, item: Item) -> Fate:
        return Fate.FREE  # `drop` will tell

    def drop(self, item: Item) -> Fate:
        with _partials(self.cache) as partials:
            try:
                removed = partials.remove(Leftover(self.place / item.name, item.on_disk, item.used))
            except CacheUnusable:
                return Fate.DENIED
        return Fate.FREE if removed else Fate.OPEN


@dataclass(frozen=True, slots=True)
class Clones:
    """Clones of repositories (`store.git.clones`), each a directory with a lock beside it."""

    place: Path
    name: str = "clones"
    max_age: float = AGE
    counts_as_used_again: bool = True

    def items(self) -> Iterator[Item]:
        with contextlib.suppress(OSError), _opened(self.place, "") as directory:
            for name, status in _entries(directory):
                if stat.S_ISDIR(status.st_mode) and not name.startswith("."):
                    with contextlib.suppress(OSError), _opened(self.place, name) as clone:
                        size = sum(item.on_disk for item in _walk(clone, "", _DEEP))
                        yield Item(name, size, status.st_mtime)

    def fate_of(self, item: Item) -> Fate:
        return self._ask(item, delete=False)

    def drop(self, item: Item) -> Fate:
        return self._ask(item, delete=True)

    def _ask(self, item: Item, *, delete: bool) -> Fate:
        clone = self.place / item.name
        try:
            with lock_file(self.place / f"{item.name}.lock", 0), _opened(self.place, item.name) as held:
                if not claim(held):
                    return Fate.OPEN
                if delete:
                    # Half a clone must not be taken for one; what is left under this name goes with the
                    # next clone of the same repository.
                    dropped = clone.with_name(f".{item.name}.dropped")
                    clone.rename(dropped)
                    shutil.rmtree(dropped, ignore_errors=True)
        except FileNotFoundError:
            return Fate.GONE
        except (OSError, StoreError):
            return Fate.OPEN
        return Fate.FREE


def kinds_of_cache(cache: Path) -> tuple[Kind, ...]:
    """What we keep in a cache beside its objects. (`incoming` is cleared by whoever fetches.)"""
    return (
        PartialObjects(cache),
        Files("unverified", cache, "fusefs/unverified"),
        Files("derived", cache, "fusefs/derived"),
        Files("quarantine", cache, "fusefs/quarantine", PARTIAL_AGE),
    )


def kinds_of_user(directory: Path) -> tuple[Kind, ...]:
    """What we keep in the user's own directory, `$XDG_CACHE_HOME/fusefs`."""
    return (
        Files("trees", directory, "trees", counts_as_used_again=True, suffix=".tree"),
        Files("sizes", directory, "trees", counts_as_used_again=True, suffix=".sizes"),
        Files("images", directory, "trees", counts_as_used_again=True, suffix=".erofs"),
        Files("traces", directory, "trees", counts_as_used_again=True, suffix=".trace"),
        Files("indexes", directory, INDEXES, counts_as_used_again=True),
        Clones(directory / "clones"),
        Files("blobs", directory, "blobs", counts_as_used_again=True),
    )


@contextlib.contextmanager
def _partials(cache: Path) -> Iterator[Partials]:
    locks = FlightLocks(cache)
    try:
        yield Partials(cache, locks)
    finally:
        locks.close()


@contextlib.contextmanager
def _opened(root: Path, below: str) -> Iterator[int]:
    """A directory beneath `root`, through no link. Raises `OSError`."""
    home = open_root(root)
    try:
        path = open_beneath(home, os.fsencode(below or "."), flags=os.O_PATH)
        try:
            directory = os.open(".", OPEN_DIRECTORY, dir_fd=path)
        finally:
            os.close(path)
    finally:
        os.close(home)
    try:
        yield directory
    finally:
        os.close(directory)


def _entries(directory: int) -> list[tuple[str, os.stat_result]]:
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                found.append((entry.name, entry.stat(follow_symlinks=False)))
    return found


def _walk(directory: int, prefix: str, deep: int) -> Iterator[Item]:
    for name, status in _entries(directory):
        if stat.S_ISREG(status.st_mode):
            used = max(status.st_atime, status.st_mtime)
            yield Item(prefix + name, status.st_blocks * _BLOCK, used)
        elif stat.S_ISDIR(status.st_mode) and deep:
            with contextlib.suppress(OSError):
                below = os.open(name, OPEN_DIRECTORY, dir_fd=directory)
                try:
                    yield from _walk(below, f"{prefix}{name}/", deep - 1)
                finally:
                    os.close(below)
