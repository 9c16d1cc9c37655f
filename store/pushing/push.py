"""`Push`: what versions are made of, from caches to one remote in DVC's layout, so that `dvc pull` finds it.

What the remote lacks is put, the largest first; an object that is there is not sent again, so a push that was
interrupted goes on where it ended, and two pushes of the same do each other no harm. A manifest is put when
everything that it names is there, and not before: whoever finds it finds them. Every object is held against
its hash while it is sent.

Caller: `fusefs push`. Blocking; the caller's thread watches, others work.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from store.cache_chain import CacheChain
from store.errors import (
    CacheUnusable,
    ObjectCorrupt,
    ObjectMissing,
    RemoteDenied,
    RemoteError,
    RemoteFull,
    RemoteMissing,
    RemoteSlow,
    StoreError,
)
from store.manifest import check_manifest, parse_manifest
from store.oid import Oid
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.pushing.lacking import NOT_HERE, Item, Part, Survey
from store.pushing.lanes import Lanes
from store.pushing.sources import verified
from store.remotes.remote import Remote
from store.remotes.storage import CHUNK_BYTES
from store.tree import UNKNOWN

JOBS: Final = 16
MOST_JOBS: Final = 64
LARGE_BYTES: Final = CHUNK_BYTES
"""Of larger objects only a few are sent at a time: each has some parts in memory."""
LARGE_JOBS: Final = 4
LOOKED_AT: Final = 1024
"""Objects that the cache is asked for together."""
MOST_FAILURES: Final = 16
"""In a row: then the remote is given up. At once it is where it denies something, has no room, or loses
what it took."""

_HOPELESS: Final = (RemoteDenied, RemoteFull, RemoteMissing)


@dataclass(frozen=True, slots=True)
class Failure:
    """What was not pushed, and what was said."""

    oid: Oid
    error: StoreError


@dataclass(slots=True)
class Tally:
    """How a push is getting on. Bytes are those of objects."""

    objects: int = 0
    """That the versions are made of, manifests among them."""
    there: int = 0
    """That the remote had."""
    pushed: int = 0
    bytes: int = 0
    """Of what was pushed."""
    sent: int = 0
    """Bytes that have gone, also of what was sent twice or came to nothing."""
    lacking: int = 0
    lacking_bytes: int = 0
    failures: list[Failure] = field(default_factory=list)


class Log(Protocol):
    """Who is told of a push; any thread. `store.oplog.push_log` writes the remote's log."""

    def begin(self, items: Iterable[Item]) -> None:
        """All objects that the push is about; nothing was asked yet. Raises `RemoteError`."""

    def found(self, item: Item) -> None:
        """The remote has the object."""

    def put(self, item: Item) -> None:
        """The object was put."""


