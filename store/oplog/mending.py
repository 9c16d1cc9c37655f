"""`Mender`: objects that a remote has lost, put there again: from the caches, or from another remote that has
them. Every byte is hashed on its way, and nothing wrong becomes an object. Blocking; many threads at once.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterable, Sequence

from store.cache_chain import CacheChain
from store.contents.finding import read_whole
from store.contents.names import WHOLE, ContentName
from store.contents.sealing import LARGEST
from store.errors import CacheUnusable, ObjectCorrupt, ObjectMissing, RemoteError, RemoteMissing
from store.layouts import object_path
from store.manifest import check_manifest
from store.oid import Oid
from store.oplog.content_mending import THERE, ContentMender
from store.oplog.holdings import Key
from store.oplog.logs import format_oid
from store.pushing.asking import Patience
from store.pushing.content_push import ContentPush
from store.pushing.crew import Crew
from store.pushing.lacking import Item
from store.pushing.push import Place
from store.pushing.sources import verified
from store.remotes.remote import Remote
from store.remotes.storage import Address


class _Put:
    """Notes what a push has put. Any thread."""

    def __init__(self) -> None:
        self.files: dict[Key, int] = {}
        self._lock = threading.Lock()

    def begin(self, items: Iterable[Item], place: Place = object_path) -> None:
        """The check's own begin is there."""

    def found(self, item: Item, key: str = "") -> None:
        """It is no news."""

    def put(self, item: Item, key: str = "") -> None:
        with self._lock:
            self.files[key or object_path(item.oid), format_oid(item.oid)] = item.size

    def put_file(self, key: str, digest: str, size: int) -> None:
        with self._lock:
            self.files[key, f"sha256:{digest}"] = size


class Mender:
    """Mends from `caches`, then from `others`."""

    def __init__(self, caches: CacheChain, others: Sequence[Remote]) -> None:
        self._caches = caches
        self._others = others

    def mend(self, oid: Oid, remote: Remote, patience: Patience, crew: Crew, key: str) -> tuple[str, int]:
        """Put the object on the remote, at that key; where it came from, and its length in bytes.

        Raises `RemoteMissing` where nobody else has it whole, other `RemoteError` where the remote does not
        take it, `CacheUnusable` where there is no room for it on its way.
        """
        try:
            return "the cache", self._put_cached(oid, remote, patience, crew, key)
        except (ObjectMissing, ObjectCorrupt, CacheUnusable):
            pass
        for other in self._others:
            size = self._put_from(other, oid, remote, patience, crew, key)
            if size is not None:
                return other.name, size
        raise RemoteMissing("neither the cache nor another remote has it")

    def of_contents(self, remote: Remote, patience: Patience, crew: Crew) -> ContentMender:
        """What mends content directories."""
        return ContentMender(self._caches, self._others, remote, patience, crew)

    def mend_catalogue(self, manifest: Oid, remote: Remote) -> tuple[str, dict[Key, int]]:
        """Write the catalogue of a manifest anew, which is there, as a push of it does.

        Where it came from, empty where something that it is to tell of cannot be had; and what else was put,
        with its length. Raises `RemoteError`."""
        told = {}
        try:
            data = self._read_manifest(manifest, remote)
            check_manifest(data, manifest)
            told[manifest] = data
        except (RemoteError, ObjectCorrupt):
            pass  # the caches may have it
        put = _Put()
        push = ContentPush(self._caches, remote, told=told, log=put)
        push.run([manifest])
        return ("" if push.tally.failures else THERE), put.files

    def _read_manifest(self, manifest: Oid, remote: Remote) -> bytes:
        """As it lies in content directories, or in DVC's place. Raises `RemoteError`."""
        for key in ContentName.of(manifest).keys(WHOLE):
            try:
                return read_whole(remote.storage, Address(key), LARGEST)
            except RemoteMissing:
                continue
        return read_whole(remote.storage, Address(object_path(manifest)), LARGEST)

    def _put_cached(self, oid: Oid, remote: Remote, patience: Patience, crew: Crew, key: str) -> int:
        descriptor, size = self._caches.open(oid)
        try:
            self._put(descriptor, size, oid, remote, patience, crew, key)
        finally:
            os.close(descriptor)
        return size

    def _put_from(
        self, other: Remote, oid: Oid, remote: Remote, patience: Patience, crew: Crew, key: str
    ) -> int | None:
        """The object's length; None where that remote does not have it."""
        with tempfile.TemporaryFile() as file:
            try:
                with other.read(oid) as body:
                    for part in body:
                        crew.check()
                        file.write(part)
                file.flush()
            except RemoteError:
                return None
            except OSError as error:
                raise CacheUnusable(f"no room for {oid} on its way: {error.strerror}") from None
            size = file.tell()
            try:
                self._put(file.fileno(), size, oid, remote, patience, crew, key)
            except ObjectCorrupt:
                return None
        return size

    def _put(
        self, descriptor: int, size: int, oid: Oid, remote: Remote, patience: Patience, crew: Crew, key: str
    ) -> None:
        def put() -> None:
            parts = verified(descriptor, size, oid, lambda _: crew.check())
            remote.storage.put(key, parts, size)

        patience.run(put)
