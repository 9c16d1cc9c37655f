"""`Contents`: the content directories of one remote, read as if they were objects.

What is whole is read as it lies there. A content in parts is put together of its pieces, each held against
its xxh3-128; of a range only those are asked for that it touches. A member of an archive comes with its
neighbours, by one request for as many readers as want them, and all of them are held against their oids.

Shared by all versions that have the remote. Blocking, and any thread, but for `known` and `goes_aside`,
which wait for nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

import xxhash

from store.contents.archives import side_by_side
from store.contents.finding import REMEMBERED, Finder, InParts, Location, Whole, read_whole
from store.contents.index import Piece
from store.contents.kept_indexes import KeptIndexes
from store.contents.lookup import InArchive
from store.contents.members import MemberBody, bring_run, ends_of
from store.contents.names import ARCHIVE, PARTS_INDEX, WHOLE, ContentName
from store.contents.pieces import ASKERS, KeptPieces, PiecesBody
from store.contents.windows import Brought, Run, Windows
from store.errors import RemoteCorrupt, RemoteError, RemoteMissing
from store.oid import Oid
from store.remotes.storage import Address, Body, Storage

log = logging.getLogger(__name__)

FIRST_SECONDS: Final = 2.0
"""For so long readers wait for what the very first one is told."""
SEEN_SECONDS: Final = 30.0
"""An archive that was seen is believed to be there for so long."""
PART_SEEN_SECONDS: Final = 300.0
"""The same of a part: of a large content there may be more than can be asked for at a time."""
MOST_SEEN: Final = 100_000
_MOST_ARCHIVES: Final = 64
"""Whose members' ends are kept."""


