"""`Plan`: what a garbage collection would delete, and what stays for which reason. Frozen values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from store.pushing.lacking import Item

MANIFESTS: Final = "manifests"
FILES: Final = "files"


class Amount(NamedTuple):
    """Objects, and bytes of them."""

    objects: int = 0
    bytes: int = 0


def amount_of(items: Iterable[Item]) -> Amount:
    sizes = [max(item.size, 0) for item in items]
    return Amount(len(sizes), sum(sizes))


def by_kind(items: Iterable[Item]) -> dict[str, Amount]:
    """Manifests and files."""
    found: dict[str, list[Item]] = {MANIFESTS: [], FILES: []}
    for item in items:
        found[MANIFESTS if item.oid.is_tree else FILES].append(item)
    return {kind: amount_of(some) for kind, some in found.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """Of one cache or remote."""

    there: Amount
    kept: Amount
    """What revisions name that are kept."""
    garbage: Sequence[Item]
    """What would be deleted: manifests, then files, each in order."""
    stays: Mapping[str, Amount] = field(default_factory=dict)
    """What no kept revision names and stays all the same, by reason."""


def in_order(items: Iterable[Item]) -> list[Item]:
    """Manifests first: none that can be seen may name what is gone."""
    return sorted(items, key=lambda item: (not item.oid.is_tree, item.oid))


@dataclass(slots=True)
class Outcome:
    """What became of a plan."""

    deleted: list[Item] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    """Why objects of the plan stayed in the end, and how many."""
    notes: list[str] = field(default_factory=list)
