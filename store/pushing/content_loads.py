"""What is put of contents together: small ones for an archive, large ones that are cut at a time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from store.contents.archiving import grouped
from store.contents.index import Piece
from store.oid import Oid
from store.pushing.lacking import Item

CUT_AT_ONCE: Final = 16 << 30
"""Bytes of contents whose pieces are in memory together, unless a single one has more."""


@dataclass(frozen=True, slots=True)
class Group:
    """Small contents that go into one archive."""

    items: Sequence[Item]
    size: int


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a content; others may have it, too."""

    oid: Oid
    piece: Piece

    @property
    def size(self) -> int:
        return self.piece.length


@dataclass(frozen=True, slots=True)
class Cut:
    """A large content in pieces."""

    oid: Oid
    pieces: Sequence[Piece]

    @property
    def size(self) -> int:
        """Of its index, about."""
        return 64 * len(self.pieces)


def groups_of(items: Iterable[Item]) -> list[Group]:
    """Small contents by the archives that they go into: at least two of one algorithm."""
    kinds: dict[str, list[Item]] = {}
    for item in items:
        kinds.setdefault(item.oid.algorithm, []).append(item)
    groups = [group for some in kinds.values() for group in grouped((item, item.size) for item in some)]
    return [Group(group, sum(item.size for item in group)) for group in groups if len(group) > 1]


def batches_of(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Large contents, so many at a time as are cut together."""
    batch: list[Item] = []
    total = 0
    for item in items:
        if batch and total + item.size > CUT_AT_ONCE:
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += item.size
    if batch:
        yield batch
