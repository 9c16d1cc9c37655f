"""Sizes of a tree's files, for those who ask once: what the tree does not know, the cache is asked for.

A manifest has no sizes, and what is not in the cache has none here either: then it is unknown, which is
None and never a guess. (A mount remembers what it learns, in `store.tree_files`.)

Callers: `store.tree_diff`, `store.history`, the command `ls`. Blocking; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from store.cache_chain import ObjectCache
from store.oid import DIGEST_BYTES, DVC_ALGORITHMS
from store.tree import ALGORITHM_SHIFT, UNKNOWN, Tree

_AT_ONCE: Final = 1024


class Tally(NamedTuple):
    """So many files, and the bytes of all together; None for what is not known."""

    files: int | None
    size: int | None


def stored_lengths(tree: Tree, rows: Sequence[int], cache: ObjectCache) -> dict[int, int]:
    """The lengths of the objects that the cache has, by row; nothing for directories and git's files."""
    lengths: dict[int, int] = {}
    for place, algorithm in enumerate(DVC_ALGORITHMS):
        of_kind = [
            row for row in rows if tree.flags[row] >> ALGORITHM_SHIFT == place and not tree.is_directory(row)
        ]
        if of_kind:
            digests = [tree.digest_of(row).hex() for row in of_kind]
            told = zip(of_kind, cache.lengths(digests, algorithm), strict=True)
            lengths.update((row, length) for row, length in told if length != UNKNOWN)
    return lengths


def learn_sizes(tree: Tree, rows: Sequence[int], cache: ObjectCache) -> list[int | None]:
    """The sizes of files, asked of the cache where the tree does not know them; None where nobody does."""
    stored = stored_lengths(tree, [row for row in rows if tree.size[row] == UNKNOWN], cache)
    return [stored.get(row) if tree.size[row] == UNKNOWN else tree.size[row] for row in rows]


def measure(tree: Tree, rows: Iterable[int], cache: ObjectCache) -> int | None:
    """The bytes of files together; None where one is not known."""
    total = 0
    waiting = iter(rows)
    while some := list(islice(waiting, _AT_ONCE)):
        for size in learn_sizes(tree, some, cache):
            if size is None:
                return None
            total += size
    return total


def by_algorithm(tree: Tree, rows: list[int]) -> Iterator[tuple[str, list[int], list[bytes]]]:
    """The rows of DVC's objects, and their digests."""
    flags, digest, width = tree.flags, tree.digest, tree.digest_width
    for place, algorithm in enumerate(DVC_ALGORITHMS):
        length = DIGEST_BYTES[algorithm]
        of_kind = [row for row in rows if flags[row] >> ALGORITHM_SHIFT == place]
        if of_kind:
            starts = [row * width for row in of_kind]
            yield algorithm, of_kind, [bytes(digest[start : start + length]) for start in starts]
