"""`KnownArchives`: the indexes of one remote's archives, as far as they were read; and what was not worth it.

Indexes are hostile: what is wrong in one is said once, and the archive is done without. Blocking and any
thread, but for `find`, which waits for nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

from store.contents.index import ArchiveIndex, decode_archive
from store.contents.kept_indexes import KeptIndexes
from store.contents.lookup import InArchive, Members
from store.contents.names import ARCHIVE_INDEX, ContentName
from store.errors import ObjectCorrupt, RemoteCorrupt, RemoteError, RemoteMissing
from store.oid import Oid

log = logging.getLogger(__name__)

T = TypeVar("T")

ABSENT_SECONDS: Final = 60.0
"""For so long a remote is not asked again for what it has not: any contents, a catalogue, an archive."""
INDEX_BYTES: Final = 256 << 20
"""Of archives' indexes that are kept, of four million contents; further archives are not known."""
MOST_LOST: Final = 100
"""Archives that are not there or damaged: a catalogue that names more of them is not gone through."""
_AT_ONCE: Final = 8
_MEMBER_BYTES: Final = 64
"""Of a member, in memory."""
_REMEMBERED: Final = 10_000

Read = Callable[[ContentName, str], bytes]
"""Reads a file of a content directory. Raises `RemoteError`."""


class LeftOut:
    """What is not asked for again before a time: manifests, and archives by their names. Any thread."""

    def __init__(self) -> None:
        self._until: dict[Oid | str, float] = {}

    def __contains__(self, what: Oid | str) -> bool:
        return time.monotonic() < self._until.get(what, 0.0)

    def add(self, what: Oid | str) -> None:
        if len(self._until) > _REMEMBERED:
            self._until.clear()
        self._until[what] = time.monotonic() + ABSENT_SECONDS


class KnownArchives:
    """Those of one remote; `name` is fit to be shown."""

    def __init__(self, name: str, read: Read, kept: KeptIndexes | None = None) -> None:
        self._name = name
        self._read = read
        self._kept = kept
        self._doubted: set[str] = set()
        """Archives whose indexes were kept, and have proved neither right nor wrong."""
        self._guard = threading.Lock()
        self._indexes: dict[str, ArchiveIndex] = {}
        self._bytes = 0
        self._members = Members()
        self._left_out = LeftOut()

    def find(self, oid: Oid) -> InArchive | None:
        """Which archive has a content."""
        return self._members.find(oid)

    def load(self, names: Iterable[str]) -> None:
        """Read the indexes of archives. Raises the first `RemoteError` when all were asked for."""
        wanted = [name for name in names if name not in self._indexes and name not in self._left_out]
        if not wanted:
            return
        failures: list[RemoteError] = []
        lost: list[str] = []

        def load(name: str) -> None:
            if len(lost) >= MOST_LOST:
                return
            try:
                index = self._load(name)
            except (RemoteMissing, ObjectCorrupt, RemoteCorrupt) as error:
                if not isinstance(error, RemoteMissing):
                    log.warning("%s: %s; the archive is done without", self._name, error)
                self._left_out.add(name)
                lost.append(name)
            except RemoteError as error:
                failures.append(error)
            else:
                self._take(index)

        side_by_side(load, wanted)
        with self._guard:
            self._members = Members(tuple(self._indexes.values()))
        if failures:
            raise failures[0]

    def _load(self, name: str) -> ArchiveIndex:
        """From here, or from the remote. Raises `ObjectCorrupt`, `RemoteError`."""
        data = None if self._kept is None else self._kept.read(name)
        if data is not None:
            try:
                index = decode_archive(data, name)
            except ObjectCorrupt:
                pass  # it was damaged here
            else:
                self._doubted.add(name)
                return index
        data = self._read(ContentName.of_archive(name), ARCHIVE_INDEX)
        index = decode_archive(data, name)
        if self._kept is not None:
            self._kept.keep(name, data)
        return index

    def renew(self, name: str) -> None:
        """An archive does not have what its index says: if that was kept here, it may be to blame, and is
        read anew, once. Raises `RemoteError`."""
        if self._kept is None:
            return
        self._kept.drop(name)
        if name in self._doubted:
            self._doubted.discard(name)
            with self._guard:
                index = self._indexes.pop(name, None)
                self._bytes -= _MEMBER_BYTES * len(index) if index is not None else 0
            self.load([name])

    def lose(self, name: str) -> None:
        """An archive is not there any more, or not as it should be."""
        if self._kept is not None:
            self._kept.drop(name)
        with self._guard:
            index = self._indexes.pop(name, None)
            if index is not None:
                self._left_out.add(name)
                self._bytes -= _MEMBER_BYTES * len(index)
                self._members = Members(tuple(self._indexes.values()))

    def _take(self, index: ArchiveIndex) -> None:
        size = _MEMBER_BYTES * len(index)
        with self._guard:
            if self._bytes + size > INDEX_BYTES:
                log.warning("%s has more archives than can be known here", self._name)
                self._left_out.add(index.name)
            elif index.name not in self._indexes:
                self._indexes[index.name] = index
                self._bytes += size


def side_by_side(work: Callable[[T], None], things: Sequence[T]) -> None:
    """Do all by a few threads. Daemon threads: a command that is ended does not wait for a server."""
    if len(things) < 2:
        for thing in things:
            work(thing)
        return
    waiting: SimpleQueue[T] = SimpleQueue()
    for thing in things:
        waiting.put(thing)
    failures: list[BaseException] = []

    def go_on() -> None:
        try:
            while not failures:
                work(waiting.get_nowait())
        except Empty:
            pass
        except BaseException as error:  # it must reach whoever waits
            failures.append(error)

    threads = [threading.Thread(target=go_on, daemon=True) for _ in range(min(_AT_ONCE, len(things)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
