"""`LearntSizes`: the sizes of a tree's files, those that the tree has and those that a daemon learnt.

They are kept in files without a name: pages of a file can be given back to the disk, those of a daemon
that serves a hundred versions of a million files could not. What was learnt is also kept beside the
compiled tree, for the next mount: in a private directory, written whole or not at all, and never believed
when it is damaged or is of another tree.

A size that only a file in the cache has (`How.STAT`) holds as long as that file lies there. To look at a
million files at each mount is what this is to save; but an object is made, replaced and removed by a
rename or an unlink, and that shows on its directory. So the stamps of the 256 directories are kept, taken
before the first file was looked at, and where a directory's are others, its files are asked again. A file
that is written in place escapes that; whoever opens it notices (`store.tree_files`).

The file: magic (8 bytes), length of the header (u32), xxh3-64 of the header (u64), the header (msgpack),
then at multiples of 8 the columns `size` (i64 × rows) and `how` (u8 × rows), little-endian.

Thread rule: a `LearntSizes` belongs to the event loop; the functions block and are for worker threads.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import tempfile
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgpack
import xxhash

from store.layouts import OBJECT_ROOTS
from store.manifest import SIZE_MAX
from store.oid import ALGORITHMS, DVC_ALGORITHMS, MD5_DOS2UNIX
from store.sizes import How
from store.tree import ALGORITHM_SHIFT, HEADER_MAX, PREAMBLE, UNKNOWN, Tree

MAGIC: Final = b"FUSEFSz\n"
SUFFIX: Final = ".sizes"
PREFIXES: Final = 256
ALIGNMENT: Final = 8
_SIZE_BYTES: Final = 8
_TOLD: Final = 0
"""In place of a `How`: the tree itself has the size, or nobody has."""
TAKEN_AT_ONCE: Final = 1024
_NOTHING: Final = UNKNOWN.to_bytes(_SIZE_BYTES, "little", signed=True) * TAKEN_AT_ONCE
_COARSE_NS: Final = 2_000_000_000
_FINE_NS: Final = 100_000_000

Stamps = Mapping[str, Sequence[int]]
"""Algorithm → a number for each of the directories of its objects; 0 where nothing can be told."""


@dataclass(frozen=True, slots=True)
class KeptSizes:
    """A state of the sizes: columns, and what follows from them."""

    size: bytes
    how: bytes
    unknown: int
    bytes_known: int


class LearntSizes:
    """The sizes of one tree, by row."""

    def __init__(self, tree: Tree) -> None:
        self.unknown = tree.sizes_unknown
        """Files whose size is not known."""
        self.bytes_known = tree.bytes_known
        # The tree's own column is read-only: copied only if it has gaps to be filled.
        self.column: Sequence[int] = tree.size
        """Bytes by row; `UNKNOWN` where they are. 0 for a directory."""
        self._flags = tree.flags
        self._size: memoryview | None = None
        if tree.sizes_unknown:
            self.column = self._size = _map_nameless(tree.size, tree.size.nbytes).cast("q")
            self._how = _map_nameless(b"", tree.rows)
        self.fresh = 0
        """How many were learnt since the last `keep`."""
        self._early: list[tuple[int, int, How]] | None = []

    def learn(self, row: int, size: int, how: How) -> bool:
        """Take in a file's size. Whether that is another one than was known, which then does not hold.

        Readers may have been told the one that was known, so only bytes that were hashed correct it.
        """
        if self._size is None:
            return False
        if self._early is not None:
            self._early.append((row, size, how))
        known = self._size[row]
        if self.bytes_known + size > SIZE_MAX:
            return False  # no file system has that much: somebody lies
        if known == UNKNOWN:
            self.unknown -= 1
            self.bytes_known += size
        elif self.is_certain(row) or (known != size and how is not How.HASHED):
            return False
        else:
            self.bytes_known += size - known
            how = max(how, How(self._how[row]))
        if how is How.HASHED and self._flags[row] >> ALGORITHM_SHIFT == _DOS2UNIX:
            how = How.REMOTE  # the hash does not see how lines end: another file may have it, too
        self._size[row] = size
        self._how[row] = how
        self.fresh += 1
        return known not in (UNKNOWN, size)

    def take(self, first: int, sizes: memoryview, hows: memoryview) -> None:
        """Take in what was found of the rows from `first` on whose size is not known.

        `sizes` has signed words of 8 bytes, `hows` a `How` for each, 0 where nothing was found.
        """
        if self._size is None:
            return
        for start in range(0, len(hows), TAKEN_AT_ONCE):
            found, how = sizes[start : start + TAKEN_AT_ONCE], hows[start : start + TAKEN_AT_ONCE]
            row = first + start
            mine = self._size[row : row + len(how)]
            total = sum(found)
            # The usual case at once, for it costs a twentieth: nothing was known, now all is.
            if (
                self._early is None
                and bytes(how).count(How.STAT) == len(how)
                and mine.tobytes() == _NOTHING[: mine.nbytes]
                and self.bytes_known + total <= SIZE_MAX
            ):
                mine[:] = found
                self._how[row : row + len(how)] = how
                self.unknown -= len(how)
                self.bytes_known += total
                self.fresh += len(how)
                continue
            for place, known_by in enumerate(how):
                if known_by and mine[place] == UNKNOWN:
                    self.learn(row + place, found[place], How(known_by))

    def is_certain(self, row: int) -> bool:
        """Whether no other size can be right: it is the tree's own, or of bytes that were hashed."""
        if self._size is None:
            return True
        return self._size[row] != UNKNOWN and self._how[row] in (_TOLD, How.HASHED)

    def hearsay(self) -> Iterator[int]:
        """The rows whose size is now known from a remote alone: bytes that come may prove it wrong."""
        how = bytes(self._how) if self._size is not None else b""
        row = how.find(How.REMOTE)
        while row >= 0:
            yield row
            row = how.find(How.REMOTE, row + 1)

    def are_certain(self) -> bool:
        """Whether all sizes are known, and none only from a remote or a file in a cache."""
        doubtful = {How.REMOTE, How.STAT}.intersection(bytes(self._how)) if self._size is not None else ()
        return not self.unknown and not doubtful

    def begin(self, kept: KeptSizes | None) -> None:
        """Go on from what a mount before has kept. To be called once; what was learnt meanwhile stays."""
        early, self._early = self._early or [], None
        if kept is None or self._size is None:
            return
        self._size.cast("B")[:] = kept.size
        self._how[:] = kept.how
        self.unknown, self.bytes_known, self.fresh = kept.unknown, kept.bytes_known, 0
        for row, size, how in early:
            self.learn(row, size, how)

    def keep(self) -> KeptSizes | None:
        """What there is now, to be written; None where nothing can be learnt."""
        if self._size is None:
            return None
        self.fresh = 0
        return KeptSizes(bytes(self._size.cast("B")), bytes(self._how), self.unknown, self.bytes_known)


