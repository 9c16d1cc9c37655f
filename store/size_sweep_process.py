"""`python -m store.size_sweep_process TREE NUMBER INDEX CACHE…`: look for a tree's sizes on this machine.

For a daemon (`store.size_sweep`), which would need the interpreter for it that serves its readers. Standard
input is a file that both have mapped: the columns `size` (i64 × rows) and `how` (u8 × rows, 0 where nothing
is known). They are filled from the first row on; for each `SWEPT_AT_ONCE` rows a byte is written to standard
output. Then the index learns what only files in the caches tell; again a byte for each part of the tree.
Ends with whoever started it.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from store.cache_chain import CacheChain
from store.learnt_sizes import identify
from store.local_cache import LocalCache
from store.oplog.hints import Hints
from store.sizes import Size, SizeIndex
from store.sizes_here import look_here
from store.tree import UNKNOWN, Tree
from store.tree_sizes import by_algorithm

SWEPT_AT_ONCE: Final = 1 << 15
"""Rows. What several of them have is looked for once."""
SIZE_BYTES: Final = 8
ROW_BYTES: Final = SIZE_BYTES + 1
_KNOWN_OBJECTS: Final = 1 << 17
"""That are remembered from one such part to the next."""
_PR_SET_PDEATHSIG: Final = 1
_NICE: Final = 10

_Found = dict[tuple[str, bytes], Size | None]


class _Sweep:
    def __init__(self, tree: Tree, caches: CacheChain, index: SizeIndex, hints: Hints) -> None:
        self._tree = tree
        self._caches = caches
        self._index = index
        self._hints = hints

    def fill(self, columns: memoryview) -> None:
        """Find sizes and tell of them."""
        end = self._tree.rows * SIZE_BYTES
        sizes, hows = columns[:end].cast("q"), columns[end:]
        known: _Found = {}
        for rows in self._parts():
            for algorithm, of_kind, digests in by_algorithm(self._tree, rows):
                self._look(algorithm, digests, known)
                for row, digest in zip(of_kind, digests, strict=True):
                    size = known[algorithm, digest]
                    if size is not None:
                        sizes[row], hows[row] = size
            _say_so()

    def remember(self) -> None:
        """Have the index know what the files in the caches tell."""
        known: _Found = {}
        for rows in self._parts():
            for algorithm, _, digests in by_algorithm(self._tree, rows):
                self._look(algorithm, digests, known, remember=True)
            _say_so()

    def _parts(self) -> Iterator[list[int]]:
        rows, sizes = self._tree.rows, self._tree.size
        for first in range(0, rows, SWEPT_AT_ONCE):
            yield [row for row in range(first, min(first + SWEPT_AT_ONCE, rows)) if sizes[row] == UNKNOWN]

    def _look(self, algorithm: str, digests: list[bytes], known: _Found, *, remember: bool = False) -> None:
        if len(known) > _KNOWN_OBJECTS:
            known.clear()
        unknown = {digest for digest in digests if (algorithm, digest) not in known}
        ordered = sorted(unknown)  # as the cache's directories are
        found = look_here(self._caches, self._index, ordered, algorithm, remember, self._hints)
        known.update(zip([(algorithm, digest) for digest in ordered], found, strict=True))


def _say_so() -> None:
    os.write(sys.stdout.fileno(), b".")


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    gc.disable()  # there are many objects, and no cycles among them
    path, number, index, *roots = sys.argv[1:]
    tree = Tree.open(Path(path))
    if str(identify(tree)) != number:
        sys.exit(1)  # another one has taken its place
    caches = CacheChain(*[LocalCache(Path(root)) for root in roots])
    sweep = _Sweep(tree, caches, SizeIndex(Path(index)), Hints(Path(roots[0])))
    sweep.fill(memoryview(mmap.mmap(sys.stdin.fileno(), tree.rows * ROW_BYTES)))
    os.nice(_NICE)  # no listing waits for that
    sweep.remember()


if __name__ == "__main__":
    main()
