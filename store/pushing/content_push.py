"""`ContentPush`: what versions are made of, from caches to one remote, in content directories
(`store.contents`).

What the remote lacks in both layouts is put: large contents in parts, of which versions share what did not
change; small ones by the thousand in archives; others whole. Whatever is there is complete: an index comes
behind what it names, and a manifest with its catalogue behind everything, so a push that was interrupted goes
on where it ended, and two pushes of the same do each other no harm. Every content is held against its hash
before its last byte goes.

Caller: `fusefs push --layout content`. Blocking; the caller's thread watches, others work.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from store.cache_chain import CacheChain
from store.contents.archiving import SMALL_BYTES
from store.contents.catalogue import Catalogue
from store.contents.chunking import SMALLEST
from store.contents.index import MOST_PIECES, encode_parts
from store.contents.names import (
    ARCHIVE,
    ARCHIVE_INDEX,
    CATALOGUE,
    PARTS_INDEX,
    WHOLE,
    ContentName,
)
from store.errors import RemoteAbsent, RemoteMissing, StoreError
from store.layouts import object_path
from store.oid import Oid
from store.pushing.content_loads import Cut, Group, Part, batches_of, groups_of
from store.pushing.content_places import Places
from store.pushing.content_sources import archive_of, cut, read_piece
from store.pushing.content_survey import WHOLE_BYTES, ContentSurvey
from store.pushing.lacking import Item
from store.pushing.push import Log, stays_here
from store.pushing.sending import JOBS, LARGE_JOBS, Sender, Tally
from store.pushing.sources import verified
from store.pushing.versions import Versions, named, read_versions
from store.remotes.remote import Remote
from store.remotes.storage import Address


class ContentPush:
    """One push to one remote."""

    def __init__(
        self,
        caches: CacheChain,
        remote: Remote,
        *,
        told: Mapping[Oid, bytes] | None = None,
        log: Log | None = None,
        jobs: int = JOBS,
        tick: Callable[[], object] = lambda: None,
        in_both: bool = False,
    ) -> None:
        """As `Push`. With `in_both` also what lies on the remote in DVC's layout is put; else it stays what
        is read, and nothing of it is sent again."""
        self._caches = caches
        self._in_both = in_both
        self._storage = remote.storage
        self._told = told or {}
        self._log = log
        self._sender = Sender(remote.storage, jobs, tick)
        self._survey = ContentSurvey(remote, self._sender)
        self._lock = threading.Lock()

    @property
    def tally(self) -> Tally:
        return self._sender.tally

    def run(self, roots: Iterable[Oid]) -> None:
        """As `Push.run`."""
        roots = list(dict.fromkeys(roots))
        sender = self._sender
        versions = read_versions(roots, self._caches, self._told, sender.fail)
        sender.tally.objects += versions.objects + sum(oid.is_tree for oid in roots)
        if self._log is not None:
            items = _items(versions)
            sender.crew.run([partial(self._log.begin, items, lambda oid: ContentName.of(oid).key(WHOLE))])
        places = self._survey.find(versions.lengths, versions.manifests, in_both=self._in_both)
        lacking = self._note_found(versions, places)
        sender.tally.lacking += len(lacking)
        sender.tally.lacking_bytes += sum(max(item.size, 0) for item in lacking)
        large = [item for item in lacking if WHOLE_BYTES < item.size <= MOST_PIECES * SMALLEST]
        for some in batches_of(sorted(large, key=lambda item: -item.size)):
            self._put_in_parts(some, places)
        small = [item for item in lacking if 0 <= item.size <= SMALL_BYTES]
        groups = groups_of(small)
        gathered = {item.oid for group in groups for item in group.items}
        left = {item.oid for item in large} | gathered
        self._put_others(
            groups,
            sorted((item for item in lacking if item.oid not in left), key=lambda item: -item.size),
            places,
        )
        self._put_manifests(versions.manifests, places)

    def _note_found(self, versions: Versions, places: Places) -> list[Item]:
        """What the remote lacks, in the order of the manifests."""
        lacking = []
        for algorithm, lengths in versions.lengths.items():
            for digest, size in lengths.items():
                oid = Oid(digest, algorithm=algorithm)
                if not places.find(algorithm, digest):
                    lacking.append(Item(oid, size))
                    continue
                self._sender.tally.there += 1
                if self._log is not None:
                    self._log.found(Item(oid, places.sizes[algorithm][digest]), places.key(oid))
        return lacking

    # Large contents

    def _put_in_parts(self, items: Sequence[Item], places: Places) -> None:
        sender = self._sender
        contents: list[Cut] = []

        def cut_one(item: Item) -> None:
            try:
                pieces = cut(self._caches, item.oid, lambda _: sender.crew.check())
            except StoreError as error:
                sender.fail(item.oid, error)
            else:
                with self._lock:
                    contents.append(Cut(item.oid, pieces))

        sender.crew.each(items, cut_one, min(LARGE_JOBS, sender.jobs))
        lacking = self._survey.lacking_parts(piece for one in contents for piece in one.pieces)
        parts: dict[str, Part] = {}
        for one in sorted(contents, key=lambda one: -one.pieces[-1].offset):
            for piece in one.pieces:
                if piece.part in lacking:
                    parts.setdefault(piece.part, Part(one.oid, piece))
        known = sum(piece.length for one in contents for piece in one.pieces)
        sender.tally.lacking_bytes -= known - sum(part.size for part in parts.values())
        failed: dict[str, StoreError] = {}

        def fail(part: Part, error: StoreError) -> None:
            failed.setdefault(part.piece.part, error)
            sender.fail(part.oid, error)

        sender.put_all(list(parts.values()), self._put_part, fail)
        whole = []
        for one in contents:
            error = next((failed[piece.part] for piece in one.pieces if piece.part in failed), None)
            if error is None:
                whole.append(one)
            else:
                sender.fail(one.oid, error)
        sender.put_all(
            whole,
            lambda one: self._put_parts_index(one, places),
            lambda one, error: sender.fail(one.oid, error),
        )

    def _put_part(self, part: Part) -> None:
        data = read_piece(self._caches, part.oid, part.piece)
        key = ContentName.of_part(part.piece.part).key(WHOLE)
        self._sender.put_bytes(key, data)
        self._sender.pushed(0, len(data))
        if self._log is not None:
            self._log.put_file(key, part.piece.part, len(data))

    def _put_parts_index(self, one: Cut, places: Places) -> None:
        key = ContentName.of(one.oid).key(PARTS_INDEX)
        self._sender.put_bytes(key, encode_parts(one.oid, list(one.pieces)))
        size = one.pieces[-1].offset + one.pieces[-1].length
        self._have_put([Item(one.oid, size)], PARTS_INDEX, 0, places)

    # Small contents, and those between

    def _put_others(self, groups: Sequence[Group], items: Sequence[Item], places: Places) -> None:
        things: list[Group | Item] = sorted([*groups, *items], key=lambda one: -one.size)

        def put(thing: Group | Item) -> None:
            if isinstance(thing, Group):
                self._put_archive(thing, places)
            else:
                self._put_whole(thing, places)

        def fail(thing: Group | Item, error: StoreError) -> None:
            for item in thing.items if isinstance(thing, Group) else (thing,):
                if not places.find(item.oid.algorithm, item.oid.digest):
                    self._sender.fail(item.oid, error)

        self._sender.put_all(things, put, fail)

    def _put_archive(self, group: Group, places: Places) -> None:
        wanted = [item.oid for item in group.items if item.oid not in self._sender.failed]
        archive = archive_of(self._caches, wanted, self._sender.fail, lambda _: self._sender.crew.check())
        if archive is None:
            return
        name = ContentName.of_archive(archive.name)
        self._sender.put_bytes(name.key(ARCHIVE), archive.data)
        # On its own: an archive is not sent again because its index was not taken at once.
        self._sender.patience.run(lambda: self._sender.put_bytes(name.key(ARCHIVE_INDEX), archive.index))
        if self._log is not None:
            self._log.put_file(name.key(ARCHIVE), archive.name, len(archive.data))
        put = [Item(member.oid, member.length) for member in archive.members]
        self._have_put(put, archive.name, sum(item.size for item in put), places)

    def _put_whole(self, item: Item, places: Places) -> None:
        descriptor, size = self._caches.open(item.oid)
        try:
            parts = verified(descriptor, size, item.oid, self._sender.sent)
            self._storage.put(ContentName.of(item.oid).key(WHOLE), parts, size)
        finally:
            os.close(descriptor)
        self._have_put([Item(item.oid, size)], WHOLE, size, places)

    def _have_put(self, items: Sequence[Item], where: str, size: int, places: Places) -> None:
        with self._lock:
            for item in items:
                places.note(item.oid, where, item.size)
        self._sender.pushed(len(items), size)
        if self._log is not None:
            for item in items:
                self._log.put(item, places.key(item.oid))

    # Manifests

    def _put_manifests(self, manifests: Mapping[Oid, bytes], places: Places) -> None:
        """Those of which all is there, and what tells where."""
        ready: dict[Oid, Catalogue] = {}
        for oid, data in manifests.items():
            names = named(oid, data)
            lost = next((digest for digest in names if not places.find(oid.algorithm, digest)), None)
            if lost is None:
                ready[oid] = places.catalogue(oid, names)
            else:
                self._sender.fail(oid, stays_here(oid, Oid(lost, algorithm=oid.algorithm)))
        here = {oid: manifests[oid] for oid in ready}
        self._sender.put_all(
            [Item(oid, len(data)) for oid, data in here.items()],
            lambda item: self._put_manifest(
                item, here[item.oid], ready[item.oid], item.oid in places.plain_manifests
            ),
            lambda item, error: self._sender.fail(item.oid, error),
        )

    def _put_manifest(self, item: Item, data: bytes, catalogue: Catalogue, is_plain: bool) -> None:
        name = ContentName.of(item.oid)
        if not (is_plain and catalogue.is_empty):
            written = catalogue.to_bytes()
            if self._survey.read(name, CATALOGUE) != written:
                self._sender.patience.run(lambda: self._sender.put_bytes(name.key(CATALOGUE), written))
        key = object_path(item.oid) if is_plain else name.key(WHOLE)
        try:
            is_there = is_plain or self._sender.patience.run(lambda: self._storage.size(Address(key))) == len(
                data
            )
        except (RemoteMissing, RemoteAbsent):
            is_there = False
        if is_there:
            with self._lock:
                self.tally.there += 1
            if self._log is not None:
                self._log.found(item, key)
            return
        with self._lock:
            self.tally.lacking += 1
            self.tally.lacking_bytes += len(data)
        self._sender.put_bytes(key, data)
        self._sender.pushed(1, len(data))
        if self._log is not None:
            self._log.put(item, key)


def _items(versions: Versions) -> Iterator[Item]:
    for algorithm, lengths in versions.lengths.items():
        for digest, size in lengths.items():
            yield Item(Oid(digest, algorithm=algorithm), size)
    for oid, data in versions.manifests.items():
        yield Item(oid, len(data))
