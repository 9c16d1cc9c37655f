"""What of a version is not on this machine: which files, and how many bytes, as far as that is known.

From the compiled tree and the caches, a batch of rows after the other, so that a million files take no more
memory than a thousand. No remote is asked. Callers: the command `status --missing`. Blocking.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store.cache_chain import CacheChain
from store.local_cache import LocalCache
from store.oid import DVC_ALGORITHMS
from store.sizes import SizeIndex
from store.tree import UNKNOWN, Tree
from store.tree_sizes import by_algorithm, stored_lengths

_AT_ONCE: Final = 4096


@dataclass(slots=True)
class Lack:
    """What is missing together. Grows while the files are told."""

    files: int = 0
    bytes: int = 0
    """Of those whose size is known; each file counted, though two may have one object."""
    unknown: int = 0
    """How many files' sizes are not known."""


class Missing:
    """What a version lacks."""

    def __init__(self, tree: Path, caches: tuple[Path, ...], own: Path) -> None:
        """`tree` is compiled, `own` has the index of sizes. Raises `TreeDamaged` and OSError."""
        self.tree = Tree.open(tree)
        self.lack = Lack()
        self._cache = CacheChain(*map(LocalCache, caches))
        self._index = SizeIndex(own)

    def rows(self) -> Iterator[tuple[int, int]]:
        """The files that are not here and their sizes, `UNKNOWN` where nobody tells; `lack` counts them."""
        tree = self.tree
        for start in range(0, tree.rows, _AT_ONCE):
            rows = [
                row
                for row in range(start, min(start + _AT_ONCE, tree.rows))
                if not tree.is_directory(row) and tree.algorithm(row) in DVC_ALGORITHMS
            ]
            stored = stored_lengths(tree, rows, self._cache)
            # What has another length than it should have is fetched like what is not there.
            gone = [row for row in rows if stored.get(row) != _known(tree, row, stored)]
            sizes = self._sizes(gone)
            for row in gone:
                size = sizes.get(row, UNKNOWN)
                self.lack.files += 1
                if size == UNKNOWN:
                    self.lack.unknown += 1
                else:
                    self.lack.bytes += size
                yield row, size

    def close(self) -> None:
        self._index.close()
        self._cache.close()

    def _sizes(self, rows: list[int]) -> dict[int, int]:
        sizes = {row: self.tree.size[row] for row in rows if self.tree.size[row] != UNKNOWN}
        unknown = [row for row in rows if row not in sizes]
        for algorithm, of_kind, digests in by_algorithm(self.tree, unknown):
            sizes.update(zip(of_kind, self._index.look_up(digests, algorithm), strict=True))
        return sizes


def _known(tree: Tree, row: int, stored: dict[int, int]) -> int:
    """The length that the file's object must have to be the one; any, where the tree does not tell."""
    return stored.get(row, 0) if tree.size[row] == UNKNOWN else tree.size[row]
