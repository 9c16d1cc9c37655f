"""`DigestIndex`: which row of a tree has an oid, at the cost of four bytes a row.

Rows are put into 65 536 buckets by the first two bytes of their digests, which are hashes and so spread
evenly: of a million files a bucket has fifteen. Made once (a third of a second a million, any thread), then
only read.
"""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import Final

from store.oid import Oid
from store.tree import DIRECTORY, Tree

_BUCKETS: Final = 1 << 16
_BUCKET_BYTES: Final = 2


class DigestIndex:
    """The index of one tree."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        buckets = tree.digest.cast("H")[:: tree.digest_width // _BUCKET_BYTES]
        files = [row for row, flags in enumerate(tree.flags) if not flags & DIRECTORY]
        counts = array("I", bytes(4 * _BUCKETS))
        for row in files:
            counts[buckets[row]] += 1
        self._ends = array("I", accumulate(counts))
        self._rows = array("I", bytes(4 * len(files)))
        following = array("I", [0, *self._ends[:-1]])
        for row in files:
            bucket = buckets[row]
            self._rows[following[bucket]] = row
            following[bucket] += 1

    def looks(self, oid: Oid) -> int:
        """How many rows `find` looks at: many where many files have the same content, or one like it."""
        first, end = self._bucket(oid)
        return end - first

    def find(self, oid: Oid) -> list[int]:
        """The files whose content has this oid, in their order."""
        tree, raw = self._tree, oid.raw
        first, end = self._bucket(oid)
        alike = [row for row in self._rows[first:end] if tree.digest_of(row) == raw]
        return [row for row in alike if tree.oid(row) == oid]

    def _bucket(self, oid: Oid) -> tuple[int, int]:
        bucket = int.from_bytes(oid.raw[:_BUCKET_BYTES], "little")
        return self._ends[bucket - 1] if bucket else 0, self._ends[bucket]
