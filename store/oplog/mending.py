"""`Mender`: objects that a remote has lost, put there again: from the caches, or from another remote that has
them. Every byte is hashed on its way, and nothing wrong becomes an object. Blocking; many threads at once.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence

from store.cache_chain import CacheChain
from store.errors import CacheUnusable, ObjectCorrupt, ObjectMissing, RemoteError, RemoteMissing
from store.layouts import object_path
from store.oid import Oid
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.pushing.sources import verified
from store.remotes.remote import Remote


class Mender:
    """Mends from `caches`, then from `others`."""

    def __init__(self, caches: CacheChain, others: Sequence[Remote]) -> None:
        self._caches = caches
        self._others = others

    def mend(self, oid: Oid, remote: Remote, patience: Patience, crew: Crew) -> tuple[str, int]:
        """Put the object on the remote; where it came from, and its length in bytes.

        Raises `RemoteMissing` where nobody else has it whole, other `RemoteError` where the remote does not
        take it, `CacheUnusable` where there is no room for it on its way.
        """
        try:
            return "the cache", self._put_cached(oid, remote, patience, crew)
        except (ObjectMissing, ObjectCorrupt, CacheUnusable):
            pass
        for other in self._others:
            size = self._put_from(other, oid, remote, patience, crew)
            if size is not None:
                return other.name, size
        raise RemoteMissing("neither the cache nor another remote has it")

    def _put_cached(self, oid: Oid, remote: Remote, patience: Patience, crew: Crew) -> int:
        descriptor, size = self._caches.open(oid)
        try:
            self._put(descriptor, size, oid, remote, patience, crew)
        finally:
            os.close(descriptor)
        return size

    def _put_from(
        self, other: Remote, oid: Oid, remote: Remote, patience: Patience, crew: Crew
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
                self._put(file.fileno(), size, oid, remote, patience, crew)
            except ObjectCorrupt:
                return None
        return size

    def _put(
        self, descriptor: int, size: int, oid: Oid, remote: Remote, patience: Patience, crew: Crew
    ) -> None:
        def put() -> None:
            parts = verified(descriptor, size, oid, lambda _: crew.check())
            remote.storage.put(object_path(oid), parts, size)

        patience.run(put)
