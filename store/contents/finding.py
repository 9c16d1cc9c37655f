"""`Finder`: where the contents of one remote are, by its catalogues and indexes.

Nothing is asked before something is wanted that the remote does not have in DVC's place: a remote without
content directories is asked one question then, and again after a while at the earliest. A version's catalogue
and the indexes of its archives tell of all that it has; what no catalogue tells of is asked for by its name,
then looked for in all archives. What was read is kept; what is wrong in it is said once and left out.

Blocking, and any thread, but for `known`, which waits for nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, TypeVar

from store.contents.archives import ABSENT_SECONDS, KnownArchives, LeftOut, side_by_side
from store.contents.catalogue import Catalogue
from store.contents.index import PartsIndex, decode_parts
from store.contents.kept_indexes import KeptIndexes
from store.contents.lookup import InArchive
from store.contents.names import (
    ARCHIVE_INDEX,
    ARCHIVES,
    CATALOGUE,
    DEPTHS,
    PARTS_INDEX,
    ROOT,
    WHOLE,
    ContentName,
    namespace_directory,
    parse_key,
)
from store.contents.sealing import LARGEST
from store.errors import ObjectCorrupt, RemoteCorrupt, RemoteDenied, RemoteError, RemoteMissing, RemoteSlow
from store.oid import Oid
from store.remotes.storage import Address, Storage

log = logging.getLogger(__name__)

T = TypeVar("T")

FRESH_SECONDS: Final = 10.0
"""A catalogue that was wrong so soon is not asked for again for a while; an older one is, at once."""
WAIT_SECONDS: Final = 25.0
"""For what another thread learns."""
PARTS_BYTES: Final = 64 << 20
"""Of indexes of contents in parts that are kept."""
REMEMBERED: Final = 10_000
"""Contents that no catalogue tells of."""
LIMITS: Final = {ARCHIVE_INDEX: 16 << 20, CATALOGUE: 64 << 20, PARTS_INDEX: LARGEST}
"""Bytes of a file, at most. Several of the first are in memory together."""


class Whole(NamedTuple):
    """A content is there as it is."""

    size: int
    """-1 where nothing has told."""


class InParts(NamedTuple):
    """A large content is there in parts."""

    size: int


Location = Whole | InParts | InArchive


class Finder:
    """Of one remote; `name` is fit to be shown."""

    def __init__(self, name: str, storage: Storage, kept: KeptIndexes | None = None) -> None:
        self.name = name
        self._storage = storage
        self._guard = threading.Lock()
        self._learning = threading.Lock()
        """Held by the thread that asks for catalogues and indexes."""
        self._has_any: bool | None = None
        self._looked_at = 0.0
        self._catalogues: dict[Oid, Catalogue] = {}
        self._read_at: dict[Oid, float] = {}
        """When those were read."""
        self._archives = KnownArchives(name, self._read, kept)
        self._found: OrderedDict[Oid, Location] = OrderedDict()
        self._parts: OrderedDict[Oid, PartsIndex] = OrderedDict()
        self._parts_bytes = 0
        self._left_out = LeftOut()
        """Manifests that have no catalogue, or one that is wrong."""
        self._listed_at = -ABSENT_SECONDS
        self._depth = DEPTHS[0]

    @property
    def may_have_any(self) -> bool:
        """False where the remote was seen a moment ago to have no content directories."""
        return self._has_any is not False or time.monotonic() - self._looked_at >= ABSENT_SECONDS

    def known(self, oid: Oid) -> Location | None:
        """Where a content is, as far as that was learnt."""
        if not self._has_any:
            return None
        found = self._archives.find(oid)
        if found is not None:
            return found
        raw = oid.raw
        for catalogue in tuple(self._catalogues.values()):
            if catalogue.manifest.algorithm == oid.algorithm and not oid.is_tree:
                if raw in catalogue.whole:
                    return Whole(catalogue.whole[raw])
                if raw in catalogue.parts:
                    return InParts(catalogue.parts[raw])
        return self._found.get(oid)

    def find(self, oid: Oid, manifests: Sequence[Oid] = ()) -> Location | None:
        """Where a content is; `manifests` are those of its version. Raises `RemoteError`."""
        if not self._look(manifests):
            return None
        found = self.known(oid)
        if found is None and not oid.is_tree:
            self.learn(manifests)
            found = self.known(oid)
        if found is None:
            found = self._ask(oid)
        if found is None and not oid.is_tree:
            self._learn_all()
            found = self.known(oid)
        return found

    def learn(self, manifests: Iterable[Oid]) -> None:
        """Read the catalogues of these manifests, as far as that was not done. Raises `RemoteError`."""
        wanted = [oid for oid in manifests if oid not in self._catalogues and oid not in self._left_out]
        if wanted and self._look(wanted):
            self._with_turn(lambda: self._learn(wanted))

    def parts_of(self, oid: Oid) -> PartsIndex:
        """The index of a content in parts. Raises `RemoteError`."""
        index = self._parts.get(oid)
        if index is None:
            index = self._with_turn(lambda: self._parts.get(oid) or self._read_parts(oid))
        return index

    def lose(self, oid: Oid, location: Location) -> None:
        """A content is not where it was told to be: look anew when it is next wanted."""
        with self._guard:
            self._found.pop(oid, None)
            dropped = self._parts.pop(oid, None)
            self._parts_bytes -= _weight_of_parts(dropped) if dropped is not None else 0
            if isinstance(location, InArchive):
                self._archives.lose(location.archive.name)
            raw = oid.raw
            for manifest, catalogue in list(self._catalogues.items()):
                named = raw in catalogue.whole or raw in catalogue.parts
                if named or (isinstance(location, InArchive) and location.archive.name in catalogue.archives):
                    del self._catalogues[manifest]
                    if time.monotonic() - self._read_at.get(manifest, 0.0) < FRESH_SECONDS:
                        self._left_out.add(manifest)

    def renew(self, location: InArchive) -> None:
        """An archive does not have what its index says. Raises `RemoteError`."""
        self._with_turn(lambda: self._archives.renew(location.archive.name))

    def at_depths(self, name: ContentName, file: str, ask: Callable[[Address], T]) -> T:
        """What `ask` says of a file of a content directory, at whatever depth it is. Raises `RemoteError`:
        `RemoteMissing` where it is at none."""
        depths = (self._depth, *(depth for depth in DEPTHS if depth != self._depth))
        for depth in depths:
            try:
                answer = ask(Address(name.key(file, depth)))
            except RemoteMissing:
                continue
            self._depth = depth
            return answer
        raise RemoteMissing(f"{self.name} has no {name.key(file)}, at no depth")

    # Asking

    def _look(self, manifests: Sequence[Oid]) -> bool:
        """Are there content directories at all? By a listing; where nothing can be listed, by a catalogue."""
        if self._has_any or not self.may_have_any:
            return bool(self._has_any)
        return self._with_turn(lambda: self._look_once(manifests))

    def _look_once(self, manifests: Sequence[Oid]) -> bool:
        if self._has_any or not self.may_have_any:
            return bool(self._has_any)
        try:
            if self._storage.can_list:
                has_any = any(True for _ in self._storage.list(ROOT))
            else:
                has_any = self._has_catalogue(manifests)
        except (RemoteMissing, RemoteCorrupt):
            has_any = False
        except RemoteDenied:  # who may not list may still ask
            has_any = self._has_catalogue(manifests)
        self._has_any, self._looked_at = has_any, time.monotonic()
        return has_any

    def _has_catalogue(self, manifests: Sequence[Oid]) -> bool:
        if not manifests:
            return True  # nobody can tell but by asking for each content
        self._learn(manifests)
        return any(manifest in self._catalogues for manifest in manifests)

    def _with_turn(self, work: Callable[[], T]) -> T:
        if not self._learning.acquire(timeout=WAIT_SECONDS):
            raise RemoteSlow(f"{self.name}: its indexes have not come within {WAIT_SECONDS:.0f} s")
        try:
            return work()
        finally:
            self._learning.release()

    def _learn(self, manifests: Sequence[Oid]) -> None:
        failures: list[RemoteError] = []

        def learn(manifest: Oid) -> None:
            if manifest in self._catalogues or manifest in self._left_out:
                return  # another thread was faster
            try:
                data = self._read(ContentName.of(manifest), CATALOGUE)
                found.append(Catalogue.from_bytes(data, manifest))
            except RemoteMissing:
                self._left_out.add(manifest)
            except (ObjectCorrupt, RemoteCorrupt) as error:
                log.warning("%s: %s; it is done without", self.name, error)
                self._left_out.add(manifest)
            except RemoteError as error:
                failures.append(error)

        found: list[Catalogue] = []
        side_by_side(learn, manifests)
        self._archives.load(dict.fromkeys(archive for catalogue in found for archive in catalogue.archives))
        for catalogue in found:
            self._read_at[catalogue.manifest] = time.monotonic()
            self._catalogues[catalogue.manifest] = catalogue
        if failures:
            raise failures[0]

    def _learn_all(self) -> None:
        """Read the indexes of all archives, whoever pushed them."""
        if time.monotonic() - self._listed_at < ABSENT_SECONDS or not self._storage.can_list:
            return
        self._with_turn(self._list_archives)

    def _list_archives(self) -> None:
        if time.monotonic() - self._listed_at < ABSENT_SECONDS:
            return
        names = []
        try:
            for key, *_ in self._storage.list(namespace_directory(ARCHIVES)):
                place = parse_key(key)
                if place is not None and place.file == ARCHIVE_INDEX:
                    names.append(place.name.digest)
        except (RemoteMissing, RemoteDenied):
            pass
        self._archives.load(names)
        self._listed_at = time.monotonic()

    def _ask(self, oid: Oid) -> Location | None:
        """Look for a content by its name."""
        name = ContentName.of(oid)
        found: Location | None = None
        try:
            found = Whole(self.at_depths(name, WHOLE, self._storage.size))
        except RemoteMissing:
            if oid.is_tree:
                return None
            try:
                found = InParts(self.parts_of(oid).size)
            except RemoteMissing:
                return None
        with self._guard:
            self._found[oid] = found
            if len(self._found) > REMEMBERED:
                self._found.popitem(last=False)
        return found

    def _read_parts(self, oid: Oid) -> PartsIndex:
        try:
            index = decode_parts(self._read(ContentName.of(oid), PARTS_INDEX), oid)
        except ObjectCorrupt as error:
            raise RemoteCorrupt(f"{self.name}: {error}") from None
        with self._guard:
            self._parts[oid] = index
            self._parts_bytes += _weight_of_parts(index)
            while self._parts_bytes > PARTS_BYTES and len(self._parts) > 1:
                self._parts_bytes -= _weight_of_parts(self._parts.popitem(last=False)[1])
        return index

    def _read(self, name: ContentName, file: str) -> bytes:
        """A whole file, within bounds. Raises `RemoteError`."""
        return self.at_depths(name, file, lambda address: read_whole(self._storage, address, LIMITS[file]))


def read_whole(storage: Storage, address: Address, limit: int) -> bytes:
    """All that is at an address. Raises `RemoteError`: `RemoteCorrupt` where it is more than `limit`."""
    parts: list[bytes] = []
    total = 0
    with storage.read(address) as body:
        if body.size > limit:
            raise RemoteCorrupt(f"{address.key} has {body.size} bytes, more than there can be")
        for part in body:
            total += len(part)
            if total > limit:
                raise RemoteCorrupt(f"{address.key} has more than {limit} bytes")
            parts.append(part)
    return b"".join(parts)


def _weight_of_parts(index: PartsIndex) -> int:
    return 64 * len(index)
