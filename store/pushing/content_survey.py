"""What a remote has of contents, in content directories: whole, in parts, or in archives (`store.contents`).

Small contents are looked for in the indexes of all archives, others by their directories, what is in none of
them in DVC's layout. An archive or a part counts when it is there in its length, not because something names
it. Blocking; by the threads of a `Crew`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Final

from store.contents.archiving import SMALL_BYTES
from store.contents.catalogue import Catalogue
from store.contents.finding import read_whole
from store.contents.index import ArchiveIndex, Piece, decode_archive, decode_parts
from store.contents.names import (
    ARCHIVE,
    ARCHIVE_INDEX,
    ARCHIVES,
    CATALOGUE,
    DEPTHS,
    PARTS,
    PARTS_INDEX,
    WHOLE,
    WRITTEN_DEPTH,
    ContentName,
    Place,
    namespace_directory,
    parse_key,
)
from store.contents.sealing import DIGEST_BYTES, LARGEST, values
from store.errors import ObjectCorrupt, RemoteAbsent, RemoteCorrupt, RemoteDenied, RemoteMissing
from store.layouts import OBJECT_ROOTS
from store.oid import Oid
from store.oplog.listing import object_at
from store.pushing.asking import Patience
from store.pushing.content_places import PLAIN, Places
from store.pushing.crew import Crew
from store.pushing.lacking import NOT_HERE, Directory, ObjectShelves, Shelves, Survey, Wanted, directories
from store.pushing.sending import Sender
from store.remotes.remote import Remote
from store.remotes.storage import Address, Storage

WHOLE_BYTES: Final = 4 << 20
"""A content of up to so many bytes is put whole; a larger one in parts."""

Lengths = Mapping[str, Mapping[str, int]]
"""Algorithm → digests → lengths in bytes, or `NOT_HERE`."""


class ContentShelves:
    """Contents in directories of their own; what was found, and how, is kept."""

    def __init__(self, storage: Storage, places: Places) -> None:
        self._storage = storage
        self._places = places
        self._lock = threading.Lock()
        self.whole: dict[tuple[str, str], int] = {}
        self.in_parts: set[tuple[str, str]] = set()

    def can_list(self) -> bool:
        return self._storage.can_list

    def list(self, kind: str, prefix: str) -> Iterator[tuple[str, int]]:
        for key, size, *_ in self._storage.list(namespace_directory(kind, prefix)):
            place = parse_key(key)
            if place is not None and not place.name.is_tree:
                yield place.name.digest, self._note(place, size)

    def list_all(self, kind: str) -> Iterator[tuple[str, int]]:
        return self.list(kind, "")

    def size(self, wanted: Wanted) -> int:
        name = ContentName(wanted.kind, wanted.name)
        files = [WHOLE] if wanted.size <= WHOLE_BYTES else [PARTS_INDEX, WHOLE]
        files += [PARTS_INDEX] if wanted.size == NOT_HERE else []
        for file in files:
            try:
                return self._note(*_ask(self._storage, name, file))
            except RemoteMissing:
                continue
        raise RemoteMissing(f"there is no {wanted.name}")

    def _note(self, place: Place, size: int) -> int:
        """How long the content is, as far as its key tells; `NOT_HERE` where its index must be read."""
        content = place.name.namespace, place.name.digest
        with self._lock:
            self._places.note_depth(place)
            if place.file == PARTS_INDEX:
                self.in_parts.add(content)
                return NOT_HERE
            self.whole[content] = size
        return size


class PartShelves:
    """The parts of large contents."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def can_list(self) -> bool:
        return self._storage.can_list

    def list(self, kind: str, prefix: str) -> Iterator[tuple[str, int]]:
        for key, size, *_ in self._storage.list(namespace_directory(kind, prefix)):
            place = parse_key(key)
            if place is not None:
                yield place.name.digest, size

    def list_all(self, kind: str) -> Iterator[tuple[str, int]]:
        return self.list(kind, "")

    def size(self, wanted: Wanted) -> int:
        return _ask(self._storage, ContentName(wanted.kind, wanted.name), WHOLE)[1]