_DOS2UNIX: Final = ALGORITHMS.index(MD5_DOS2UNIX)


def _map_nameless(data: bytes | memoryview, length: int) -> memoryview:
    """Writable memory in a file without a name, `data` at its beginning."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.truncate(length)
        return memoryview(mmap.mmap(file.fileno(), length))


def kept_path(tree: Path) -> Path:
    """Where the sizes are kept that were learnt for a compiled tree."""
    return tree.with_suffix(SUFFIX)


def take_stamps(roots: Iterable[Path], now_ns: int | None = None) -> dict[str, Sequence[int]]:
    """What the directories of objects look like in the caches `roots`, which are asked in this order.

    A directory that changed just now has no stamp: it may change again and show the same.
    """
    now = time.time_ns() if now_ns is None else now_ns
    listed = tuple(roots)
    return {algorithm: _stamp(listed, OBJECT_ROOTS[algorithm], now) for algorithm in DVC_ALGORITHMS}


def _stamp(roots: Sequence[Path], below: str, now_ns: int) -> array[int]:
    stamps: array[int] = array("Q")
    for prefix in range(PREFIXES):
        seen: list[object] = []
        settled = True
        for root in roots:
            try:
                status = root.joinpath(below, f"{prefix:02x}").lstat()
            except OSError:
                seen.append(str(root))
                continue
            times = (status.st_mtime_ns, status.st_ctime_ns)
            seen.append((str(root), status.st_dev, status.st_ino, *times))
            coarse = any(moment % 1_000_000_000 == 0 for moment in times)
            settled &= max(times) < now_ns - (_COARSE_NS if coarse else _FINE_NS)
        stamps.append(xxhash.xxh3_64_intdigest(repr(seen).encode()) if settled else 0)
    return stamps


def read_kept(path: Path, tree: Tree, stamps: Stamps) -> KeptSizes | None:
    """What was kept at `path` for this tree, without what does not hold any more; None for nothing.

    `stamps` are those of now.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb"):
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                return None
            with mmap.mmap(descriptor, status.st_size, prot=mmap.PROT_READ) as mapped:
                return _parse(mapped, tree, stamps)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or damaged: then nothing is kept


