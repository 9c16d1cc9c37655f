"""`Arrivals`: how a fetched object comes to its place in a cache: whole, durable, by a rename.

Bytes come into files of `<cache>/fusefs/incoming/`, which are locked for as long as they are open: what a
killed process leaves there can be locked by the next one, and is removed. The caller has verified what it
admits. Below the cache's root everything is reached through descriptors and never through a symbolic link,
so a stranger who shares the cache cannot send our writes elsewhere.

Blocking; any thread. Every `OSError` leaves as `CacheUnusable`, whose one line names the cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from store.errors import CacheUnusable
from store.layouts import object_path
from store.oid import Oid
from store.oplog.changes import note_changes
from store.ownership import OBJECT_MODE, Ownership, make_root
from store.syncing import start_writing, sync_file_system

T = TypeVar("T")

log = logging.getLogger(__name__)

OURS: Final = "fusefs"
INCOMING: Final = "incoming"
QUARANTINE: Final = "quarantine"

QUARANTINED: Final = 8
"""Files that are kept for whoever wonders what a remote has sent."""
QUARANTINED_BYTES: Final = 16 << 20
"""A larger one is not kept."""
_ABANDONED_SECONDS: Final = 24 * 3600.0
"""After so long an incoming file that cannot be locked, because nothing can be here, belongs to nobody."""
_FEW: Final = 8
"""Up to so many files are synced one by one."""
_MUCH_DIRTY: Final = 256 << 20
"""Bytes, in memory and not on their disks yet."""
_NEW_CACHE_MODE: Final = 0o777


class Arrival(NamedTuple):
    """A verified file that is to become an object."""

    oid: Oid
    path: Path
    descriptor: int


class _Place:
    """The open directories of one cache. Closed when the last call that uses them is done."""

    def __init__(self, root: Path, below: str) -> None:
        self._lock = threading.Lock()
        self._objects: dict[str, int] = {}
        self._stack = contextlib.ExitStack()
        try:
            self.root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._stack.callback(os.close, self.root)
            self.ownership = Ownership.of_directory(self.root, shared_with_group=False)
            self.ours = self._open(OURS, self.root)
            self.incoming = self._open(INCOMING, self.ours)
            self._below = self.root
            for part in below.split("/") if below else ():
                self._below = self._open(part, self._below)
        except BaseException:
            self._stack.close()
            raise

    def __del__(self) -> None:
        self._stack.close()

    def objects(self, directory: str) -> int:
        """The directory of objects at the relative path `directory`; made where it is missing."""
        with self._lock:
            return self._find(directory)

    def is_at(self, path: Path) -> bool:
        try:
            return os.path.samestat(os.fstat(self.root), path.stat())
        except OSError:
            return False

    def _find(self, directory: str) -> int:
        # Each directory once: with those above opened for every one below, there would be 800 of them.
        if not directory:
            return self._below
        found = self._objects.get(directory)
        if found is None:
            above, _, name = directory.rpartition("/")
            found = self._objects[directory] = self._open(name, self._find(above))
        return found

    def _open(self, name: str, parent: int) -> int:
        descriptor = self.ownership.open_directory(name, parent, create=True)
        self._stack.callback(os.close, descriptor)
        return descriptor


class Arrivals:
    """The way into the cache at `root`, which is made when the first file is.

    With `below`, objects do not go to where DVC looks for them but to a directory of ours in the cache.
    """

    def __init__(self, root: Path, *, below: str = "") -> None:
        self.root = root
        self._below = below
        self._incoming = root / OURS / INCOMING
        self._place: _Place | None = None
        self._lock = threading.Lock()
        self._prefix = f"{os.getpid()}-{secrets.token_hex(4)}-"
        self._numbers = itertools.count()

    def close(self) -> None:
        """Let the directories go."""
        self._place = None

    def prepare(self) -> None:
        """Make the cache's directories and clear away what dead processes left. Raises `CacheUnusable`."""
        place = self._with_place(lambda place: place)
        with contextlib.suppress(OSError), os.scandir(place.incoming) as entries:
            for name in [entry.name for entry in entries]:
                _remove_if_dead(name, place.incoming)

    def new_file(self) -> tuple[int, Path]:
        """A new empty file in `incoming`, open for reading and writing. Raises `CacheUnusable`."""
        return self._with_place(self._new_file)

    def admit(self, oid: Oid, path: Path, descriptor: int) -> None:
        """Make the file at `path` in the cache, open as `descriptor`, durable and the object `oid`.

        The descriptor stays open, the name `path` is gone. Raises `CacheUnusable`; then both are left.
        """
        failure = self.admit_all([Arrival(oid, path, descriptor)])[0]
        if failure is not None:
            raise failure

    def admit_all(self, batch: Sequence[Arrival]) -> list[CacheUnusable | None]:
        """As `admit`, for many at the cost of few: what became of each, in order."""
        together = len(batch) > _FEW and self._sync_together(batch)
        if not together:
            for arrival in batch:
                # All on their way before the first is waited for: then they share the journal's commits.
                start_writing(arrival.descriptor)
        failures: list[CacheUnusable | None] = []
        for arrival in batch:
            try:
                self._with_place(partial(self._admit, arrival=arrival, synced=together))
            except CacheUnusable as error:
                failures.append(error)
            else:
                failures.append(None)
        self._note(arrival for arrival, failure in zip(batch, failures, strict=True) if failure is None)
        place = self._place
        if place is not None and not place.is_at(self.root):
            self._place = None  # the cache was moved away: the next files go to the one that is there now
        return failures

    def _note(self, came: Iterable[Arrival]) -> None:
        """Write down what has come to where DVC looks for it."""
        place = self._place
        if place is not None and not self._below:
            note_changes(
                place.root, ((arrival.oid, os.fstat(arrival.descriptor).st_size) for arrival in came)
            )

    def put(self, name: str, path: Path, descriptor: int) -> None:
        """Make the file at `path`, open as `descriptor`, the file `name` below the directory of objects,
        also in the place of another one. Nothing is synced: for what can be made again and is told from
        garbage.

        Raises `CacheUnusable`; then it is left where it is.
        """
        self._with_place(partial(self._put, name=name, path=path, descriptor=descriptor))

    def discard(self, path: Path) -> None:
        """Remove a file that `new_file` made and that becomes nothing."""
        with contextlib.suppress(OSError):
            path.unlink()

    def put_aside(self, oid: Oid, path: Path) -> None:
        """Keep what was sent for `oid` and is not it, for whoever wonders: the newest few, none large."""
        try:
            place = self._with_place(lambda place: place)
            if path.stat(follow_symlinks=False).st_size > QUARANTINED_BYTES:
                raise OSError
            aside = place.ownership.open_directory(QUARANTINE, place.ours, create=True)
            try:
                self._move(place, path, str(oid), aside)
                _thin_out(aside)
            finally:
                os.close(aside)
        except (OSError, CacheUnusable):
            self.discard(path)

    def _with_place(self, work: Callable[[_Place], T]) -> T:
        """Work with the open directories; once again with new ones if they were removed meanwhile."""
        try:
            place = self._place
            if place is not None:
                try:
                    return work(place)
                except FileNotFoundError:
                    self._forget(place)
            return work(self._open())
        except OSError as error:
            raise CacheUnusable(f"cannot write to the cache {str(self.root)!r}: {error.strerror}") from None

    def _open(self) -> _Place:
        with self._lock:
            if self._place is None:
                make_root(self.root, _NEW_CACHE_MODE)
                self._place = _Place(self.root, self._below)
            return self._place

    def _forget(self, place: _Place) -> None:
        with self._lock:
            if self._place is place:
                self._place = None

    def _new_file(self, place: _Place) -> tuple[int, Path]:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            name = f"{self._prefix}{next(self._numbers)}"
            descriptor = os.open(name, flags, OBJECT_MODE, dir_fd=place.incoming)
            if _lock(descriptor) and os.fstat(descriptor).st_nlink:
                return descriptor, self._incoming / name
            # Another process took the file for a dead one's before it was locked.
            os.close(descriptor)

    def _sync_together(self, batch: Sequence[Arrival]) -> bool:
        """Sync the whole file system, unless there is much on it that is not ours; whether that was done."""
        if _much_is_dirty():
            return False
        try:
            self._with_place(partial(_settle_all, batch=batch))
            sync_file_system(batch[0].descriptor)
        except (CacheUnusable, OSError):
            # Where it fails it does not say for whom: then each is synced by itself, and says so.
            return False
        return True

    def _admit(self, place: _Place, arrival: Arrival, synced: bool) -> None:
        directory, _, name = object_path(arrival.oid).rpartition("/")
        if not synced:
            _settle(place, arrival)
            os.fsync(arrival.descriptor)
        objects = place.objects(directory)
        self._clear_the_way(place, arrival, name, objects)
        self._move(place, arrival.path, name, objects)

    def _clear_the_way(self, place: _Place, arrival: Arrival, name: str, objects: int) -> None:
        """What lies in the object's place and cannot be it is kept aside, for whoever wonders."""
        try:
            there = os.stat(name, dir_fd=objects, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISREG(there.st_mode) and there.st_size == os.fstat(arrival.descriptor).st_size:
            return
        log.warning(
            "what lay in the cache %s for object %s was %d bytes of something else: it is %s now",
            *(self.root, arrival.oid, there.st_size),
            f"in {OURS}/{QUARANTINE}" if there.st_size <= QUARANTINED_BYTES else "gone",
        )
        aside = place.ownership.open_directory(QUARANTINE, place.ours, create=True)
        try:
            os.rename(name, str(arrival.oid), src_dir_fd=objects, dst_dir_fd=aside)
            _thin_out(aside)
        finally:
            os.close(aside)

    def _put(self, place: _Place, name: str, path: Path, descriptor: int) -> None:
        place.ownership.settle_object(descriptor)
        above, _, last = name.rpartition("/")
        self._move(place, path, last, place.objects(above))

    def _move(self, place: _Place, path: Path, name: str, directory: int) -> None:
        if path.parent == self._incoming:
            os.rename(path.name, name, src_dir_fd=place.incoming, dst_dir_fd=directory)
        else:
            os.rename(path, name, dst_dir_fd=directory)


def _thin_out(aside: int) -> None:
    """Keep the newest few in quarantine, and nothing large. Raises `OSError`.

    Others thin it out at the same time: a file that is gone is no reason to leave the rest.
    """
    found = []
    with os.scandir(aside) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                found.append((entry, entry.stat(follow_symlinks=False)))
    found.sort(key=lambda one: one[1].st_mtime_ns)
    for place, (entry, status) in enumerate(found):
        if place < len(found) - QUARANTINED or status.st_size > QUARANTINED_BYTES:
            if stat.S_ISDIR(status.st_mode):
                continue  # not ours to empty
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.name, dir_fd=aside)


