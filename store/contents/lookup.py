"""`Members`: which archive has a content, of all whose indexes are known, at the cost of four bytes a member.

As `store.digest_index` has it for trees: members are put into 65 536 buckets by the first two bytes of their
digests, which spread evenly. Made once, then only read; any thread.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from store.contents.index import ArchiveIndex
from store.contents.sealing import DIGEST_BYTES
from store.oid import Oid

_BUCKETS: Final = 1 << 16
_BUCKET_BYTES: Final = 2


class InArchive(NamedTuple):
    """A content is a member of an archive."""

    archive: ArchiveIndex
    number: int

    @property
    def size(self) -> int:
        """The content's length in bytes."""
        return self.archive.lengths[self.number]


class Members:
    """Those of `archives`."""

    def __init__(self, archives: Sequence[ArchiveIndex] = ()) -> None:
        self._archives = archives
        self._ends = array("I", accumulate(map(len, archives)))
        counts = array("I", bytes(4 * _BUCKETS))
        columns = [_buckets(archive) for archive in archives]
        for column in columns:
            for bucket in column:
                counts[bucket] += 1
        self._bucket_ends = array("I", accumulate(counts))
        self._rows = array("I", bytes(4 * (self._ends[-1] if archives else 0)))
        following = array("I", [0, *self._bucket_ends[:-1]])
        row = 0
        for column in columns:
            for bucket in column:
                self._rows[following[bucket]] = row
                following[bucket] += 1
                row += 1

    def find(self, oid: Oid) -> InArchive | None:
        """Where a content is."""
        if oid.is_tree or not self._archives:
            return None
        raw = oid.raw
        bucket = int.from_bytes(raw[:_BUCKET_BYTES], "little")
        first = self._bucket_ends[bucket - 1] if bucket else 0
        for row in self._rows[first : self._bucket_ends[bucket]]:
            place = bisect_right(self._ends, row)
            archive = self._archives[place]
            number = row - (self._ends[place - 1] if place else 0)
            at = number * DIGEST_BYTES
            if archive.digests[at : at + DIGEST_BYTES] == raw and archive.algorithm == oid.algorithm:
                return InArchive(archive, number)
        return None


def _buckets(archive: ArchiveIndex) -> list[int]:
    digests = archive.digests
    return [digests[at] | digests[at + 1] << 8 for at in range(0, len(archive) * DIGEST_BYTES, DIGEST_BYTES)]
