"""The files of an EROFS image: inodes without data, whose attributes tell an overlay where the bytes lie.

Overlayfs takes name, size, owner, mode and times from such an inode and the bytes from another layer, at
the path that `overlay.redirect` tells. All files of one hash algorithm have records of one length, so they
are made by columns, thousands at a time. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from store.erofs.layout import (
    INODE,
    INODE_BYTES,
    PLAIN,
    SLOT,
    Attribute,
    inode_format,
    round_up,
    xattr_bytes,
    xattr_count,
)
from store.erofs.look import USER, Look
from store.oid import ALGORITHMS, DIGEST_BYTES
from store.tree import ALGORITHM_SHIFT, EXECUTABLE, Tree

METACOPY: Final = b"overlay.metacopy"
REDIRECT: Final = b"overlay.redirect"
OPAQUE: Final = b"overlay.opaque"
OID: Final = b"fusefs.oid"

_HEX: Final = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint8).reshape(256, 2)
_NOWHERE: Final = 0xFFFF_FFF0
"""The block where a file's data are said to begin, far behind the image's end: whoever reads a file without
the overlay gets an error, and not zeros."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """What files of one algorithm have in common: a record with the places where they differ."""

    template: NDArray[np.uint8]
    digest_bytes: int
    redirect: int
    """Where the first digit of the redirect's file name stands; behind two of them is a slash."""
    oid: int

    @property
    def length(self) -> int:
        return len(self.template)


def record_of(algorithm: str, root: str, look: Look) -> Record:
    """The record of files whose objects lie at `root`/ab/cdef… below the layer's own root."""
    width = DIGEST_BYTES[algorithm]
    prefix = f"/{root}/".encode() if root else b"/"
    digits = b"0" * (2 * width)
    redirect = prefix + digits[:2] + b"/" + digits[2:]
    attributes = [
        Attribute(look.space, METACOPY, b""),
        Attribute(look.space, REDIRECT, redirect),
        Attribute(USER, OID, digits),
    ]
    packed = xattr_bytes(attributes)
    inode: NDArray[Any] = np.zeros(1, INODE)
    inode["format"] = inode_format(PLAIN)
    inode["xattr_count"] = xattr_count(len(packed))
    inode["start"] = _NOWHERE
    inode["uid"], inode["gid"], inode["nlink"] = look.uid, look.gid, 1
    whole = inode.tobytes() + packed
    template = np.frombuffer(whole.ljust(round_up(len(whole), SLOT), b"\0"), np.uint8)
    place = INODE_BYTES + packed.index(redirect) + len(prefix)
    return Record(template, width, place, INODE_BYTES + packed.rindex(digits))


class Files:
    """Makes the records of a tree's files. `sizes` and `times` (seconds since the epoch) are by row."""

    def __init__(
        self,
        tree: Tree,
        sizes: NDArray[np.int64],
        times: NDArray[np.uint32],
        roots: Mapping[str, str],
        look: Look,
    ) -> None:
        self._sizes = sizes
        self._times = times
        self._flags = np.frombuffer(tree.flags, np.uint8)
        self._digests = np.frombuffer(tree.digest, np.uint8).reshape(tree.rows, tree.digest_width)
        self._modes = (0o100_666 & ~look.umask, 0o100_777 & ~look.umask)
        self._records = [record_of(name, roots.get(name, ""), look) for name in ALGORITHMS]

    def lengths(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """How long the records of files are, in bytes."""
        by_algorithm = np.array([record.length for record in self._records], np.int64)
        lengths: NDArray[np.int64] = by_algorithm[self._flags[rows] >> ALGORITHM_SHIFT]
        return lengths

    def records(self, rows: NDArray[np.int64]) -> bytes:
        """The records of files, one behind the other."""
        lengths = self.lengths(rows)
        ends = np.cumsum(lengths)
        whole: NDArray[np.uint8] = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
        kinds = self._flags[rows] >> ALGORITHM_SHIFT
        for kind in np.unique(kinds).tolist():
            record = self._records[kind]
            chosen = kinds == kind
            made = self._make(rows[chosen], record)
            if chosen.all():
                return made.tobytes()
            starts = ends[chosen] - record.length
            whole[starts[:, None] + np.arange(record.length)] = made
        return whole.tobytes()

    def _make(self, rows: NDArray[np.int64], record: Record) -> NDArray[np.uint8]:
        made = np.repeat(record.template[None], len(rows), axis=0)
        inodes = made[:, :INODE_BYTES].view(INODE)[:, 0]
        executable = (self._flags[rows] & EXECUTABLE) != 0
        inodes["mode"] = np.where(executable, self._modes[1], self._modes[0])
        inodes["size"] = self._sizes[rows]
        inodes["mtime"] = self._times[rows]
        inodes["ino"] = rows + 1
        digits = _HEX[self._digests[rows, : record.digest_bytes]].reshape(len(rows), -1)
        made[:, record.redirect : record.redirect + 2] = digits[:, :2]
        rest = record.redirect + 3
        made[:, rest : rest + digits.shape[1] - 2] = digits[:, 2:]
        made[:, record.oid : record.oid + digits.shape[1]] = digits
        return made