def _settle(place: _Place, arrival: Arrival) -> None:
    """Give a file an object's owner, group and mode. Raises `OSError`."""
    place.ownership.settle_object(arrival.descriptor)
    if stat.S_IMODE(os.fstat(arrival.descriptor).st_mode) != OBJECT_MODE:
        os.fchmod(arrival.descriptor, OBJECT_MODE)


def _settle_all(place: _Place, batch: Sequence[Arrival]) -> None:
    for arrival in batch:
        _settle(place, arrival)


def _much_is_dirty() -> bool:
    """Does much wait to be written, on whatever disk, that a sync of a file system might wait for?"""
    with contextlib.suppress(OSError, ValueError):
        text = Path("/proc/meminfo").read_text()
        kilobytes = sum(int(number) for number in re.findall(r"^(?:Dirty|Writeback): *(\d+) kB", text, re.M))
        return kilobytes << 10 > _MUCH_DIRTY
    return True


def _lock(descriptor: int) -> bool:
    """Lock a file of `incoming` for as long as it is open; False where somebody else was faster."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # no locks here: `_ABANDONED_SECONDS` keeps others from taking it for a dead one's
    return True


def _remove_if_dead(name: str, directory: int) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            except OSError:
                if time.time() - os.fstat(descriptor).st_mtime < _ABANDONED_SECONDS:
                    return
            os.unlink(name, dir_fd=directory)
        finally:
            os.close(descriptor)
