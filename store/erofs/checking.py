"""Whether the objects in the caches have the lengths that an image is to tell.

The kernel does not compare: of a shorter object it would show zeros to whoever copies it.

Blocking; any thread. Memory: a few bytes a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from store.cache_chain import ObjectCache
from store.errors import ObjectCorrupt
from store.oid import DVC_ALGORITHMS
from store.tree import ALGORITHM_SHIFT, DIRECTORY, Tree
from store.tree_sizes import stored_lengths

_AT_ONCE: Final = 4096


def check_lengths(
    tree: Tree, sizes: NDArray[np.int64], cache: ObjectCache, unchecked: Mapping[str, Sequence[int]]
) -> None:
    """Hold the objects of a tree's files that lie in a cache against `sizes`, by row.

    Only those are looked at whose directory is marked in `unchecked` (algorithm → 256 marks). Raises
    `ObjectCorrupt` for the first that has another length.
    """
    flags = np.frombuffer(tree.flags, np.uint8)
    firsts = np.frombuffer(tree.digest, np.uint8)[:: tree.digest_width]
    is_file = (flags & DIRECTORY) == 0
    chosen: NDArray[np.bool_] = np.zeros(tree.rows, np.bool_)
    for place, algorithm in enumerate(DVC_ALGORITHMS):
        marks = np.array(list(unchecked[algorithm]), np.bool_)
        chosen |= is_file & (flags >> ALGORITHM_SHIFT == place) & marks[firsts]
    rows = np.flatnonzero(chosen)
    for start in range(0, len(rows), _AT_ONCE):
        some: list[int] = rows[start : start + _AT_ONCE].tolist()
        for row, length in stored_lengths(tree, some, cache).items():
            if length != sizes[row]:
                raise ObjectCorrupt(
                    f"object {tree.oid(row)} in the cache has {length} bytes, not {sizes[row]}"
                )
