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
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from store.cache_chain import CacheChain
from store.errors import ObjectMissing
from store.layouts import object_path
from store.oid import Oid
from store.pushing.lacking import Directory, Item, ObjectShelves, Survey, directories
from store.pushing.sending import JOBS, Sender, Tally
from store.pushing.sources import verified
from store.pushing.versions import named, read_versions
from store.remotes.remote import Remote

Place = Callable[[Oid], str]
"""Where an object lies."""


class Log(Protocol):
    """Who is told of a push; any thread. `store.oplog.push_log` writes the remote's log."""

    def begin(self, items: Iterable[Item], place: Place = object_path) -> None:
        """All objects that the push is about, and their keys; nothing was asked yet. Raises `StoreError`."""

    def found(self, item: Item, key: str = "") -> None:
        """The remote has the object, at that key or in what lies there; by default in DVC's place."""

    def put(self, item: Item, key: str = "") -> None:
        """The object was put, the same."""

    def put_file(self, key: str, digest: str, size: int) -> None:
        """What is no object was put, a part or an archive, named by its SHA-256 in hex."""


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
        self._caches = caches
        self._remote = remote
        self._told = told or {}
        self._log = log
        self._sender = Sender(remote.storage, jobs, tick)

    @property
    def tally(self) -> Tally:
        return self._sender.tally

    def run(self, roots: Iterable[Oid]) -> None:
        """Push outputs: files, and directories by their manifests. `tally` tells what became of it.

        Raises `RemoteError` where the remote cannot be asked, or takes nothing any more; what was pushed
        until then stays.
        """
        roots = list(dict.fromkeys(roots))
        versions = read_versions(roots, self._caches, self._told, self._sender.fail)
        self.tally.objects += versions.objects + sum(oid.is_tree for oid in roots)
        files = [
            directory
            for algorithm, lengths in sorted(versions.lengths.items())
            for directory in directories(algorithm, lengths.items())
        ]
        if self._log is not None:
            manifests = (Item(oid, len(data)) for oid, data in versions.manifests.items())
            items = itertools.chain(_items(files), manifests)
            self._sender.crew.run([partial(self._log.begin, items)])
        self._put_all(self._survey(files), self._put_object)
        self._put_manifests(versions.manifests)

    def _survey(self, wanted: Sequence[Directory]) -> list[Item]:
        """What the remote lacks, the largest first."""
        sender = self._sender
        survey = Survey(ObjectShelves(self._remote), sender.crew, sender.patience, sender.jobs)
        lacking = [Item(Oid.parse(one.name, one.kind), one.size) for one in survey.find(wanted)]
        self.tally.there += sum(len(directory.lengths) for directory in wanted) - len(lacking)
        if self._log is not None:
            absent = {item.oid for item in lacking}
            for item in _items(wanted):
                if item.oid not in absent:
                    self._log.found(item)
        self.tally.lacking += len(lacking)
        self.tally.lacking_bytes += sum(max(item.size, 0) for item in lacking)
        return sorted(lacking, key=lambda item: (-item.size, item.oid))

    def _put_manifests(self, manifests: Mapping[Oid, bytes]) -> None:
        """Those of which all is there."""
        wanted = []
        for oid, data in manifests.items():
            names = named(oid, data)
            failed = self._sender.failed
            lost = next(
                (one for one in failed if one.algorithm == oid.algorithm and one.digest in names), None
            )
            if lost is None:
                wanted.append(Directory(oid.algorithm, oid.digest[:2], {str(oid): len(data)}))
            else:
                self._sender.fail(oid, stays_here(oid, lost))
        self._put_all(self._survey(wanted), lambda item: self._put_bytes(item, manifests[item.oid]))

    def _put_all(self, items: Sequence[Item], put: Callable[[Item], None]) -> None:
        def put_one(item: Item) -> None:
            put(item)
            self._sender.pushed(1, item.size)
            if self._log is not None:
                self._log.put(item)

        self._sender.put_all(items, put_one, lambda item, error: self._sender.fail(item.oid, error))

    def _put_object(self, item: Item) -> None:
        descriptor, size = self._caches.open(item.oid)
        try:
            parts = verified(descriptor, size, item.oid, self._sender.sent)
            self._remote.storage.put(self._key(item.oid), parts, size)
        finally:
            os.close(descriptor)

    def _put_bytes(self, item: Item, data: bytes) -> None:
        self._sender.put_bytes(self._key(item.oid), data)

    def _key(self, oid: Oid) -> str:
        address = self._remote.address(oid)
        assert address is not None  # DVC's oids, and its layout
        return address.key


def stays_here(manifest: Oid, lost: Oid) -> ObjectMissing:
    """Why a manifest is not put."""
    return ObjectMissing(f"manifest {manifest} stays here as long as {lost} is not there")


def _items(wanted: Iterable[Directory]) -> Iterable[Item]:
    for directory in wanted:
        for one in directory.wanted():
            yield Item(Oid.parse(one.name, one.kind), one.size)
