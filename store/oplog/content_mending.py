"""`ContentMender`: content directories that a remote has lost, or that were damaged there, made again as they
were: an archive of its members, parts of the content that they are cut from, by the index that is left there,
if it tells the truth; an index of what is left; or all of it as another remote has it. What is put has the
hash that it is named by, and goes over what is damaged, at whatever depth that lies: readers may look there
first.

Blocking; many threads at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import xxhash

from store.cache_chain import CacheChain
from store.contents.archiving import Archive
from store.contents.finding import read_whole
from store.contents.index import (
    PIECE_LIMIT,
    ArchiveIndex,
    PartsIndex,
    Piece,
    decode_archive,
    decode_parts,
    encode_parts,
)
from store.contents.names import ARCHIVE, ARCHIVE_INDEX, PARTS_INDEX, WHOLE, ContentName, Place
from store.contents.sealing import LARGEST
from store.errors import ObjectCorrupt, RemoteCorrupt, RemoteError, RemoteMissing, StoreError
from store.hashing import Hasher
from store.oid import Oid
from store.oplog.holdings import Key
from store.oplog.unpacking import unpack
from store.pushing.asking import Patience
from store.pushing.content_sources import archive_of, cut, read_piece
from store.pushing.crew import Crew
from store.remotes.remote import Remote
from store.remotes.storage import CHUNK_BYTES, Address, Storage

ARCHIVE_BYTES: Final = 64 << 20
"""Of an archive that is made again, at most: it is in memory."""
CACHE: Final = "the cache"
THERE: Final = "what is there"
"""On the remote itself: nothing but an index was bad."""

Mended = tuple[str, dict[Key, int]]
"""Where it came from, and the files that are there now, as logs name them, with their lengths."""


class ContentMender:
    """Mends archives and parts of one remote, from `caches`, then from `others`."""

    def __init__(
        self, caches: CacheChain, others: Sequence[Remote], remote: Remote, patience: Patience, crew: Crew
    ) -> None:
        self._caches = caches
        self._others = others
        self._storage = remote.storage
        self._patience = patience
        self._crew = crew

    def mend(self, place: Place, *, damaged: bool) -> Mended | None:
        """Mend what lies at a key; None where that cannot be. What is `damaged` has its length and other
        bytes. Raises `RemoteError` where the remote does not take it."""
        if place.file == ARCHIVE:
            return self._mend_archive(place)
        if place.file == PARTS_INDEX and place.name.oid is not None:
            return self._mend_parts(place, place.name.oid, damaged)
        return None

    def _mend_archive(self, place: Place) -> Mended | None:
        name = place.name
        found = self._archive(name)
        if found is None:
            return None
        source, archive = found
        key = name.key(ARCHIVE, place.depth)
        if source != THERE:
            self._put(key, archive.data)
        self._put(self._key_of(name, ARCHIVE_INDEX, place.depth), archive.index)
        return source, {(key, f"sha256:{name.digest}"): len(archive.data)}

    def _archive(self, name: ContentName) -> tuple[str, Archive] | None:
        """An archive, and where it was found: where only its index was bad, it is there."""
        found = self._unpacked(self._storage, name)
        if found is not None:
            return THERE, found
        for data in self._copies(name, ARCHIVE_INDEX, LARGEST):
            try:
                index = decode_archive(data, name.digest)
            except ObjectCorrupt:
                continue
            found = self._made(index)
            if found is not None:
                return CACHE, found
        for other in self._others:
            found = self._unpacked(other.storage, name)
            if found is not None:
                return other.name, found
        return None

    def _made(self, index: ArchiveIndex) -> Archive | None:
        """An archive, of its members in the caches."""
        if index.size > ARCHIVE_BYTES:
            return None
        failed: list[Oid] = []
        oids = [member.oid for member in index.members()]
        made = archive_of(self._caches, oids, lambda oid, _: failed.append(oid), lambda _: self._crew.check())
        return made if made is not None and not failed and made.name == index.name else None

    def _unpacked(self, storage: Storage, name: ContentName) -> Archive | None:
        """An archive as a remote has it, if it is that."""
        try:
            return unpack(self._read(storage, name, ARCHIVE, ARCHIVE_BYTES), name.digest)
        except RemoteError:
            return None

    def _mend_parts(self, place: Place, oid: Oid, damaged: bool) -> Mended | None:
        for data in self._indexes_of_parts(place.name, oid):
            try:
                index = decode_parts(data, oid)
            except ObjectCorrupt:
                continue
            found = self._put_parts(index, damaged)
            if found is not None:
                self._put(self._key_of(place.name, PARTS_INDEX, place.depth), data)
                return found
        return None

    def _indexes_of_parts(self, name: ContentName, oid: Oid) -> Iterator[bytes]:
        """As they are on remotes; then one that is made anew."""
        yield from self._copies(name, PARTS_INDEX, LARGEST)
        with suppress(StoreError):
            yield encode_parts(oid, cut(self._caches, oid, lambda _: self._crew.check()))

    def _put_parts(self, index: PartsIndex, damaged: bool) -> Mended | None:
        """Have all parts there. What was `damaged` is read, and must be the content: an index may lie."""
        source = THERE
        put: dict[Key, int] = {}
        hasher = Hasher(index.oid.algorithm)
        for piece in index.pieces():
            self._crew.check()
            key, data = self._look_at_part(piece, read=damaged)
            if data is None:
                found = self._part(index.oid, piece)
                if found is None:
                    return None
                source, data = found
                self._put(key, data)
                put[key, f"sha256:{piece.part}"] = piece.length
            if damaged:
                hasher.update(data)
                if len(data) != piece.length or xxhash.xxh3_128_digest(data) != piece.sum:
                    return None
        return None if damaged and not hasher.matches(index.oid) else (source, put)

    def _look_at_part(self, piece: Piece, *, read: bool) -> tuple[str, bytes | None]:
        """Where a part lies, or is to lie; its bytes, if they are to be `read`, None where it is not sound.

        Raises `RemoteError`."""
        name = ContentName.of_part(piece.part)
        for key in name.keys(WHOLE):
            address = Address(key)
            data = b""
            try:
                if read:
                    data = self._patience.run(partial(read_whole, self._storage, address, PIECE_LIMIT))
                    is_sound = hashlib.sha256(data).hexdigest() == piece.part
                else:
                    size = self._patience.run(partial(self._storage.size, address))
                    is_sound = size == piece.length
            except RemoteMissing:
                continue
            except RemoteCorrupt:
                is_sound = False
            return key, data if is_sound else None
        return name.key(WHOLE), None

    def _key_of(self, name: ContentName, file: str, likely: int) -> str:
        """Where a file lies, at whatever depth, or is to lie. Raises `RemoteError`."""
        for key in name.keys(file):
            try:
                self._patience.run(partial(self._storage.size, Address(key)))
            except RemoteMissing:
                continue
            return key
        return name.key(file, likely)

    def _part(self, oid: Oid, piece: Piece) -> tuple[str, bytes] | None:
        try:
            return CACHE, read_piece(self._caches, oid, piece)
        except StoreError:
            pass
        for other in self._others:
            data = self._elsewhere(other, ContentName.of_part(piece.part), WHOLE, piece.length)
            if data is not None and hashlib.sha256(data).hexdigest() == piece.part:
                return other.name, data
        return None

    def _copies(self, name: ContentName, file: str, limit: int) -> Iterator[bytes]:
        """A file as the remote has it, and as the others do."""
        try:
            yield self._read(self._storage, name, file, limit)
        except RemoteError:
            pass
        for other in self._others:
            data = self._elsewhere(other, name, file, limit)
            if data is not None:
                yield data

    def _elsewhere(self, other: Remote, name: ContentName, file: str, limit: int) -> bytes | None:
        """What another remote has; None where it cannot be had."""
        try:
            return self._read(other.storage, name, file, limit)
        except RemoteError:
            return None

    def _read(self, storage: Storage, name: ContentName, file: str, limit: int) -> bytes:
        """A file at whatever depth. Raises `RemoteError`."""
        for key in name.keys(file):
            try:
                return self._patience.run(partial(read_whole, storage, Address(key), limit))
            except RemoteMissing:
                continue
        raise RemoteMissing(f"there is no {name.key(file)}")

    def _put(self, key: str, data: bytes) -> None:
        """Raises `RemoteError`."""
        parts = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
        self._patience.run(lambda: self._storage.put(key, parts, len(data)))
