"""`Unpacker`: files that come one after the other become objects of a cache: hashed, staged, published.

Small files are hashed and written by a few threads, some at a time; a large one is hashed by a thread while
it is written. What was proved is made durable and published in batches, while the next ones come. In memory
are some groups of small files, or some pieces of a large one.

Belongs to the caller's thread, which reads and writes what is large.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from store.backup.naming import Naming
from store.commit.batches import Batches
from store.commit.publish import ObjectWriter, Staged, open_writer
from store.errors import ObjectCorrupt
from store.manifest import check_manifest
from store.oid import MD5, Oid
from store.syncing import start_writing, write_all

SMALL: Final = 4 << 20
"""Bytes of a file that is in memory as a whole."""
GROUP_FILES: Final = 64
GROUP_BYTES: Final = 2 << 20
"""Small files that a thread takes together."""
GROUPS: Final = 4
THREADS: Final = 2
PIECES: Final = 4
"""Of a large file that wait to be hashed."""
BATCH_FILES: Final = 4096
BATCH_BYTES: Final = 256 << 20
MANIFEST_LIMIT: Final = 1 << 32
_NEW_MODE: Final = 0o777
_BEGUN_BYTES: Final = 32 << 20
"""After so many the disk begins to write a large file."""

Named = Callable[[str], None]
"""Told an object's digits."""


@dataclass(slots=True)
class Unpacked:
    """What became of files."""

    restored: int = 0
    """That were not in the cache."""
    here: int = 0
    bytes: int = 0
    """Of what was not in the cache."""
    damaged: list[Oid] = field(default_factory=list)
    """That are not what their names say, and were left out."""


class _Nowhere:
    """Stands for a cache where files are only to be proved: it has nothing and keeps nothing."""

    @property
    def room(self) -> _Nowhere:
        return self

    def has(self, oid: str, size: int) -> bool:
        return False

    def create(self, name: str) -> int:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def discard(self, name: str) -> None:
        pass

    def publish(self, batch: Sequence[Staged]) -> int:
        return len(batch)

    def settle(self) -> None:
        pass


_Writer = ObjectWriter | _Nowhere


class _Lane(NamedTuple):
    """The way into the cache for objects of one algorithm."""

    writer: _Writer
    batches: Batches


class _File(NamedTuple):
    """A file on its way: the name that it is staged by, and the object that it must be, if that is known."""

    name: str
    size: int
    oid: Oid | None
    named: Named | None


class _Stored(NamedTuple):
    """What became of a file; no digits for one that is not what it must be."""

    file: _File
    digits: str
    is_staged: bool


