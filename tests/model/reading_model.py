"""Random operations on a mount, held against a plain directory of the same bytes.

The model knows what a mount may answer: the bytes and names of the plain directory always, and
EIO for opening a file whose object is not in the cache, or for the size of one that the mount has
never been able to see. Objects come, go and are replaced by what is no object while files, mappings
and listings are open.

Deterministic under its seed. Used by the model test and, for hours, by `scripts/soak`.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from tests.mount.datasets import Cache, filler, md5

HANDLES = 24
MAPPINGS = 6
LISTINGS = 4
TOLD = 40


class Seen(Enum):
    """What the mount knows of a file's size."""

    NEVER = "its object was never there when it could be asked"
    PERHAPS = "somebody may have looked"
    SURELY = "it has been told"


def random_dataset(order: random.Random) -> dict[str, bytes]:
    """Nested files of every size up to some hundred kilobytes, some with the same content."""
    files: dict[str, bytes] = {}
    directories = [""]
    for number in range(12):
        directories.append(f"{order.choice(directories)}d{number}/")
    lengths = (0, 1, 4095, 4096, 4097, 131072, 131073, 400_000)
    for number in range(70):
        length = order.choice(lengths) if number % 2 else order.randrange(20_000)
        files[f"{order.choice(directories)}f{number}"] = filler(length, order.randrange(1 << 30))
    for number, path in enumerate(order.sample(sorted(files), 8)):
        files[f"{order.choice(directories)}copy{number}"] = files[path]
    return files


@dataclass
class Handle:
    path: str
    descriptor: int
    position: int = 0


