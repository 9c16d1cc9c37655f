"""What is pushed: the objects of versions, from their manifests, with the lengths that the cache knows.

Blocking; one thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from store.cache_chain import CacheChain
from store.errors import CacheUnusable, ObjectCorrupt, ObjectMissing, StoreError
from store.manifest import check_manifest, parse_manifest
from store.oid import Oid
from store.pushing.lacking import NOT_HERE
from store.tree import UNKNOWN

LOOKED_AT: Final = 1024
"""Objects that the cache is asked for together."""


@dataclass(frozen=True, slots=True)
class Versions:
    """Several together."""

    manifests: Mapping[Oid, bytes]
    """Proved."""
    lengths: Mapping[str, Mapping[str, int]]
    """Algorithm → digests of all files → lengths in bytes, or `NOT_HERE`; in the order of the manifests."""

    @property
    def objects(self) -> int:
        """How many, but for the manifests."""
        return sum(map(len, self.lengths.values()))


def read_versions(
    roots: Iterable[Oid],
    caches: CacheChain,
    told: Mapping[Oid, bytes],
    fail: Callable[[Oid, StoreError], object],
) -> Versions:
    """Look up outputs: files, and directories by their manifests. `told` are manifests that are known without
    a cache; `fail` is told of those that cannot be read or are damaged."""
    digests: dict[str, dict[str, None]] = {}
    manifests: dict[Oid, bytes] = {}
    for oid in dict.fromkeys(roots):
        found = digests.setdefault(oid.algorithm, {})
        if not oid.is_tree:
            found[oid.digest] = None
            continue
        try:
            data = told[oid] if oid in told else caches.read(oid)
            check_manifest(data, oid)
        except (ObjectMissing, ObjectCorrupt, CacheUnusable) as error:
            fail(oid, error)
        else:
            manifests[oid] = data
            found.update(named(oid, data))
    return Versions(
        manifests, {algorithm: _lengths(caches, found, algorithm) for algorithm, found in digests.items()}
    )


def named(oid: Oid, data: bytes) -> dict[str, None]:
    """The digests that a manifest names, in its order."""
    return dict.fromkeys(entry.md5 for entry in parse_manifest(data, str(oid)))


def _lengths(caches: CacheChain, digests: Iterable[str], algorithm: str) -> dict[str, int]:
    lengths: dict[str, int] = {}
    waiting = iter(digests)
    while some := list(itertools.islice(waiting, LOOKED_AT)):
        for digest, length in zip(some, caches.lengths(some, algorithm), strict=True):
            lengths[digest] = NOT_HERE if length == UNKNOWN else length
    return lengths
