"""Traces: the order in which an epoch read a version, recorded, kept, and read back by the next mount.

**What an epoch is.** A file that is opened for the first time goes on with the epoch. The epoch ends when
`AGAIN` different files (a quarter of a small epoch) that were opened in its first half, or more than `LAG`
files ago, have been opened again and nothing new in between: then the readers have begun anew, and what they
have opened again since the last new file is the beginning of the next epoch. So neither a file that is opened
twice in a row ends an epoch, nor a look at a few others while it goes on. One of less than `FEWEST` files has
no end.

**What is kept** is the order in which an epoch first opened its files. One that has ended takes the place of
a trace of up to twice its length; one that was cut short by the end of the mount only of a trace that is
hardly longer (`CUT_SHARE`). So a look at some files does not replace what a training job has taught.

The file lies beside the compiled tree that its rows are of, in a private directory: magic (8 bytes), length
of the header (u32), xxh3-64 of the header (u64), the header (msgpack), then the rows (u32, little-endian),
with their own xxh3-64 in the header. A damaged one counts as none.

`EpochRecorder` belongs to whoever calls it; the functions block and are for any thread.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import tempfile
from array import array
from pathlib import Path
from typing import Any, Final

import msgpack
import xxhash

from store.tree import HEADER_MAX, Tree

AGAIN: Final = 8
LAG: Final = 1024
FEWEST: Final = 8
MAX_AGAIN: Final = 4 * LAG
"""Files that may be opened again before it is decided what that means."""
SHORTEST: Final = 4
"""An epoch of fewer files is not worth a trace."""
ENDED_SHARE: Final = 0.5
CUT_SHARE: Final = 0.9

SUFFIX: Final = ".trace"
_MAGIC: Final = b"FUSEFST1"
_PREAMBLE: Final = struct.Struct("<8sIQ")
_ROW_BYTES: Final = 4


class EpochRecorder:
    """The order in which the files of a tree of `rows` rows are opened, epoch by epoch."""

    def __init__(self, rows: int) -> None:
        self.order: array[int] = array("I")
        """The rows of this epoch until now, each once."""
        self._rows = rows
        self._place: array[int] = array("I")  # by row: 1 + its place in the order; made at the first open
        self._again: dict[int, None] = {}
        self._early = 0
        self._last = -1

    def opened(self, row: int) -> array[int] | None:
        """Take note of an open; returns the order of the epoch that this one has shown to be over."""
        if not self._place:
            self._place = array("I", bytes(_ROW_BYTES * self._rows))
        place, last, self._last = self._place[row], self._last, row
        if not place:
            self.order.append(row)
            self._place[row] = len(self.order)
            if self._again:
                self._forget_again()
        elif row != last and row not in self._again:
            self._again[row] = None
            length = len(self.order)
            self._early += place <= max(length // 2, length - LAG)
            if self._early >= min(AGAIN, length // 4) and length >= FEWEST:
                return self._begin_anew()
            if len(self._again) >= MAX_AGAIN:
                self._forget_again()
        return None

    def _forget_again(self) -> None:
        self._again.clear()
        self._early = 0

    def _begin_anew(self) -> array[int]:
        ended, self.order = self.order, array("I", self._again)
        self._place = array("I", bytes(_ROW_BYTES * self._rows))
        for place, row in enumerate(self.order, 1):
            self._place[row] = place
        self._forget_again()
        return ended


def is_worth_keeping(order: array[int], kept: array[int] | None, *, ended: bool) -> bool:
    """Is the order of an epoch, which has `ended` or was cut short, to take the place of what is kept?"""
    if len(order) < SHORTEST or order == kept:
        return False
    share = ENDED_SHARE if ended else CUT_SHARE
    return kept is None or len(order) >= share * len(kept)


def trace_path(tree: Path) -> Path:
    """Where the trace of a compiled tree is kept."""
    return tree.with_suffix(SUFFIX)


def read_trace(path: Path, tree: Tree) -> array[int] | None:
    """What is kept at `path` for this tree; None for nothing, and for what is damaged."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            largest = _PREAMBLE.size + HEADER_MAX + _ROW_BYTES * tree.rows
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size > largest:
                return None
            data = file.read(largest)
        order = _parse(data, tree)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # what is used does not age out
    return order


def _parse(data: bytes, tree: Tree) -> array[int] | None:
    magic, length, checksum = _PREAMBLE.unpack_from(data)
    start = _PREAMBLE.size + length
    raw = data[_PREAMBLE.size : start]
    if magic != _MAGIC or len(raw) != length or xxhash.xxh3_64_intdigest(raw) != checksum:
        return None
    header: dict[str, Any] = msgpack.unpackb(raw)
    body = data[start:]
    if header["tree"] != _identify(tree) or header["sum"] != xxhash.xxh3_64_intdigest(body):
        return None
    order = array("I")
    order.frombytes(body)
    return order if order and max(order) < tree.rows else None


def write_trace(path: Path, tree: Tree, order: array[int]) -> None:
    """Keep a trace at `path`, which lies beside the tree's own file. Raises `OSError`."""
    body = order.tobytes()
    header = msgpack.packb({"tree": _identify(tree), "sum": xxhash.xxh3_64_intdigest(body)})
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(_PREAMBLE.pack(_MAGIC, len(header), xxhash.xxh3_64_intdigest(header)))
            file.write(header)
            file.write(body)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _identify(tree: Tree) -> int:
    """A number for what the rows of a tree are."""
    state = xxhash.xxh3_64()
    for column in (tree.names, tree.digest, tree.flags):
        state.update(column)
    return state.intdigest()
