"""`ContentMender`: content directories that a remote has lost, or that were damaged there, made again as they
were: an archive of its members, parts of the content that they are cut from, by the index that is left there;
or as another remote has them. What is put has the hash that it is named by, and goes over what is damaged, at
whatever depth that lies: readers may look there first.

Blocking; many threads at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from store.cache_chain import CacheChain
from store.contents.finding import read_whole
from store.contents.index import PIECE_LIMIT, ArchiveIndex, PartsIndex, Piece, decode_archive, decode_parts
from store.contents.names import ARCHIVE, ARCHIVE_INDEX, PARTS_INDEX, WHOLE, ContentName, Place
from store.contents.sealing import LARGEST
from store.errors import ObjectCorrupt, RemoteCorrupt, RemoteError, RemoteMissing, StoreError
from store.oid import Oid
from store.oplog.holdings import Key
from store.pushing.asking import Patience
from store.pushing.content_sources import archive_of, read_piece
from store.pushing.crew import Crew
from store.remotes.remote import Remote
from store.remotes.storage import CHUNK_BYTES, Address, Storage

ARCHIVE_BYTES: Final = 64 << 20
"""Of an archive that is made again, at most: it is in memory."""
CACHE: Final = "the cache"

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
        for data in self._copies(name, ARCHIVE_INDEX, LARGEST):
            try:
                index = decode_archive(data, name.digest)
            except ObjectCorrupt:
                continue
            found = self._archive(index)
            if found is not None:
                source, archive = found
                self._put(name.key(ARCHIVE, place.depth), archive)
                self._put(self._key_of(name, ARCHIVE_INDEX, place.depth), data)
                return source, {(name.key(ARCHIVE, place.depth), f"sha256:{name.digest}"): index.size}
        return None

    def _archive(self, index: ArchiveIndex) -> tuple[str, bytes] | None:
        """An archive, and where it was found."""
        if index.size > ARCHIVE_BYTES:
            return None
        failed: list[Oid] = []
        oids = [member.oid for member in index.members()]
        made = archive_of(self._caches, oids, lambda oid, _: failed.append(oid), lambda _: self._crew.check())
        if made is not None and not failed and made.name == index.name:
            return CACHE, made.data
        for other in self._others:
            found = self._elsewhere(other, ContentName.of_archive(index.name), ARCHIVE, index.size)
            if found is not None and hashlib.sha256(found).hexdigest() == index.name:
                return other.name, found
        return None

    def _mend_parts(self, place: Place, oid: Oid, damaged: bool) -> Mended | None:
        for data in self._copies(place.name, PARTS_INDEX, LARGEST):
            try:
                index = decode_parts(data, oid)
            except ObjectCorrupt:
                continue
            found = self._put_parts(index, damaged)
            if found is not None:
                self._put(self._key_of(place.name, PARTS_INDEX, place.depth), data)
                return found
        return None

    def _put_parts(self, index: PartsIndex, damaged: bool) -> Mended | None:
        """Have all parts there; whoever reads them finds that they are the content."""
        source = CACHE
        put: dict[Key, int] = {}
        for piece in index.pieces():
            self._crew.check()
            key, is_sound = self._look_at_part(piece, read=damaged)
            if is_sound:
                continue
            found = self._part(index.oid, piece)
            if found is None:
                return None
            source, data = found
            self._put(key, data)
            put[key, f"sha256:{piece.part}"] = piece.length
        return source, put

    def _look_at_part(self, piece: Piece, *, read: bool) -> tuple[str, bool]:
        """Where a part lies, or is to lie, and whether it is sound there. Raises `RemoteError`."""
        name = ContentName.of_part(piece.part)
        for key in name.keys(WHOLE):
            address = Address(key)
            try:
                if read:
                    data = self._patience.run(partial(read_whole, self._storage, address, PIECE_LIMIT))
                    return key, hashlib.sha256(data).hexdigest() == piece.part
                return key, self._patience.run(partial(self._storage.size, address)) == piece.length
            except RemoteMissing:
                continue
            except RemoteCorrupt:
                return key, False
        return name.key(WHOLE), False

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
