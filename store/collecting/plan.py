"""`Plan`: what a garbage collection would delete, and what stays for which reason. Frozen values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from store.layouts import object_path
from store.oid import Oid
from store.pushing.lacking import Item

MANIFESTS: Final = "manifests"
INDEXES: Final = "indexes"
FILES: Final = "files"
ARCHIVES: Final = "archives"
PARTS: Final = "parts"
STAGES: Final = ((MANIFESTS,), (INDEXES,), (FILES, ARCHIVES, PARTS))
"""The kinds of things in the order in which they go: nothing that can be seen may name what is gone."""


class Thing(NamedTuple):
    """A file of a cache or a remote."""

    path: str
    """From the root, `/`-separated."""
    kind: str
    size: int
    """Bytes."""
    oid: Oid | None
    """What DVC calls it, where it is an object in DVC's place."""

    @classmethod
    def of(cls, oid: Oid, size: int) -> Thing:
        """An object in DVC's place."""
        return cls(object_path(oid), MANIFESTS if oid.is_tree else FILES, size, oid)


class Amount(NamedTuple):
    """Things, and bytes of them."""

    objects: int = 0
    bytes: int = 0

    def plus(self, other: Amount) -> Amount:
        return Amount(self.objects + other.objects, self.bytes + other.bytes)


def amount_of(things: Iterable[Thing | Item]) -> Amount:
    sizes = [max(thing.size, 0) for thing in things]
    return Amount(len(sizes), sum(sizes))


def by_kind(things: Iterable[Thing]) -> dict[str, Amount]:
    """Manifests and files, and what else there is."""
    found: dict[str, list[Thing]] = {MANIFESTS: [], FILES: []}
    for thing in things:
        found.setdefault(thing.kind, []).append(thing)
    return {kind: amount_of(some) for kind, some in found.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """Of one cache or remote."""

    there: Amount
    kept: Amount
    """What revisions name that are kept."""
    garbage: Sequence[Thing]
    """What would be deleted, in that order."""
    stays: Mapping[str, Amount] = field(default_factory=dict)
    """What no kept revision names and stays all the same, by reason."""


def in_order(things: Iterable[Thing]) -> list[Thing]:
    """By stages."""
    stages = {kind: number for number, kinds in enumerate(STAGES) for kind in kinds}
    return sorted(things, key=lambda thing: (stages[thing.kind], thing.path))


@dataclass(slots=True)
class Progress:
    """How far a collection has come. One thread writes it, another one shows it."""

    phase: str = "looking"
    done: int = 0
    total: int = 0
    """0 where that is not known."""

    def begin(self, phase: str, total: int = 0) -> None:
        self.phase, self.done, self.total = phase, 0, total


@dataclass(slots=True)
class Outcome:
    """What became of a plan."""

    deleted: list[Thing] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    """Why things of the plan stayed in the end, and how many."""
    notes: list[str] = field(default_factory=list)
