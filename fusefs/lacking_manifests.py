"""Manifests that the cache lacks though their versions were opened, for their trees had been compiled before.

A mount does without them; DVC and backups do not. Callers: `fusefs fetch`, `fusefs backup`. Blocking.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from fusefs.dataset import Dataset
from store.cache_chain import CacheChain
from store.errors import StoreError
from store.local_cache import LocalCache
from store.oid import Oid
from store.remote_manifests import RemoteManifests
from store.revision import told_manifests


def bring_manifests(dataset: Dataset, *, offline: bool) -> Mapping[Oid, StoreError]:
    """Bring those of a version into its cache, as far as its remotes have them; why others are not had."""
    told = told_manifests(wanted.output for wanted in dataset.wanted)
    named = dict.fromkeys(oid for spec in dataset.remotes for oid in spec.manifests if oid not in told)
    if not named:
        return {}
    with closing(CacheChain(*[LocalCache(cache) for cache in dataset.caches])) as caches:
        lacking = [oid for oid in named if not caches.has(oid)]
    if not lacking:
        return {}
    with closing(RemoteManifests(dataset.cache, offline=offline)) as remotes:
        brought = remotes.bring(lacking, dataset.remotes)
    return {oid: error for oid, error in brought.items() if isinstance(error, StoreError)}