class Contents:
    """Of one remote; `name` is fit to be shown. Indexes are `kept` for the next process, if they are."""

    def __init__(self, name: str, storage: Storage, kept: KeptIndexes | None = None) -> None:
        self._name = name
        self._storage = storage
        self._finder = Finder(name, storage, kept)
        self._windows = Windows()
        self._pieces = KeptPieces()
        self._askers = threading.BoundedSemaphore(ASKERS)
        self._guard = threading.Lock()
        self._ends: OrderedDict[str, array[int]] = OrderedDict()
        self._seen: dict[ContentName, float] = {}
        self._aside: OrderedDict[Oid, None] = OrderedDict()
        self._first = threading.Lock()
        self._has_answered = threading.Event()

    @property
    def may_have_any(self) -> bool:
        """False where the remote is known to have no content directories."""
        return self._finder.may_have_any

    def known(self, oid: Oid) -> Location | None:
        """Where a content is, as far as that was learnt."""
        return self._finder.known(oid)

    def find(self, oid: Oid, manifests: Sequence[Oid] = ()) -> Location | None:
        """Where a content is; `manifests` are those of its version. Raises `RemoteError`."""
        return self._finder.find(oid, manifests)

    def learn(self, manifests: Sequence[Oid]) -> None:
        """Have it known where all is that these manifests name. Raises `RemoteError`."""
        self._finder.learn(manifests)

    def goes_aside(self, oid: Oid) -> bool:
        """Is it known, or to be feared, that an object does not lie in DVC's place?"""
        return oid in self._aside or self._finder.known(oid) is not None

    def set_aside(self, oid: Oid) -> None:
        """An object did not lie in DVC's place."""
        with self._guard:
            self._aside[oid] = None
            if len(self._aside) > REMEMBERED:
                self._aside.popitem(last=False)

    def was_set_aside(self, oid: Oid) -> bool:
        """Has somebody just seen that the object does not lie in DVC's place? To be asked once."""
        with self._guard:
            return self._aside.pop(oid, self) is None

    @contextmanager
    def first_turn(self) -> Iterator[None]:
        """For readers of a remote that nobody knows yet: the first one asks, the others wait a little for
        what it finds out, and do not all ask for what lies elsewhere."""
        if self._has_answered.is_set():
            yield
            return
        is_first = self._first.acquire(blocking=False)
        try:
            if not is_first:
                self._has_answered.wait(FIRST_SECONDS)
            yield
        finally:
            if is_first:
                self._has_answered.set()
                self._first.release()

    def size(self, oid: Oid, location: Location) -> int:
        """Length in bytes, which is asked for only where nothing has told. Raises `RemoteError`."""
        return location.size if location.size >= 0 else self.confirm(oid, location)

    def confirm(self, oid: Oid, location: Location) -> int:
        """Length in bytes of what is there now, all of it. Raises `RemoteError`."""
        name = ContentName.of(oid)
        if isinstance(location, Whole):
            return self._finder.at_depths(name, WHOLE, self._storage.size)
        if isinstance(location, InArchive):
            archive = location.archive
            self._see(ContentName.of_archive(archive.name), ARCHIVE, archive.size, SEEN_SECONDS)
        else:
            self._finder.at_depths(name, PARTS_INDEX, self._storage.size)
            pieces = list(self._finder.parts_of(oid).pieces())
            side_by_side(
                lambda piece: self._see(
                    ContentName.of_part(piece.part), WHOLE, piece.length, PART_SEEN_SECONDS
                ),
                pieces,
            )
        return location.size

    def _see(self, name: ContentName, file: str, size: int, seconds: float) -> None:
        """Ask for a file that has this length, unless it was seen so lately. Raises `RemoteError`."""
        if time.monotonic() - self._seen.get(name, -seconds) < seconds:
            return
        found = self._finder.at_depths(name, file, self._storage.size)
        if found != size:
            raise RemoteCorrupt(f"{self._name}: {name.key(file)} has {found} bytes, and not {size}")
        with self._guard:
            if len(self._seen) >= MOST_SEEN:
                self._seen.clear()
            self._seen[name] = time.monotonic()

    @contextmanager
    def read(
        self, oid: Oid, location: Location, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> Iterator[Body]:
        """As `Storage.read`. Raises `RemoteError`: `RemoteMissing` where a part or archive has gone."""
        try:
            if isinstance(location, Whole):
                with self._read_whole(oid, offset, length, validator) as body:
                    yield body
            elif isinstance(location, InParts):
                yield self._read_parts(oid, offset, length)
            else:
                yield self._read_member(oid, location, offset, length)
        except RemoteMissing as error:
            log.warning("%s: object %s is not all there: %s", self._name, oid, error)
            self._finder.lose(oid, location)
            if isinstance(location, InArchive):
                self._windows.forget(location.archive.name)
            raise
        except RemoteCorrupt:
            if isinstance(location, InArchive):
                self._renew(location)
            raise

    def _renew(self, location: InArchive) -> None:
        """An archive does not have what its index says; whoever asks again may find another index."""
        with suppress(RemoteError):
            self._finder.renew(location)
        name = location.archive.name
        self._windows.forget(name)
        with self._guard:
            self._ends.pop(name, None)

    @contextmanager
    def _read_whole(self, oid: Oid, offset: int, length: int | None, validator: str) -> Iterator[Body]:
        def enter(address: Address) -> tuple[ExitStack, Body]:
            stack = ExitStack()
            return stack, stack.enter_context(self._storage.read(address, offset, length, validator))

        stack, body = self._finder.at_depths(ContentName.of(oid), WHOLE, enter)
        with stack:
            yield body

    def _read_parts(self, oid: Oid, offset: int, length: int | None) -> PiecesBody:
        index = self._finder.parts_of(oid)
        length = self._within(oid, index.size, offset, length)
        pieces = [index.piece(number) for number in index.covering(offset, length)]

        def bring(piece: Piece) -> bytes:
            return self._bring(oid, piece)

        return PiecesBody(
            index.size, offset, length, pieces, lambda piece: self._pieces.get(piece, bring), self._askers
        )

    def _bring(self, oid: Oid, piece: Piece) -> bytes:
        name = ContentName.of_part(piece.part)
        data = self._finder.at_depths(
            name, WHOLE, lambda address: read_whole(self._storage, address, piece.length)
        )
        if len(data) != piece.length or xxhash.xxh3_128_digest(data) != piece.sum:
            raise RemoteCorrupt(f"{self._name}: part {piece.part} is not what the index of object {oid} says")
        return data

    def _read_member(self, oid: Oid, location: InArchive, offset: int, length: int | None) -> MemberBody:
        archive, number = location
        length = self._within(oid, location.size, offset, length)
        place = ContentName.of_archive(archive.name)

        def bring(run: Run) -> Brought:
            return self._finder.at_depths(
                place,
                ARCHIVE,
                lambda address: bring_run(self._storage, self._name, address, archive, run),
            )

        data, brought = self._windows.read(archive.name, self._ends_of(location), number, bring)
        along = {
            archive.member(other).oid: found
            for other, found in brought.items()
            if other != number and isinstance(found, bytes)
        }
        return MemberBody(data, offset, length, along)

    def _ends_of(self, location: InArchive) -> array[int]:
        name = location.archive.name
        with self._guard:
            ends = self._ends.get(name)
            if ends is None:
                ends = self._ends[name] = ends_of(location.archive)
                if len(self._ends) > _MOST_ARCHIVES:
                    self._ends.popitem(last=False)
            return ends

    def _within(self, oid: Oid, size: int, offset: int, length: int | None) -> int:
        length = size - offset if length is None else length
        if length < 0 or offset + length > size:
            raise RemoteCorrupt(f"{self._name} does not have that much of object {oid}")
        return length
