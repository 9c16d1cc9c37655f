"""What logs tell of content directories, held against what is there (`store.contents`).

A content is there when all is there that it takes: its file; or its index and every part of it; or the
archive that it is in, with its index, in the length that the logs tell. Blocking; by the threads of a `Crew`.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from store.contents.finding import read_whole
from store.contents.index import decode_parts
from store.contents.names import (
    ARCHIVE,
    ARCHIVE_INDEX,
    PARTS_INDEX,
    ROOT,
    WHOLE,
    ContentName,
    Place,
    parse_key,
)
from store.contents.reading import Contents
from store.contents.sealing import LARGEST
from store.errors import ObjectCorrupt, RemoteCorrupt, RemoteMissing
from store.oid import Oid
from store.oplog.holdings import Key
from store.oplog.logs import parse_oid
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.remotes.remote import Remote
from store.remotes.storage import Address, Body
from store.tree import UNKNOWN

JOBS: Final = 8


def is_content(key: Key) -> bool:
    """Is what a log names part of a content directory?"""
    return parse_key(key[0]) is not None


class ContentFiles:
    """Those of one remote."""

    def __init__(self, remote: Remote, crew: Crew, patience: Patience) -> None:
        self._storage = remote.storage
        self._contents = remote.contents or Contents(remote.name, remote.storage)
        self._crew = crew
        self._patience = patience
        self._lock = threading.Lock()
        self._sizes: dict[str, int | None] = {}
        """Of files by their keys; None for one that is not there."""
        self._is_listed = False

    def look(self, keys: Collection[Key], told: Mapping[Key, int], *, listing: bool) -> dict[Key, int]:
        """Which of these are there, and how long the contents are. Raises `RemoteError`, `Stopped`."""
        found: dict[Key, int] = {}
        if not keys:
            return found
        if listing:
            self._crew.run([lambda: self._patience.run(self._list)])

        def look(key: Key) -> None:
            place = parse_key(key[0])
            size = None if place is None else self._look(place, key, told)
            if size is not None:
                with self._lock:
                    found[key] = size

        self._crew.each(list(keys), look, JOBS)
        return found

    @contextmanager
    def open(self, key: Key) -> Iterator[Body]:
        """The content's bytes. Raises `RemoteError`."""
        place, oid = parse_key(key[0]), parse_oid(key[1])
        if oid is None or place is None or place.file == WHOLE:
            with self._storage.read(Address(key[0])) as body:
                yield body
            return
        location = self._contents.find(oid)
        if location is None:
            raise RemoteMissing(f"there is no {oid}")
        with self._contents.read(oid, location) as body:
            yield body

    def _list(self) -> None:
        try:
            for listed in self._storage.list(ROOT):
                self._crew.check()
                self._sizes[listed.key] = listed.size
        except RemoteMissing:
            pass  # a remote that has nothing there may say so
        self._is_listed = True

    def _look(self, place: Place, key: Key, told: Mapping[Key, int]) -> int | None:
        path, name = key
        oid, size = parse_oid(name), self._size(path)
        if place.file == PARTS_INDEX:
            return None if oid is None else self._size_of_parts(path, oid)
        if place.file == ARCHIVE:
            length = told.get((path, f"sha256:{place.name.digest}"), UNKNOWN)
            index = place.name.key(ARCHIVE_INDEX, place.depth)
            if size is None or length not in (UNKNOWN, size) or self._size(index) is None:
                return None
            return size if oid is None else told.get(key, UNKNOWN)
        if oid is None and told.get(key, UNKNOWN) not in (UNKNOWN, size):
            return None
        return size

    def _size_of_parts(self, path: str, oid: Oid) -> int | None:
        """The length of a content of which all parts are there."""
        try:
            data = self._patience.run(lambda: read_whole(self._storage, Address(path), LARGEST))
            index = decode_parts(data, oid)
        except (RemoteMissing, RemoteCorrupt, ObjectCorrupt):
            return None
        for piece in index.pieces():
            if self._size(ContentName.of_part(piece.part).key(WHOLE)) != piece.length:
                return None
        return index.size

    def _size(self, path: str) -> int | None:
        """The length of a file; None where it is not there."""
        with self._lock:
            if path in self._sizes or self._is_listed:
                return self._sizes.get(path)
        size: int | None
        try:
            size = self._patience.run(lambda: self._storage.size(Address(path)))
        except RemoteMissing:
            size = None
        with self._lock:
            self._sizes[path] = size
        return size
