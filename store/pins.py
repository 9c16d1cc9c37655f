"""`Pins`: hard links to the objects that somebody reads, which outlive a `dvc gc`.

They lie in the cache itself, because links do not leave a file system, at

    <cache>/fusefs/pins/<pid>-<random>/files/md5/<2>/<30>
    <cache>/fusefs/pins/<pid>-<random>.lock

which is laid out as a cache again, so that `LocalCache` reads it. DVC takes for an object only what
lies two deep below a directory of two characters: its gc, its listings and its migration pass by. What
is linked never goes back into DVC's own places.

Whoever holds the lock file's `flock` lives; what is left of others is removed by the next who comes.
Directories are made for the cache's owner and are his alone, and each is entered by descriptor, through
no link: the cache may be somebody else's.

Callers: `fusefs.pinning`. Blocking; a `Pins` may be used from any thread, by one after another.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from errno import EACCES, EMLINK, EPERM, EROFS, EXDEV
from pathlib import Path
from typing import Final, Self

from store.errors import CacheUnusable
from store.layouts import OBJECT_ROOTS
from store.openat2 import open_beneath
from store.ownership import OPEN_DIRECTORY, Ownership

HOME: Final = ("fusefs", "pins")
LOCK_SUFFIX: Final = ".lock"
REMOVE_SECONDS: Final = 15.0
"""For so long pins are removed at a time; what then is left is left to the next who comes."""

_DEEP: Final = 4
"""Directories below each other in a directory of pins: no more than that are removed."""
_ATTEMPTS: Final = 5
_REASONS: Final = {
    EPERM: "objects of another user cannot be linked (fs.protected_hardlinks)",
    EMLINK: "objects have as many links as the file system admits",
    EXDEV: "objects lie on another file system than the cache's own directory",
    EROFS: "the cache is read-only",
    EACCES: "the cache cannot be written",
}


@dataclass(frozen=True, slots=True)
class Pinned:
    """What came of some objects."""

    linked: int
    """Those that were held before not among them."""
    missing: tuple[str, ...]
    """The hex digits of those that are not in this cache."""
    refused: int
    reason: str
    """Why the last one was refused, a phrase; empty where none was."""


class Pins:
    """One reader's pins in one cache. To be removed in the end."""

    def __init__(self, root: Path, home: int, lock: int, source: int, ownership: Ownership) -> None:
        self.root = root
        """Where they lie: a cache directory for `LocalCache`."""
        self._home = home
        self._lock = lock
        self._source = source
        self._ownership = ownership
        self._mutex = threading.Lock()
        self._removed = False

    @classmethod
    def make(cls, cache: Path, former: str = "") -> Self:
        """A directory of pins in a cache that is there: an empty one, or `former`, whose owner has died, with
        what it holds. Raises `CacheUnusable` with a phrase."""
        try:
            source = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with contextlib.ExitStack() as stack:
                stack.callback(os.close, source)
                of_cache = Ownership.of_directory(source, shared_with_group=False)
                home, lock, name = _make_home(source, of_cache, former)
                stack.callback(os.close, home)
                stack.callback(os.close, lock)
                private = replace(of_cache, directory_mode=0o700)
                os.close(private.open_directory(name, home, create=True))
                stack.pop_all()
        except OSError as error:
            raise CacheUnusable(explain(error)) from None
        return cls(cache.joinpath(*HOME, name), home, lock, source, private)

    def count(self) -> int:
        """How many objects are held."""
        return sum(len(names) for _, _, names in os.walk(self.root))

    def pin(self, digests: Sequence[str], algorithm: str) -> Pinned:
        """Link files' objects, given by their hex digits. Those that are linked already stay so."""
        by_prefix: dict[str, list[str]] = {}
        for digest in digests:
            by_prefix.setdefault(digest[:2], []).append(digest[2:])
        linked = refused = 0
        missing: list[str] = []
        reason = ""
        with self._mutex:
            if self._removed:
                return Pinned(0, (), 0, "")
            for prefix, names in by_prefix.items():
                try:
                    places = self._open_prefix(OBJECT_ROOTS[algorithm], prefix)
                except OSError as error:
                    refused += len(names)
                    reason = explain(error)
                    continue
                if places is None:
                    missing += [prefix + name for name in names]
                    continue
                try:
                    for name in names:
                        try:
                            os.link(
                                name, name, src_dir_fd=places[0], dst_dir_fd=places[1], follow_symlinks=False
                            )
                            linked += 1
                        except FileExistsError:
                            pass  # held already
                        except (FileNotFoundError, NotADirectoryError):
                            missing.append(prefix + name)
                        except OSError as error:
                            refused += 1
                            reason = explain(error)
                finally:
                    for descriptor in places:
                        os.close(descriptor)
        return Pinned(linked, tuple(missing), refused, reason)

    def remove(self) -> None:
        """Let go of everything, as far as it goes. Nothing can be pinned after."""
        if not self._mutex.acquire(timeout=REMOVE_SECONDS):
            return  # a link that hangs, on a disk that does: the lock goes with this process
        try:
            if self._removed:
                return
            self._removed = True
            _remove_pins(self._home, self.root.name, time.monotonic() + REMOVE_SECONDS)
            os.close(self._lock)
            os.close(self._home)
            _remove_home(self._source)
            os.close(self._source)
        finally:
            self._mutex.release()

    def _open_prefix(self, root: str, prefix: str) -> tuple[int, int] | None:
        """A directory of objects, and the one for links to them; None where there are no objects."""
        place = f"{root}/{prefix}" if root else prefix
        try:
            source = open_beneath(self._source, place.encode("ascii"), flags=os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            here = os.open(self.root.name, OPEN_DIRECTORY, dir_fd=self._home)
            for name in place.split("/"):
                try:
                    below = self._ownership.open_directory(name, here, create=True)
                finally:
                    os.close(here)
                here = below
        except BaseException:
            os.close(source)
            raise
        return source, here


def clear_leftovers(cache: Path) -> None:
    """Remove the pins in a cache whose owners are gone, as far as that is permitted."""
    with contextlib.suppress(OSError), _open_home(cache) as home:
        with os.scandir(home) as entries:
            names = {entry.name.removesuffix(LOCK_SUFFIX) for entry in entries}
        deadline = time.monotonic() + REMOVE_SECONDS
        for name in sorted(names):
            with contextlib.suppress(OSError):
                lock = _take(home, name, os.O_CREAT)
                try:
                    _remove_pins(home, name, deadline)
                finally:
                    os.close(lock)


def explain(error: OSError) -> str:
    """Why links are refused, as a phrase."""
    return _REASONS.get(error.errno or 0, error.strerror or type(error).__name__)


@contextlib.contextmanager
def _open_home(cache: Path) -> Iterator[int]:
    here = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in HOME:
            below = os.open(name, OPEN_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _make_home(cache: int, ownership: Ownership, former: str) -> tuple[int, int, str]:
    """The directory of all pins, a lock in it that is held, and the name that goes with it: `former`, if that
    is there and nobody's, or a new one."""
    for attempt in range(1, _ATTEMPTS + 1):
        here = os.dup(cache)
        try:
            for part in HOME:
                below = ownership.open_directory(part, here, create=True)
                os.close(here)
                here = below
            if former:
                with contextlib.suppress(OSError):
                    return here, _take(here, former, 0), former
            name = f"{os.getpid()}-{secrets.token_hex(8)}"
            lock = _take(here, name, os.O_CREAT | os.O_EXCL)
            if ownership.changes_owner:
                os.fchown(lock, ownership.uid, ownership.gid)
            return here, lock, name
        except (FileNotFoundError, BlockingIOError):
            os.close(here)  # somebody who ended, or cleared up, took it away between two calls
            if attempt == _ATTEMPTS:
                raise
        except BaseException:
            os.close(here)
            raise
    raise AssertionError("the last attempt returns or raises")


def _take(home: int, name: str, flags: int) -> int:
    """Lock a name; the descriptor holds it. Raises `BlockingIOError` for one that lives, and `OSError`."""
    flags |= os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    lock = os.open(name + LOCK_SUFFIX, flags, 0o600, dir_fd=home)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        there = os.stat(name + LOCK_SUFFIX, dir_fd=home, follow_symlinks=False)
        if not os.path.samestat(there, os.fstat(lock)):
            raise BlockingIOError("somebody else has removed it")
    except BaseException:
        os.close(lock)
        raise
    return lock


def _remove_pins(home: int, name: str, deadline: float) -> None:
    """Remove a directory of pins and then its lock, which the caller holds; not after the deadline."""
    if _remove_directory(home, name, _DEEP, deadline):
        with contextlib.suppress(OSError):
            os.unlink(name + LOCK_SUFFIX, dir_fd=home)


def _remove_directory(parent: int, name: str, deep: int, deadline: float) -> bool:
    """Whether it is gone. Enters no link, and nothing that is deeper than pins are."""
    try:
        here = os.open(name, OPEN_DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        with os.scandir(here) as entries:
            for entry in list(entries):  # first all of them: what is removed meanwhile may upset a listing
                if time.monotonic() > deadline:
                    return False
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=here)
                elif deep == 0 or not _remove_directory(here, entry.name, deep - 1, deadline):
                    return False
        os.rmdir(name, dir_fd=parent)
    except OSError:
        return False
    finally:
        os.close(here)
    return True


def _remove_home(cache: int) -> None:
    """Remove the directories of all pins where they are empty; others keep them."""
    with contextlib.suppress(OSError):
        os.rmdir("/".join(HOME), dir_fd=cache)
        os.rmdir(HOME[0], dir_fd=cache)