class Push:
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
    ) -> None:
        """`told` are manifests that are known without a cache. `tick` is called a few times a second by the
        thread that calls `run`.
        """
        self.tally = Tally()
        self._caches = caches
        self._remote = remote
        self._told = told or {}
        self._log = log
        self._jobs = jobs
        self._crew = Crew(tick)
        self._patience = Patience(self._crew)
        self._lanes = Lanes(self._crew, jobs + LARGE_JOBS)
        self._lock = threading.Lock()
        self._failed: set[Oid] = set()
        self._in_a_row = 0

    def run(self, roots: Iterable[Oid]) -> None:
        """Push outputs: files, and directories by their manifests. `tally` tells what became of it.

        Raises `RemoteError` where the remote cannot be asked, or takes nothing any more; what was pushed
        until then stays.
        """
        digests: dict[str, set[str]] = {}
        manifests: dict[Oid, bytes] = {}
        for oid in dict.fromkeys(roots):
            if not oid.is_tree:
                digests.setdefault(oid.algorithm, set()).add(oid.digest)
                continue
            data = self._manifest(oid)
            if data is not None:
                manifests[oid] = data
                digests.setdefault(oid.algorithm, set()).update(_named(oid, data))
        self.tally.objects += sum(map(len, digests.values()))
        parts = self._parts(digests)
        if self._log is not None:
            named = (Item(oid, len(data)) for oid, data in manifests.items())
            items = itertools.chain(*(part.items() for part in parts), named)
            self._crew.run([partial(self._log.begin, items)])
        lacking = self._survey(parts)
        self._put_all(lacking, self._put_object)
        self._put_manifests(manifests)

    def _manifest(self, oid: Oid) -> bytes | None:
        """A manifest's bytes, proved."""
        self.tally.objects += 1
        try:
            data = self._told[oid] if oid in self._told else self._caches.read(oid)
            check_manifest(data, oid)
        except (ObjectMissing, ObjectCorrupt, CacheUnusable) as error:
            self._fail(oid, error)
            return None
        return data

    def _parts(self, digests: Mapping[str, Iterable[str]]) -> list[Part]:
        """All objects but manifests with their lengths here, by the directories that they lie in."""
        parts: dict[tuple[str, str], dict[str, int]] = {}
        for algorithm, found in digests.items():
            waiting = iter(found)
            while some := list(itertools.islice(waiting, LOOKED_AT)):
                for digest, length in zip(some, self._caches.lengths(some, algorithm), strict=True):
                    size = NOT_HERE if length == UNKNOWN else length
                    parts.setdefault((algorithm, digest[:2]), {})[digest] = size
        return [Part(algorithm, prefix, objects) for (algorithm, prefix), objects in sorted(parts.items())]

    def _survey(self, parts: Sequence[Part]) -> list[Item]:
        """What the remote lacks, the largest first."""
        lacking = Survey(self._remote, self._crew, self._patience, self._jobs).find(parts)
        self.tally.there += sum(len(part.objects) for part in parts) - len(lacking)
        if self._log is not None:
            absent = {item.oid for item in lacking}
            for item in itertools.chain(*(part.items() for part in parts)):
                if item.oid not in absent:
                    self._log.found(item)
        self.tally.lacking += len(lacking)
        self.tally.lacking_bytes += sum(max(item.size, 0) for item in lacking)
        return sorted(lacking, key=lambda item: (-item.size, item.oid))

    def _put_manifests(self, manifests: Mapping[Oid, bytes]) -> None:
        """Those of which all is there."""
        parts = []
        for oid, data in manifests.items():
            names = _named(oid, data)
            lost = next(
                (one for one in self._failed if one.algorithm == oid.algorithm and one.digest in names), None
            )
            if lost is None:
                parts.append(Part(oid.algorithm, oid.digest[:2], {str(oid): len(data)}))
            else:
                self._fail(oid, ObjectMissing(f"manifest {oid} stays here as long as {lost} is not there"))
        self._put_all(self._survey(parts), lambda item: self._put_bytes(item, manifests[item.oid]))

    def _put_all(self, items: Sequence[Item], put: Callable[[Item], None]) -> None:
        """Large ones by a few threads, small ones by many."""
        large = iter([item for item in items if item.size > LARGE_BYTES])
        small = iter([item for item in items if item.size <= LARGE_BYTES])

        def work(waiting: Iterator[Item]) -> None:
            while True:
                self._crew.check()
                with self._lock:
                    item = next(waiting, None)
                if item is None:
                    return
                self._put(item, put)

        count = min(len(items), self._jobs)
        few = min(count, LARGE_JOBS)
        self._crew.run([partial(work, large)] * few + [partial(work, small)] * count)

    def _put(self, item: Item, put: Callable[[Item], None]) -> None:
        """Raises `RemoteError` where no other object will do better."""
        try:
            self._patience.run(lambda: self._put_in_lane(item, put))
        except (ObjectMissing, ObjectCorrupt, CacheUnusable) as error:
            self._fail(item.oid, error)
        except RemoteError as error:
            self._fail(item.oid, error)
            with self._lock:
                self._in_a_row += 1
                is_over = isinstance(error, _HOPELESS) or self._in_a_row >= MOST_FAILURES
            if is_over:
                raise
        else:
            if self._log is not None:
                self._log.put(item)
            with self._lock:
                self._in_a_row = 0
                self.tally.pushed += 1
                self.tally.bytes += item.size

    def _put_in_lane(self, item: Item, put: Callable[[Item], None]) -> None:
        """Put it, in as narrow a lane as it takes."""
        while True:
            with self._lanes.lane() as limit:
                try:
                    put(item)
                except RemoteSlow as error:
                    if error.retry_after or not self._lanes.narrow(limit):
                        raise
                else:
                    self._lanes.went_well()
                    return

    def _put_object(self, item: Item) -> None:
        descriptor, size = self._caches.open(item.oid)
        try:
            parts = verified(descriptor, size, item.oid, self._sent)
            self._remote.storage.put(self._key(item.oid), parts, size)
        finally:
            os.close(descriptor)

    def _put_bytes(self, item: Item, data: bytes) -> None:
        parts = (data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES))
        self._remote.storage.put(self._key(item.oid), parts, len(data))
        self._sent(len(data))

    def _key(self, oid: Oid) -> str:
        address = self._remote.address(oid)
        assert address is not None  # DVC's oids, and its layout
        return address.key

    def _sent(self, length: int) -> None:
        self._crew.check()
        with self._lock:
            self.tally.sent += length

    def _fail(self, oid: Oid, error: StoreError) -> None:
        with self._lock:
            self._failed.add(oid)
            self.tally.failures.append(Failure(oid, error))


def _named(oid: Oid, data: bytes) -> set[str]:
    """The digests that a manifest names."""
    return {entry.md5 for entry in parse_manifest(data, str(oid))}
