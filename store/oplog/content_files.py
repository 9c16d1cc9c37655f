"""What logs tell of content directories, held against what is there (`store.contents`); what is there of them
and in no log.

A content is there when all is there that it takes: its file; or its index and every part of it; or the
archive that it is in, with its index, in the length that the logs tell. Blocking; by the threads of a `Crew`.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, NamedTuple

from store.contents.catalogue import Catalogue
from store.contents.finding import read_whole
from store.contents.index import decode_archive, decode_parts
from store.contents.names import (
    ARCHIVE,
    ARCHIVE_INDEX,
    CATALOGUE,
    DEPTHS,
    PARTS,
    PARTS_INDEX,
    ROOT,
    WHOLE,
    WRITTEN_DEPTH,
    ContentName,
    Place,
    namespace_directory,
    parse_key,
)
from store.contents.reading import Contents
from store.contents.sealing import LARGEST
from store.errors import ObjectCorrupt, RemoteCorrupt, RemoteMissing
from store.oid import Oid
from store.oplog.holdings import Key
from store.oplog.logs import format_oid, parse_oid
from store.oplog.report import Stray, What
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.remotes.remote import Remote
from store.remotes.storage import Address, Body
from store.tree import UNKNOWN

JOBS: Final = 8
IN_NO_LOG: Final = "in no log"
NO_INDEX: Final = "no index names it"
NO_KEY: Final = "no file of content directories has such a name"
_OWNERS: Final = {CATALOGUE: WHOLE, ARCHIVE_INDEX: ARCHIVE}
"""Of files that no log tells of by themselves, those that they go with."""


class Found(NamedTuple):
    """Where a content lies, and its length in bytes."""

    path: str
    size: int


def is_content(key: Key) -> bool:
    """Is what a log names part of a content directory?"""
    return parse_key(key[0]) is not None


def is_archive(key: Key) -> bool:
    """Is what a log names an archive, and not what is in one?"""
    place = parse_key(key[0])
    return place is not None and place.file == ARCHIVE and parse_oid(key[1]) is None


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
        self._parts: set[str] | None = set()
        """That indexes name; None where one cannot be read."""

    def look(self, keys: Collection[Key], told: Mapping[Key, int], *, listing: bool) -> dict[Key, Found]:
        """Which of these are there, at whatever depth they lie now. Raises `RemoteError`, `Stopped`."""
        found: dict[Key, Found] = {}
        if listing:
            self._crew.run([lambda: self._patience.run(self._list)])

        def look(key: Key) -> None:
            place = parse_key(key[0])
            there = None if place is None else self._look(place, key, told)
            if there is not None:
                with self._lock:
                    found[key] = there

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

    def is_there(self, key: Key) -> bool:
        """Is the file of a content directory there at this moment? Raises `RemoteError`."""
        try:
            return is_content(key) and self._patience.run(lambda: self._storage.size(Address(key[0]))) >= 0
        except RemoteMissing:
            return False

    def strays(self, known: Collection[Key], *, adopt: bool) -> tuple[list[Stray], dict[Key, int]]:
        """What is there and in no log, where all was listed; parts that no index names. With `adopt`, what
        logs are to tell of it, and then it is no stray. Raises `RemoteError`, `Stopped`."""
        if not self._is_listed:
            return [], {}
        paths, oids = {path for path, _ in known}, {name for _, name in known}
        strays: list[Stray] = []
        adopted: dict[Key, int] = {}

        def look(path: str) -> None:
            place, size = parse_key(path), self._sizes[path] or 0
            why = NO_KEY if place is None else self._why_stray(place, paths, oids)
            told = self._told(path, place, size) if why == IN_NO_LOG and place is not None else {}
            with self._lock:
                if adopt and told:
                    adopted.update(told)
                elif why:
                    strays.append(Stray(path, size, why))

        self._crew.each([path for path, size in self._sizes.items() if size is not None], look, JOBS)
        if adopt:
            taken = {path for path, _ in adopted}
            strays = [one for one in strays if self._owner(parse_key(one.path)) not in taken]
        # All indexes have been read by now, those of strays among them.
        of_parts = namespace_directory(PARTS)
        for path, size in self._sizes.items():
            place = parse_key(path) if path in paths and path.startswith(of_parts) else None
            if place is None or size is None or self._parts is None or place.name.digest in self._parts:
                continue
            strays.append(Stray(path, size, NO_INDEX))
        return sorted(strays, key=lambda one: one.path), adopted

    def lost_catalogues(self, known: Collection[Key], *, deep: bool) -> dict[Oid, tuple[str, What, str]]:
        """Manifests whose catalogue is not there or, with `deep`, is no good: its key, and what is wrong.

        Only where all was listed. Raises `RemoteError`, `Stopped`."""
        found: dict[Oid, tuple[str, What, str]] = {}

        def look(oid: Oid) -> None:
            key = next((k for k in ContentName.of(oid).keys(CATALOGUE) if self._sizes.get(k) is not None), "")
            if not key:
                problem: tuple[What, str] = "lost", "its catalogue is not there"
            elif deep and not self._is_catalogue(key, oid):
                problem = "damaged", "its catalogue cannot be read, or names archives that are not there"
            else:
                return
            with self._lock:
                found[oid] = (key or ContentName.of(oid).key(CATALOGUE), *problem)

        if self._is_listed:
            places = (parse_key(path) for path, _ in known if self._sizes.get(path) is not None)
            oids = [place.name.oid for place in places if place is not None and place.file == WHOLE]
            self._crew.each([oid for oid in oids if oid is not None and oid.is_tree], look, JOBS)
        return found

    def _is_catalogue(self, key: str, oid: Oid) -> bool:
        try:
            data = self._patience.run(lambda: read_whole(self._storage, Address(key), LARGEST))
            archives = Catalogue.from_bytes(data, oid).archives
        except RemoteMissing:
            return True  # somebody has removed it just now
        except (RemoteCorrupt, ObjectCorrupt):
            return False
        return all(
            any(self._sizes.get(key) is not None for key in ContentName.of_archive(name).keys(ARCHIVE))
            for name in archives
        )

    def _why_stray(self, place: Place, paths: Collection[str], oids: Collection[str]) -> str:
        """Why a file is one; empty where it is none."""
        if self._owner(place) in paths:
            return ""
        oid = place.name.oid
        if place.file == CATALOGUE and oid is not None and format_oid(oid) in oids:
            return ""  # the manifest lies in DVC's layout
        return IN_NO_LOG

    def _told(self, path: str, place: Place, size: int) -> dict[Key, int]:
        """What logs tell of a file; nothing of one that is not whole, or goes with another."""
        name = place.name
        if place.file == PARTS_INDEX and name.oid is not None:
            length = self._size_of_parts(path, name.oid)
            return {} if length is None else {(path, format_oid(name.oid)): length}
        if place.file == WHOLE:
            return {(path, f"sha256:{name.digest}" if name.oid is None else format_oid(name.oid)): size}
        if place.file != ARCHIVE:
            return {}
        key = self._path_of(name, ARCHIVE_INDEX, place.depth) or name.key(ARCHIVE_INDEX)
        try:
            data = self._patience.run(lambda: read_whole(self._storage, Address(key), LARGEST))
            index = decode_archive(data, name.digest)
        except (RemoteMissing, RemoteCorrupt, ObjectCorrupt):
            return {}
        if index.size != size:
            return {}
        told = {(path, format_oid(member.oid)): member.length for member in index.members()}
        return {(path, f"sha256:{name.digest}"): size, **told}

    def _owner(self, place: Place | None) -> str:
        """The file that logs tell of, where this one goes with it."""
        if place is None:
            return ""
        file = _OWNERS.get(place.file)
        if file is None:
            return place.name.key(place.file, place.depth)
        return self._path_of(place.name, file, place.depth) or place.name.key(file, place.depth)

    def _list(self) -> None:
        try:
            for listed in self._storage.list(ROOT):
                self._crew.check()
                self._sizes[listed.key] = listed.size
        except RemoteMissing:
            pass  # a remote that has nothing there may say so
        self._is_listed = True

    def _look(self, place: Place, key: Key, told: Mapping[Key, int]) -> Found | None:
        for depth in (place.depth, *(depth for depth in DEPTHS if depth != place.depth)):
            at = replace(place, depth=depth)
            size = self._size_at(at, key, told)
            if size is not None:
                return Found(at.name.key(at.file, depth), size)
        return None

    def _size_at(self, place: Place, key: Key, told: Mapping[Key, int]) -> int | None:
        """The length of the content if it is there, as it was told of; None where it is not all there."""
        logged, name = key
        oid, path = parse_oid(name), place.name.key(place.file, place.depth)
        if place.file == PARTS_INDEX:
            return None if oid is None else self._size_of_parts(path, oid)
        size = self._size(path)
        if place.file == ARCHIVE:
            length = told.get((logged, f"sha256:{place.name.digest}"), UNKNOWN)
            if size is None or length not in (UNKNOWN, size):
                return None
            if oid is None:
                return size
            has_index = self._path_of(place.name, ARCHIVE_INDEX, place.depth) is not None
            return told.get(key, UNKNOWN) if has_index else None
        if oid is None and told.get(key, UNKNOWN) not in (UNKNOWN, size):
            return None
        return size

    def _size_of_parts(self, path: str, oid: Oid) -> int | None:
        """The length of a content of which all parts are there."""
        if self._is_listed and self._size(path) is None:
            return None
        try:
            data = self._patience.run(lambda: read_whole(self._storage, Address(path), LARGEST))
            index = decode_parts(data, oid)
        except (RemoteMissing, RemoteCorrupt, ObjectCorrupt) as error:
            if not isinstance(error, RemoteMissing):
                with self._lock:
                    self._parts = None
            return None
        with self._lock:
            if self._parts is not None:
                self._parts.update(piece.part for piece in index.pieces())
        for piece in index.pieces():
            part = self._path_of(ContentName.of_part(piece.part), WHOLE)
            if part is None or self._size(part) != piece.length:
                return None
        return index.size

    def _path_of(self, name: ContentName, file: str, likely: int = WRITTEN_DEPTH) -> str | None:
        """Where a file is, at whatever depth; None where it is at none."""
        paths = (name.key(file, depth) for depth in (likely, *DEPTHS))
        return next((path for path in paths if self._size(path) is not None), None)

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