class PlainShelves(ObjectShelves):
    """Objects in DVC's layout; there may be none at all, so all are listed first. What was found is kept."""

    def __init__(self, remote: Remote) -> None:
        super().__init__(remote)
        self._storage = remote.storage
        self.sizes: dict[tuple[str, str], int] = {}

    def list(self, kind: str, prefix: str) -> Iterator[tuple[str, int]]:
        for name, size in super().list(kind, prefix):
            self.sizes[kind, name] = size
            yield name, size

    def list_all(self, kind: str) -> Iterator[tuple[str, int]] | None:
        root = OBJECT_ROOTS[kind]
        return self._list_below(kind, f"{root}/") if root else None  # of DVC 2 all lies among everything

    def size(self, wanted: Wanted) -> int:
        size = self.sizes[wanted.kind, wanted.name] = super().size(wanted)
        return size

    def _list_below(self, kind: str, place: str) -> Iterator[tuple[str, int]]:
        for listed in self._storage.list(place):
            oid = object_at(listed.key, kind)
            if oid is not None:
                self.sizes[kind, str(oid)] = listed.size
                yield str(oid), listed.size


class ContentSurvey:
    """Looks through one remote."""

    def __init__(self, remote: Remote, sender: Sender) -> None:
        self._remote = remote
        self._storage: Storage = remote.storage
        self._crew: Crew = sender.crew
        self._patience: Patience = sender.patience
        self._jobs = sender.jobs
        self._lock = threading.Lock()

    def find(self, wanted: Lengths, manifests: Mapping[Oid, bytes], *, in_both: bool = False) -> Places:
        """Where contents are. `manifests` are those whose catalogues tell, where nothing can be listed. With
        `in_both` what lies in DVC's layout is not there.

        Raises `RemoteError`, `Stopped`.
        """
        places = Places()
        self._find_in_archives(wanted, manifests, places)
        left = [
            directory
            for algorithm, lengths in sorted(wanted.items())
            for directory in directories(
                algorithm, ((d, size) for d, size in lengths.items() if not places.find(algorithm, d))
            )
        ]
        shelves = ContentShelves(self._storage, places)
        lacking = {(one.kind, one.name) for one in self._survey(shelves).find(left)}
        in_parts: list[tuple[Oid, int]] = []
        for directory in left:
            for algorithm, digest, size in directory.wanted():
                oid = Oid(digest, algorithm=algorithm)
                there = shelves.whole.get((algorithm, digest), NOT_HERE)
                if (algorithm, digest) not in lacking and there != NOT_HERE:
                    places.note(oid, WHOLE, there)
                elif (algorithm, digest) in shelves.in_parts:
                    in_parts.append((oid, size))
        self._find_in_parts(in_parts, places)
        if not in_both:
            self._find_plain(wanted, manifests, places)
        return places

    def lacking_parts(self, pieces: Iterable[Piece]) -> set[str]:
        """The parts that are not there, by their names. Raises `RemoteError`, `Stopped`."""
        lengths = {piece.part: piece.length for piece in pieces}
        wanted = directories(PARTS, lengths.items())
        return {one.name for one in self._survey(PartShelves(self._storage)).find(wanted)}

    def read(self, name: ContentName, file: str) -> bytes | None:
        """A small file, at whatever depth it is; None where it is not there, or is larger than one can be.

        Raises `RemoteError`."""
        for key in name.keys(file):
            try:
                return self._patience.run(partial(read_whole, self._storage, Address(key), LARGEST))
            except RemoteMissing:
                continue
            except (RemoteAbsent, RemoteCorrupt):
                return None
        return None

    def _find_plain(self, wanted: Lengths, manifests: Mapping[Oid, bytes], places: Places) -> None:
        """What is left, and manifests, in DVC's layout."""
        left: list[Directory] = []
        for algorithm, lengths in sorted(wanted.items()):
            named = {d: size for d, size in lengths.items() if not places.find(algorithm, d)}
            named |= {str(oid): len(data) for oid, data in manifests.items() if oid.algorithm == algorithm}
            left += directories(algorithm, named.items())
        shelves = PlainShelves(self._remote)
        lacking = {(one.kind, one.name) for one in self._survey(shelves).find(left)}
        for directory in left:
            for algorithm, name, _ in directory.wanted():
                size = shelves.sizes.get((algorithm, name))
                if size is not None and (algorithm, name) not in lacking:
                    oid = Oid.parse(name, algorithm)
                    if oid.is_tree:
                        places.plain_manifests.add(oid)
                    else:
                        places.note(oid, PLAIN, size)

    def _survey(self, shelves: Shelves) -> Survey:
        return Survey(shelves, self._crew, self._patience, self._jobs)

    def _find_in_parts(self, contents: list[tuple[Oid, int]], places: Places) -> None:
        """Those whose index can be read, has their length, and names parts that are all there."""
        found: dict[Oid, list[Piece]] = {}

        def look(content: tuple[Oid, int]) -> None:
            oid, size = content
            data = self.read(ContentName.of(oid), PARTS_INDEX)
            try:
                index = None if data is None else decode_parts(data, oid)
            except ObjectCorrupt:
                return
            if index is not None and size in (index.size, NOT_HERE):
                with self._lock:
                    found[oid] = list(index.pieces())

        self._crew.each(contents, look, self._jobs)
        lacking = self.lacking_parts(piece for pieces in found.values() for piece in pieces)
        for oid, pieces in found.items():
            if lacking.isdisjoint(piece.part for piece in pieces):
                places.note(oid, PARTS_INDEX, sum(piece.length for piece in pieces))

    def _find_in_archives(self, wanted: Lengths, manifests: Iterable[Oid], places: Places) -> None:
        small = {
            algorithm: {digest for digest, size in lengths.items() if size <= SMALL_BYTES}
            for algorithm, lengths in wanted.items()
        }
        if not any(small.values()):
            return
        hits = self._archives(small, manifests, places)
        # Of those that have the same contents the one with most: so a catalogue names as few as can be.
        for _, name, index in sorted(hits, key=lambda hit: (-hit[0], hit[1])):
            some = small[index.algorithm]
            for number, digest in enumerate(_digests(index)):
                size = index.lengths[number]
                if digest in some and wanted[index.algorithm][digest] in (size, NOT_HERE):
                    some.discard(digest)
                    places.note(Oid(digest, algorithm=index.algorithm), name, size)

    def _archives(
        self, wanted: Mapping[str, set[str]], manifests: Iterable[Oid], places: Places
    ) -> list[tuple[int, str, ArchiveIndex]]:
        """The archives that have contents that are wanted: how many, their names and indexes. They are
        there in their length."""
        sizes: dict[str, int] = {}
        names: set[str] = set()

        def list_all() -> None:
            for key, size, *_ in self._storage.list(namespace_directory(ARCHIVES)):
                self._crew.check()
                place = parse_key(key)
                if place is not None and place.file == ARCHIVE:
                    places.note_depth(place)
                    sizes[place.name.digest] = size
                elif place is not None and place.file == ARCHIVE_INDEX:
                    names.add(place.name.digest)

        def list_or_ask() -> None:
            try:
                if self._patience.run(lambda: self._storage.can_list):
                    return self._patience.run(list_all)
            except RemoteDenied:  # who may not list may still ask
                pass
            except (RemoteMissing, RemoteAbsent):  # a remote that has nothing there may say so
                return None
            for manifest in manifests:
                data = self.read(ContentName.of(manifest), CATALOGUE)
                try:
                    names.update(() if data is None else Catalogue.from_bytes(data, manifest).archives)
                except ObjectCorrupt:
                    continue
            return None

        self._crew.run([list_or_ask])
        found: list[tuple[int, str, ArchiveIndex]] = []

        def look(name: str) -> None:
            data = self.read(ContentName.of_archive(name), ARCHIVE_INDEX)
            try:
                index = None if data is None else decode_archive(data, name)
                if index is None or sizes.get(name, index.size) != index.size:
                    return
                if name not in sizes:
                    archive = ContentName.of_archive(name)
                    place, size = self._patience.run(partial(_ask, self._storage, archive, ARCHIVE))
                    places.note_depth(place)
                    if size != index.size:
                        return
            except (ObjectCorrupt, RemoteMissing):
                return
            hits = len(wanted.get(index.algorithm, set()).intersection(_digests(index)))
            if hits:
                with self._lock:
                    found.append((hits, name, index))

        both = sizes.keys() & names if sizes else names
        self._crew.each(sorted(both), look, self._jobs)
        return found


def _ask(storage: Storage, name: ContentName, file: str) -> tuple[Place, int]:
    """Where a file is, at whatever depth, and its length; where nothing can be listed and all is asked for,
    only where we put it. Raises `RemoteError`."""
    *depths, last = DEPTHS if storage.can_list else (WRITTEN_DEPTH,)
    for depth in depths:
        try:
            return Place(name, file, depth), storage.size(Address(name.key(file, depth)))
        except RemoteMissing:
            continue
    return Place(name, file, last), storage.size(Address(name.key(file, last)))


def _digests(index: ArchiveIndex) -> list[str]:
    return [digest.hex() for digest in values(index.digests, DIGEST_BYTES)]