@dataclass
class Model:
    """One run: a mount, the plain directory, and the cache that the mount reads."""

    mount: Path
    plain: Path
    cache: Cache
    files: dict[str, bytes]
    order: random.Random
    there: set[str]
    """Oids whose object is in the cache, whole."""
    native: bool = False
    """The kernel opens objects by itself: it remembers those that it has opened."""
    image: bool = False
    """Names are shown from an image, which tells all sizes and nothing of the cache."""
    opened: set[str] = field(default_factory=set)
    """Oids whose object was opened."""
    seen: dict[str, Seen] = field(default_factory=dict)
    handles: list[Handle] = field(default_factory=list)
    mappings: list[tuple[str, mmap.mmap]] = field(default_factory=list)
    told: deque[str] = field(default_factory=lambda: deque(maxlen=TOLD))
    """The latest operations, for whoever has to understand a failure."""
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seen = dict.fromkeys(self.files, Seen.SURELY if self.image else Seen.NEVER)
        self._may_have_seen()

    def step(self) -> None:
        """One random operation. Raises AssertionError where the mount answers what it must not."""
        operations: list[tuple[int, Callable[[], None]]] = [
            (12, self.open),
            (10, self.close),
            (25, self.pread),
            (15, self.read_on),
            (8, self.seek),
            (6, self.map),
            (10, self.read_mapping),
            (4, self.unmap),
            (10, self.stat),
            (6, self.list),
            (4, self.read_whole),
            (5, self.look_for_nothing),
            (2, self.drop_pages),
            (3, self.ask_cached),
            (6, self.evict),
            (7, self.restore),
            (3, self.spoil),
        ]
        operation = self.order.choices([o for _, o in operations], [w for w, _ in operations])[0]
        self.told.append(operation.__name__)
        operation()
        self.counts[operation.__name__] = self.counts.get(operation.__name__, 0) + 1

    def finish(self) -> None:
        """Close everything; with all objects back, everything must be readable."""
        while self.handles:
            self.close()
        while self.mappings:
            self.unmap()
        for oid in sorted({md5(data) for data in self.files.values()} - self.there):
            self._put_back(oid)
        for path, data in self.files.items():
            assert (self.mount / path).read_bytes() == data, path

    # Files

    def open(self) -> None:
        if len(self.handles) >= HANDLES:
            return self.close()
        path = self._any_path()
        oid = md5(self.files[path])
        try:
            descriptor = os.open(self.mount / path, os.O_RDONLY)
        except OSError as error:
            assert error.errno == errno.EIO, error
            assert oid not in self.there, f"{path} is in the cache and cannot be opened"
            return None
        self.handles.append(Handle(path, descriptor))
        assert self._may_open(oid), f"{path} is not in the cache and was opened"
        self.seen[path] = Seen.SURELY
        return None

    def close(self) -> None:
        if self.handles:
            os.close(self.handles.pop(self.order.randrange(len(self.handles))).descriptor)

    def pread(self) -> None:
        if handle := self._any_handle():
            offset, length = self._range(handle.path)
            got = os.pread(handle.descriptor, length, offset)
            self._check(handle.path, offset, length, got)

    def read_on(self) -> None:
        if handle := self._any_handle():
            length = self.order.choice((1, 100, 4096, 70_000))
            got = os.read(handle.descriptor, length)
            self._check(handle.path, handle.position, length, got)
            handle.position += len(got)

    def seek(self) -> None:
        if handle := self._any_handle():
            size = len(self.files[handle.path])
            offset = self.order.randrange(size + 5000)
            whence = self.order.choice((os.SEEK_SET, os.SEEK_END))
            there = os.lseek(handle.descriptor, offset, whence)
            assert there == offset + (size if whence == os.SEEK_END else 0)
            handle.position = there

    def _may_open(self, oid: str) -> bool:
        """Whether an object could rightly be opened; notes that it was."""
        may = oid in self.there or (self.native and oid in self.opened)
        self.opened.add(oid)
        return may

    def read_whole(self) -> None:
        path = self._any_path()
        oid = md5(self.files[path])
        try:
            data = (self.mount / path).read_bytes()
        except OSError as error:
            assert error.errno == errno.EIO, error
            assert oid not in self.there, path
            return
        assert self._may_open(oid), path
        assert data == (self.plain / path).read_bytes(), path
        self.seen[path] = Seen.SURELY

    def drop_pages(self) -> None:
        """Make the kernel forget what it has of a file, so that the daemon is asked again."""
        if handle := self._any_handle():
            os.posix_fadvise(handle.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    # Mappings

    def map(self) -> None:
        handle = self._any_handle()
        if handle is None or len(self.mappings) >= MAPPINGS or not self.files[handle.path]:
            return
        flags = self.order.choice((mmap.MAP_SHARED, mmap.MAP_PRIVATE))
        self.mappings.append((handle.path, mmap.mmap(handle.descriptor, 0, flags, mmap.PROT_READ)))

    def read_mapping(self) -> None:
        if self.mappings:
            path, mapping = self.order.choice(self.mappings)
            assert len(mapping) == len(self.files[path])
            offset, length = self._range(path)
            self._check(path, offset, length, mapping[offset : offset + length])

    def unmap(self) -> None:
        if self.mappings:
            self.mappings.pop(self.order.randrange(len(self.mappings)))[1].close()

    # Names

    def stat(self) -> None:
        path = self._any_path()
        here = md5(self.files[path]) in self.there
        try:
            status = os.stat(self.mount / path)
        except OSError as error:
            assert error.errno == errno.EIO, error
            assert not here, f"{path} is in the cache and has no size"
            assert self.seen[path] is not Seen.SURELY, f"the size of {path} was known and is forgotten"
            return
        assert here or self.seen[path] is not Seen.NEVER, f"the size of {path} was made up"
        assert status.st_size == len(self.files[path]), path
        self.seen[path] = Seen.SURELY

    def list(self) -> None:
        path = os.path.dirname(self._any_path())
        with os.scandir(self.mount / path) as entries:
            here = {entry.name: (entry.is_dir(), entry.is_file()) for entry in entries}
        with os.scandir(self.plain / path) as entries:
            assert here == {entry.name: (entry.is_dir(), entry.is_file()) for entry in entries}

    def look_for_nothing(self) -> None:
        path = self._any_path()
        wrong, code = self.order.choice(
            [
                (f"{path}x", errno.ENOENT),
                (f"{path}/below", errno.ENOTDIR),
                (f"missing/{path}", errno.ENOENT),
                (path[:-1] + "\x01", errno.ENOENT),
                (f"{path}{'y' * 256}", errno.ENAMETOOLONG),
            ]
        )
        for root in (self.mount, self.plain):
            try:
                os.stat(root / wrong)
            except OSError as error:
                assert error.errno == code, error
            else:
                raise AssertionError(f"{root / wrong} was found")

    def ask_cached(self) -> None:
        path = self._any_path()
        oid = md5(self.files[path])
        try:
            told = os.getxattr(self.mount / path, "user.fusefs.oid")
            if self.image:
                assert told == oid.encode()
                return
            cached = os.getxattr(self.mount / path, "user.fusefs.cached")
        except OSError as error:
            # Before it asks for an attribute the kernel checks the mode, for which it wants all of `stat`.
            assert error.errno == errno.EIO, error
            assert oid not in self.there and self.seen[path] is not Seen.SURELY, path
            return
        assert told == oid.encode()
        assert cached == (b"1" if oid in self.there else b"0")
        self.seen[path] = Seen.SURELY

    # The cache

    def evict(self) -> None:
        if self.there:
            oid = self.order.choice(sorted(self.there))
            self.there.remove(oid)
            self.cache.remove(oid)

    def restore(self) -> None:
        away = sorted({md5(data) for data in self.files.values()} - self.there)
        if away:
            self._put_back(self.order.choice(away))

    def spoil(self) -> None:
        """Something that is no object takes an object's place."""
        away = sorted({md5(data) for data in self.files.values()} - self.there)
        if not away:
            return
        place = self.cache.place(self.order.choice(away))
        if os.path.lexists(place):
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        kind = self.order.choice(("fifo", "directory", "link"))
        if kind == "fifo":
            os.mkfifo(place)
        elif kind == "directory":
            place.mkdir()
        else:
            place.symlink_to("/etc/passwd")

    def _put_back(self, oid: str) -> None:
        place = self.cache.place(oid)
        if place.is_dir() and not place.is_symlink():
            place.rmdir()
        elif os.path.lexists(place):
            place.unlink()
        self.cache.put(next(data for data in self.files.values() if md5(data) == oid))
        self.there.add(oid)
        self._may_have_seen()

    # Choices and checks

    def _any_path(self) -> str:
        path = self.order.choice(sorted(self.files))
        self.told.append(path)
        return path

    def _any_handle(self) -> Handle | None:
        if not self.handles:
            return None
        handle = self.order.choice(self.handles)
        self.told.append(f"{handle.path} by {handle.descriptor}")
        return handle

    def _range(self, path: str) -> tuple[int, int]:
        size = len(self.files[path])
        offset = self.order.choice((self.order.randrange(size + 100), size, max(size - 10, 0), size & ~4095))
        return offset, self.order.choice((1, 17, 4096, 100_000))

    def _check(self, path: str, offset: int, length: int, got: bytes) -> None:
        self.told.append(f"{offset}+{length}")
        with open(self.plain / path, "rb") as file:
            file.seek(offset)
            expected = file.read(length)
        assert got == expected, f"{path} at {offset}+{length}: {len(got)} bytes, {len(expected)} expected"

    def _may_have_seen(self) -> None:
        """A mount looks for all sizes by itself, whenever it comes to that."""
        for path, data in self.files.items():
            if md5(data) in self.there and self.seen[path] is Seen.NEVER:
                self.seen[path] = Seen.PERHAPS
