"""`Stager`: reads files once, names their content, and stages what the cache does not have.

The bytes that are hashed are the bytes that are stored: a copy is hashed on its way, a reflink is
hashed itself. The file is looked at before and after, so a writer in between is noticed. (A hard
link cannot promise as much: it is the user's own file, and a later edit in place changes the object.)

`stage` runs in worker threads; hashlib gives up the interpreter's lock while it works. What they
share is the writer's `has`, the meter, and flags that change once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, Literal

import msgspec

from store.commit.ahead import Source, open_ahead
from store.commit.publish import ObjectWriter
from store.commit.scan import Found
from store.errors import ChangedMeanwhile, InputError
from store.ownership import OBJECT_MODE
from store.syncing import write_all

Link = Literal["reflink", "hardlink", "copy"]
"""How an object comes into the cache; `reflink` is a copy where the file system has no reflinks."""

BLOCK: Final = 1 << 20
"""Bytes read at a time; what is smaller is written only after the cache was asked for it."""
_FICLONE: Final = 0x40049409


class Cancelled(Exception):
    """The commit was given up while a worker worked for it; never leaves the package."""


class Hashed(msgspec.Struct, frozen=True, gc=False):
    """A file whose content is known. `staged` is its name in the room; empty: the cache has it."""

    found: Found
    md5: str
    staged: str = ""
    is_hard_link: bool = False


class Meter:
    """How much the workers have read. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files = 0
        self._bytes = 0

    def add(self, files: int, size: int) -> None:
        with self._lock:
            self._files += files
            self._bytes += size

    def read(self) -> tuple[int, int]:
        """(files, bytes) so far."""
        with self._lock:
            return self._files, self._bytes