def _parse(mapped: mmap.mmap, tree: Tree, stamps: Stamps) -> KeptSizes | None:
    if len(mapped) < PREAMBLE.size:
        return None
    magic, length, checksum = PREAMBLE.unpack_from(mapped)
    if magic != MAGIC or length > HEADER_MAX:
        return None
    raw = mapped[PREAMBLE.size : PREAMBLE.size + length]
    if xxhash.xxh3_64_intdigest(raw) != checksum:
        return None
    header: dict[str, Any] = msgpack.unpackb(raw)
    if header["tree"] != identify(tree):
        return None
    start = _align(PREAMBLE.size + length)
    middle = start + tree.rows * _SIZE_BYTES
    size, how = mapped[start:middle], mapped[middle : middle + tree.rows]
    if [len(mapped), *map(xxhash.xxh3_64_intdigest, (size, how))] != [middle + tree.rows, *header["sums"]]:
        return None
    kept = KeptSizes(size, how, header["unknown"], header["bytes_known"])
    return _forget(kept, tree, _find_changed(header["stamps"], stamps))


def _find_changed(before: Mapping[str, bytes], now: Stamps) -> dict[int, bytes]:
    """Number of an algorithm → for each of the 256 directories 1 where it is not as it was, else 0."""
    changed = {}
    for place, algorithm in enumerate(DVC_ALGORITHMS):
        then = memoryview(before[algorithm]).cast("Q")
        pairs = zip(then, now[algorithm], strict=True)
        changed[place] = bytes(not old or old != new for old, new in pairs)
    return changed


def _forget(kept: KeptSizes, tree: Tree, changed: Mapping[int, bytes]) -> KeptSizes:
    """The same without the sizes of files in directories that have changed."""
    if not any(map(any, changed.values())) and not any(
        flags >> ALGORITHM_SHIFT >= len(DVC_ALGORITHMS) for flags in set(bytes(tree.flags))
    ):
        return kept
    size, how = memoryview(bytearray(kept.size)).cast("q"), bytearray(kept.how)
    unknown, bytes_known = kept.unknown, kept.bytes_known
    all_changed = bytes([1]) * PREFIXES
    firsts = bytes(tree.digest[:: tree.digest_width])
    for row, known in enumerate(kept.how):
        if known == How.STAT:
            place = tree.flags[row] >> ALGORITHM_SHIFT
            if changed.get(place, all_changed)[firsts[row]]:
                unknown += 1
                bytes_known -= size[row]
                size[row] = UNKNOWN
                how[row] = _TOLD
    return KeptSizes(bytes(size.cast("B")), bytes(how), unknown, bytes_known)


def write_kept(path: Path, tree: Tree, kept: KeptSizes, stamps: Stamps) -> None:
    """Keep sizes at `path`, which lies beside the tree's own file. Raises `OSError`.

    `stamps` are those from before the first of the sizes was learnt.
    """
    header = msgpack.packb(
        {
            "tree": identify(tree),
            "unknown": kept.unknown,
            "bytes_known": kept.bytes_known,
            "sums": [xxhash.xxh3_64_intdigest(kept.size), xxhash.xxh3_64_intdigest(kept.how)],
            "stamps": {algorithm: array("Q", stamps[algorithm]).tobytes() for algorithm in DVC_ALGORITHMS},
        }
    )
    preamble = PREAMBLE.pack(MAGIC, len(header), xxhash.xxh3_64_intdigest(header))
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write((preamble + header).ljust(_align(PREAMBLE.size + len(header)), b"\0"))
            file.write(kept.size)
            file.write(kept.how)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def identify(tree: Tree) -> int:
    """A number for what the rows of a tree are and for the sizes that it has itself."""
    state = xxhash.xxh3_64()
    for column in (tree.digest, tree.flags, tree.size):
        state.update(column)
    return state.intdigest()


def _align(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