class Unpacker:
    """Made by `open_unpacker`."""

    def __init__(self, cache: Path | None, writers: ExitStack, found: Unpacked) -> None:
        self.found = found
        self._cache = cache
        self._writers = writers
        self._lanes: dict[str, _Lane] = {}
        self._small = ThreadPoolExecutor(THREADS, thread_name_prefix="unpack")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="unpack-large")
        self._group: list[tuple[_File, bytes]] = []
        self._group_bytes = 0
        self._group_lane: _Lane | None = None
        self._storing: deque[tuple[_Lane, Future[list[_Stored]]]] = deque()
        self._files = 0
        self._behind_manifest = False

    def put(
        self, size: int, pieces: Iterable[bytes], oid: Oid | None = None, named: Named | None = None
    ) -> None:
        """Take in a file of so many bytes, which must be the object `oid` where one is given.

        `named` is told which object it is, by and by. A manifest is published behind all that was put before
        it. Raises what `pieces` raise, and `OSError`.
        """
        lane = self._lane(MD5 if oid is None else oid.algorithm)
        self._files += 1
        if oid is not None and lane.writer.has(str(oid), size):
            pass
        elif oid is not None and oid.is_tree:
            self._put_manifest(lane, oid, size, pieces)
        else:
            file = _File(str(self._files), size, oid, named)
            if size <= SMALL:
                self._put_small(lane, file, b"".join(pieces))
            else:
                self._note(lane, self._put_large(lane, file, pieces))
        self._behind_manifest = oid is not None and oid.is_tree

    def settle(self) -> None:
        """Make all of it objects, durably. Raises `OSError`."""
        self._submit()
        while self._storing:
            self._collect()
        found = self.found
        found.restored = 0
        for lane in self._lanes.values():
            found.restored += lane.batches.finish()
            lane.writer.settle()
        found.here = self._files - found.restored - len(found.damaged)

    def close(self) -> None:
        """End all threads; what was not settled is given up."""
        for threads in (self._small, self._large):
            threads.shutdown(cancel_futures=True)
        for lane in self._lanes.values():
            lane.batches.close()

    def _lane(self, algorithm: str) -> _Lane:
        lane = self._lanes.get(algorithm)
        if lane is None:
            writer = self._open(algorithm)
            lane = self._lanes[algorithm] = _Lane(writer, Batches(writer, BATCH_FILES, BATCH_BYTES))
        return lane

    def _open(self, algorithm: str) -> _Writer:
        if self._cache is None:
            return _Nowhere()
        opening = open_writer(self._cache, shared_with_group=False, new_mode=_NEW_MODE, algorithm=algorithm)
        return self._writers.enter_context(opening)

    def _put_small(self, lane: _Lane, file: _File, data: bytes) -> None:
        if lane is not self._group_lane:
            self._submit()
            self._group_lane = lane
        self._group.append((file, data))
        self._group_bytes += file.size
        if len(self._group) >= GROUP_FILES or self._group_bytes >= GROUP_BYTES:
            self._submit()

    def _submit(self) -> None:
        lane = self._group_lane
        if self._group and lane is not None:
            self._storing.append((lane, self._small.submit(_store, lane.writer, self._group)))
            self._group, self._group_bytes = [], 0
        while len(self._storing) > GROUPS:
            self._collect()

    def _collect(self) -> None:
        lane, storing = self._storing.popleft()
        for stored in storing.result():
            self._note(lane, stored)

    def _note(self, lane: _Lane, stored: _Stored) -> None:
        file = stored.file
        if file.oid is not None and not stored.digits:
            self.found.damaged.append(file.oid)
            return
        if stored.is_staged:
            lane.batches.add(Staged(file.name, stored.digits, file.size))
            self.found.bytes += file.size
        if file.named is not None:
            file.named(stored.digits)

    def _put_manifest(self, lane: _Lane, oid: Oid, size: int, pieces: Iterable[bytes]) -> None:
        if not self._behind_manifest:
            self.settle()
        data = b"".join(pieces) if size <= MANIFEST_LIMIT else b""
        try:
            check_manifest(data, oid)
        except ObjectCorrupt:
            self.found.damaged.append(oid)
            return
        file = _File(str(self._files), size, oid, None)
        with open(lane.writer.room.create(file.name), "wb") as room:
            room.write(data)
        self._note(lane, _Stored(file, str(oid), True))

    def _put_large(self, lane: _Lane, file: _File, pieces: Iterable[bytes]) -> _Stored:
        descriptor = lane.writer.room.create(file.name)
        naming = Naming(file.oid)
        hashing: deque[Future[None]] = deque()
        begun = written = 0
        try:
            for piece in pieces:
                while len(hashing) >= PIECES:
                    hashing.popleft().result()
                hashing.append(self._large.submit(naming.update, piece))
                write_all(descriptor, piece)
                written += len(piece)
                if written - begun >= _BEGUN_BYTES:
                    start_writing(descriptor)
                    begun = written
            while hashing:
                hashing.popleft().result()
        finally:
            os.close(descriptor)
        digits = naming.digits()
        is_staged = bool(digits) and not lane.writer.has(digits, file.size)
        if not is_staged:
            lane.writer.room.discard(file.name)
        return _Stored(file, digits, is_staged)


@contextmanager
def open_unpacker(cache: Path | None, found: Unpacked) -> Iterator[Unpacker]:
    """For the cache at `cache`, which is made where it is missing; for none files are proved and not kept.

    `found` says what became of them. What is not settled is given up. Raises `CacheUnusable` for every
    `OSError` from within.
    """
    with ExitStack() as writers:
        unpacker = Unpacker(cache, writers, found)
        try:
            yield unpacker
        finally:
            unpacker.close()


def _store(writer: _Writer, group: Sequence[tuple[_File, bytes]]) -> list[_Stored]:
    """In a thread: stage those that are what they must be, and not in the cache."""
    stored = []
    for file, data in group:
        naming = Naming(file.oid)
        naming.update(data)
        digits = naming.digits()
        # An object that was named has been looked for before.
        is_wanted = bool(digits) and (file.oid is not None or not writer.has(digits, file.size))
        if is_wanted:
            descriptor = writer.room.create(file.name)
            try:
                write_all(descriptor, data)
            finally:
                os.close(descriptor)
        stored.append(_Stored(file, digits, is_wanted))
    return stored