class Stager:
    """Stages files of the folder (or the one file) `source` for one cache."""

    def __init__(self, source: Path, writer: ObjectWriter, link: Link, meter: Meter, ahead: int) -> None:
        """`ahead`: so many files each call of `stage` may have open before it is their turn."""
        self._source = os.fspath(source)
        self._writer = writer
        self._room = writer.room
        self._can_link = link == "hardlink"
        self._can_reflink = link == "reflink"
        self._meter = meter
        self._ahead = ahead
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Make all `stage` calls end soon, with `Cancelled`."""
        self._cancelled.set()

    def stage(self, files: Sequence[Found], label: str) -> list[Hashed]:
        """Hash `files` and stage what is new, under names that begin with `label`.

        Raises `ChangedMeanwhile`, `InputError` (a file that cannot be read), `Cancelled`, and
        `OSError` for the cache.
        """
        buffer = memoryview(bytearray(BLOCK))
        # A clone is hashed itself, and shares no memory with the file that it was made of.
        sources = open_ahead(self._source, files, self._ahead, lambda: not self._can_reflink)
        with closing(sources):
            return [self._stage_one(opened, f"{label}-{i}", buffer) for i, opened in enumerate(sources)]

    def _stage_one(self, opened: Source, name: str, buffer: memoryview) -> Hashed:
        found, path, source = opened
        try:
            self._check_cancelled()
            before = os.fstat(source)
            if not stat.S_ISREG(before.st_mode):
                raise _changed(path)
            linked = self._link(source, path, found, before, name, buffer)
            if linked:
                md5, staged = linked
            else:
                md5, staged = self._store(source, path, before.st_size, name, buffer)
                _check_unchanged(source, before, path)
        finally:
            os.close(source)
        self._meter.add(1, 0)
        return Hashed(_refresh(found, before), md5, name if staged else "", staged and linked is not None)

    def _link(
        self, source: int, path: str, found: Found, before: os.stat_result, name: str, buffer: memoryview
    ) -> tuple[str, bool] | None:
        """Stage the file itself where hard links are asked for and this one may be had: (md5, whether
        the room has it), or None where it is to be stored otherwise.

        An executable may not: an object is 0444, and so would be the user's file; nor a file whose
        mode is not ours to change.
        """
        if not self._can_link or found.is_symlink or found.isexec or not before.st_size:
            return None
        if before.st_uid != os.geteuid():
            return None
        md5 = self._hash(source, path, before.st_size, buffer)
        _check_unchanged(source, before, path)
        if self._writer.has(md5, before.st_size):  # asked first, for a link changes ctime
            return md5, False
        try:
            self._room.link(source, name)
        except OSError:  # another file system, or too many links
            self._can_link = False
            os.lseek(source, 0, os.SEEK_SET)
            return None
        os.fchmod(source, OBJECT_MODE)
        return md5, True

    def _store(self, source: int, path: str, size: int, name: str, buffer: memoryview) -> tuple[str, bool]:
        """Hash the file and see that the room has it; (md5, whether the room keeps it)."""
        if size < BLOCK and not self._can_reflink:
            return self._store_small(source, path, size, name, buffer)
        target = self._room.create(name)
        try:
            if self._can_reflink and _clone(source, target):
                md5 = self._hash(target, path, size, buffer)
            else:
                # What works or not for one file does so for the next; and if not, a copy is as good.
                self._can_reflink = False
                md5 = self._hash(source, path, size, buffer, target)
        finally:
            os.close(target)
        if self._writer.has(md5, size):
            self._room.discard(name)
            return md5, False
        return md5, True

    def _store_small(
        self, source: int, path: str, size: int, name: str, buffer: memoryview
    ) -> tuple[str, bool]:
        count = _read(source, path, buffer)
        if count != size:
            raise _changed(path)
        content = buffer[:count]
        md5 = new_md5(content).hexdigest()
        self._meter.add(0, count)
        if self._writer.has(md5, size):
            return md5, False
        target = self._room.create(name)
        try:
            write_all(target, content)
        finally:
            os.close(target)
        return md5, True

    def _hash(self, source: int, path: str, size: int, buffer: memoryview, target: int = -1) -> str:
        """MD5 of all that `source` holds, copied to `target` on the way. It must be `size` bytes."""
        digest = new_md5()
        total = 0
        while count := _read(source, path, buffer):
            self._check_cancelled()
            total += count
            if total > size:
                raise _changed(path)  # it grows, perhaps for ever
            block = buffer[:count]
            digest.update(block)
            if target >= 0:
                write_all(target, block)
            self._meter.add(0, count)
        if total != size:
            raise _changed(path)
        return digest.hexdigest()

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled


def find_again(source: Path, linked: Iterable[Hashed]) -> Iterator[tuple[Found, str]]:
    """Files of `source` that have become objects, as that has left them: a link changes a file's ctime. Not
    those that somebody has written to since they were hashed."""
    for item in linked:
        found = item.found
        try:
            status = os.lstat(source / found.relpath)
        except OSError:
            continue
        now = _refresh(found, status)
        if (now.size, now.device, now.inode, now.mtime_ns) == (
            found.size,
            found.device,
            found.inode,
            found.mtime_ns,
        ):
            yield now, item.md5


def new_md5(data: bytes | memoryview = b"") -> hashlib._Hash:
    """A fresh hash: the content's name, no protection against forgers."""
    return hashlib.md5(data, usedforsecurity=False)


def _read(source: int, path: str, buffer: memoryview) -> int:
    try:
        return os.readv(source, [buffer])
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error.strerror}") from None


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # no reflinks here; a full disk will show when copying
        return False
    return True


def _check_unchanged(source: int, before: os.stat_result, path: str) -> None:
    if _identity(os.fstat(source)) != _identity(before):
        raise _changed(path)


def _identity(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return status.st_size, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _refresh(found: Found, status: os.stat_result) -> Found:
    """`found` as it was when it was read."""
    size, device, inode, mtime_ns, ctime_ns = _identity(status)
    if found.ctime_ns == ctime_ns and found.mtime_ns == mtime_ns and found.inode == inode:
        return found
    isexec = bool(status.st_mode & 0o111)
    return Found(found.relpath, size, device, inode, mtime_ns, ctime_ns, isexec, found.is_symlink)


def _changed(path: str) -> ChangedMeanwhile:
    return ChangedMeanwhile(f"{path!r} changed while it was being committed; nothing was recorded, try again")
