"""`Kept`: the objects that stay, and `keep`: what claims name, with all that is in manifests.

A manifest that cannot be had is never taken for an empty one. Blocking; one thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from store.cache_chain import CacheChain
from store.collecting.claims import Claim
from store.errors import CacheUnusable, InputError, ManifestInvalid, ObjectCorrupt, ObjectMissing, StoreError
from store.manifest import check_manifest, parse_manifest
from store.oid import Oid

AT_ONCE: Final = 64
"""Manifests that are in memory together."""

Bring = Callable[[Sequence[Oid]], Mapping[Oid, bytes | StoreError]]
"""Gets manifests that no cache has, each proved, or why one cannot be had."""


class Kept:
    """A set of oids, for millions of them."""

    def __init__(self) -> None:
        self._digests: dict[tuple[str, bool], set[bytes]] = {}

    def add(self, oid: Oid) -> None:
        self._digests.setdefault((oid.algorithm, oid.is_tree), set()).add(oid.raw)

    def add_files(self, algorithm: str, digests: Iterable[str]) -> None:
        """Files' objects, by hex digits."""
        self._digests.setdefault((algorithm, False), set()).update(map(bytes.fromhex, digests))

    def __contains__(self, oid: Oid) -> bool:
        return oid.raw in self._digests.get((oid.algorithm, oid.is_tree), ())

    def has_any(self, algorithm: str, digests: Iterable[bytes]) -> bool:
        """Is one of these files' objects, by their raw digests, among them?"""
        return not self._digests.get((algorithm, False), set()).isdisjoint(digests)

    def __len__(self) -> int:
        return sum(map(len, self._digests.values()))


@dataclass(frozen=True, slots=True)
class Unknown:
    """A manifest that cannot be had, and why."""

    oid: Oid
    error: StoreError


class Manifests:
    """Reads manifests from caches, and from elsewhere what they lack."""

    def __init__(self, caches: CacheChain, bring: Bring) -> None:
        self._caches = caches
        self._bring = bring

    def keep_members(self, oids: Iterable[Oid], kept: Kept) -> list[Unknown]:
        """Add what manifests name; those that cannot be had."""
        unknown: list[Unknown] = []
        waiting = iter(oids)
        while some := list(itertools.islice(waiting, AT_ONCE)):
            for oid, data in self._read(some):
                try:
                    if isinstance(data, StoreError):
                        raise data
                    kept.add_files(oid.algorithm, (entry.md5 for entry in parse_manifest(data, str(oid))))
                except StoreError as error:
                    unknown.append(Unknown(oid, error))
        return unknown

    def members(self, young: Iterable[Oid]) -> Kept:
        """What manifests name that stay though nothing names them.

        Raises `InputError` where that is not known."""
        held = Kept()
        for unknown in self.keep_members(young, held):
            raise InputError(
                f"no garbage is collected, for what {unknown.oid} names, a manifest that came lately, is not "
                f"known: {unknown.error}"
            )
        return held

    def _read(self, oids: Sequence[Oid]) -> Iterator[tuple[Oid, bytes | StoreError]]:
        lacking = []
        for oid in oids:
            try:
                data = self._caches.read(oid)
                check_manifest(data, oid)
            except (ObjectMissing, ObjectCorrupt, CacheUnusable, ManifestInvalid):
                lacking.append(oid)
            else:
                yield oid, data
        if lacking:
            yield from self._bring(lacking).items()


def keep(
    claims: Iterable[Claim], manifests: Manifests, without: frozenset[str]
) -> tuple[Kept, list[tuple[Claim, Unknown]]]:
    """What claims name; and the manifests that cannot be had, but for those, by their digits, `without` which
    the user wants it to go."""
    kept = Kept()
    by_oid: dict[Oid, Claim] = {}
    for claim in claims:
        kept.add(claim.oid)
        if claim.oid.is_tree and not claim.told:
            by_oid[claim.oid] = claim
    unknown = manifests.keep_members(by_oid, kept)
    return kept, [(by_oid[one.oid], one) for one in unknown if one.oid.digest not in without]
