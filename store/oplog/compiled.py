"""`Compiled`: what a remote holds by its logs, as sorted columns in a file that is memory-mapped.

Logs of a million objects take seconds and a gigabyte to be settled (`store.oplog.holdings`); that is done
when there are new ones, by a command. Whoever asks maps this file. Only objects that lie where DVC's layout
has them, or content directories, are in it.

The file: magic (8 bytes), length of the header (u32), xxh3-64 of the header (u64), the header (msgpack), then
at multiples of 8, for each kind of oid, the columns `starts` (u32 × 65 537, by the first two bytes of a
digest), `digest` (16 bytes × objects, sorted) and `size` (i64 × objects, -1 where not told), little-endian,
each with an xxh3-64. A damaged file counts as none, and is made anew.

Blocking, but for what the kernel has in its cache; any thread.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgpack
import xxhash

from store.contents.names import ROOT, may_hold
from store.layouts import OBJECT_ROOTS
from store.oid import DVC_ALGORITHMS, TREE_SUFFIX, Oid
from store.oplog.holdings import Holdings
from store.tree import HEADER_MAX, PREAMBLE, UNKNOWN

MAGIC: Final = b"FUSEFSo\n"
_DIGEST: Final = 16
_SIZE: Final = 8
_BUCKETS: Final = 1 << 16
_NAME: Final = re.compile(rf"({'|'.join(DVC_ALGORITHMS)}):([0-9a-f]{{32}})({re.escape(TREE_SUFFIX)})?")
_HEADER_LISTS: Final = 10_000
"""Of transactions and projects; whoever has more settles the logs."""


class Damaged(Exception):
    """The file is not one that this version wrote whole."""


@dataclass(frozen=True, slots=True)
class _Section:
    """The objects of one kind, by the places of their columns in the file."""

    starts: memoryview
    digest: int
    size: memoryview


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known beside the objects."""

    logs: int
    """Tells the logs that this was made of from others."""
    objects: int
    unsure: int
    open: int
    faults: tuple[str, ...]
    projects: tuple[str, ...]
    latest: tuple[str, ...]


class Compiled:
    """An opened file."""

    def __init__(self, mapped: mmap.mmap, summary: Summary, sections: dict[str, _Section]) -> None:
        self.summary = summary
        self._map = mapped
        self._sections = sections

    @classmethod
    def open(cls, descriptor: int) -> Compiled:
        """Map and verify an open file, which may be closed then. Raises `Damaged`, `OSError`."""
        length = os.fstat(descriptor).st_size
        if length < PREAMBLE.size:
            raise Damaged
        mapped = mmap.mmap(descriptor, length, prot=mmap.PROT_READ)
        try:
            magic, size, checksum = PREAMBLE.unpack_from(mapped)
            raw = mapped[PREAMBLE.size : PREAMBLE.size + size]
            if magic != MAGIC or size > HEADER_MAX << 8 or xxhash.xxh3_64_intdigest(raw) != checksum:
                raise Damaged
            header: dict[str, Any] = msgpack.unpackb(raw)
            fields = header["summary"]
            lists = {name: tuple(fields[name]) for name in ("faults", "projects", "latest")}
            sections = {name: _section(mapped, *place) for name, place in header["sections"].items()}
            return cls(mapped, Summary(**{**fields, **lists}), sections)
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged from error

    def find(self, oid: Oid) -> int | None:
        """The object's length in bytes, `UNKNOWN` where it is there and that is not told; None for no object
        of the remote's."""
        return _look(self._map, self._sections.get(_kind(oid.algorithm, oid.is_tree)), oid.raw)

    def sizes(self, digests: Sequence[bytes], algorithm: str) -> list[int]:
        """The lengths of files' objects; `UNKNOWN` for what is not told."""
        section = self._sections.get(_kind(algorithm, False))
        if section is None:
            return [UNKNOWN] * len(digests)
        # A million at a time are asked for: so all that one row needs is at hand.
        find, starts, sizes, first = self._map.find, section.starts, section.size, section.digest
        found = []
        for digest in digests:
            bucket = digest[0] << 8 | digest[1]
            at = find(digest, first + starts[bucket] * _DIGEST, first + starts[bucket + 1] * _DIGEST) - first
            if at < 0:
                found.append(UNKNOWN)
            elif at % _DIGEST or at >= len(sizes) * _DIGEST:  # rare: it lies across two others, or is a lie
                size = _look(self._map, section, digest)
                found.append(UNKNOWN if size is None else size)
            else:
                found.append(sizes[at // _DIGEST])
        return found


def compile_holdings(held: Holdings, logs: int) -> bytes:
    """The file's bytes. `logs` is a number that tells the logs that were settled from others."""
    groups: dict[str, dict[bytes, int]] = {}
    for (path, name), size in held.there.items():
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        algorithm, digest, suffix = match.groups(default="")
        root = OBJECT_ROOTS[algorithm]
        plain = f"{root}{'/' if root else ''}{digest[:2]}/{digest[2:]}{suffix}"
        if path == plain or (path.startswith(ROOT) and may_hold(path, algorithm, digest + suffix)):
            groups.setdefault(_kind(algorithm, bool(suffix)), {})[bytes.fromhex(digest)] = size
    blocks: list[bytes] = []
    places: dict[str, list[Any]] = {}
    offset = 0
    for name, found in sorted(groups.items()):
        columns = _columns(found)
        places[name] = [offset, len(found), [xxhash.xxh3_64_intdigest(column) for column in columns]]
        for column in columns:
            blocks.append(column.ljust(_align(len(column)), b"\0"))
            offset += len(blocks[-1])
    summary = {
        "logs": logs,
        "objects": sum(map(len, groups.values())),
        "unsure": len(held.unsure),
        "open": len(held.open),
        "faults": [fault[:300] for fault in held.faults[:100]],
        "projects": sorted(held.projects)[:_HEADER_LISTS],
        "latest": list(held.latest)[:_HEADER_LISTS],
    }
    header: bytes = msgpack.packb({"summary": summary, "sections": places})
    head = PREAMBLE.pack(MAGIC, len(header), xxhash.xxh3_64_intdigest(header)) + header
    return head.ljust(_align(len(head)), b"\0") + b"".join(blocks)


def _look(mapped: mmap.mmap, section: _Section | None, digest: bytes) -> int | None:
    """The size of the object of that digest; None where there is none."""
    if section is None or len(digest) != _DIGEST:
        return None
    bucket = digest[0] << 8 | digest[1]
    first = section.digest
    at = first + section.starts[bucket] * _DIGEST
    end = first + section.starts[bucket + 1] * _DIGEST
    while (at := mapped.find(digest, at, end)) >= 0:
        row, rest = divmod(at - first, _DIGEST)
        if not rest:
            # Whoever shares the cache may have written the file: its places are checked as they are used.
            return max(section.size[row], UNKNOWN) if row < len(section.size) else None
        at += 1
    return None


def _columns(found: dict[bytes, int]) -> tuple[bytes, bytes, bytes]:
    import numpy as np  # slow to import, and only whoever writes needs it

    digests = sorted(found)
    joined = b"".join(digests)
    firsts = np.frombuffer(joined, ">u2")[:: _DIGEST // 2]
    starts = np.searchsorted(firsts, np.arange(_BUCKETS + 1)).astype("<u4")
    sizes = np.fromiter((found[digest] for digest in digests), "<i8", len(digests))
    return starts.tobytes(), joined, sizes.tobytes()


def _section(mapped: mmap.mmap, offset: int, count: int, sums: Sequence[int]) -> _Section:
    """Raises `Damaged`, and what comes of fields that are no numbers."""
    at = _align(PREAMBLE.size + PREAMBLE.unpack_from(mapped)[1]) + offset
    whole = memoryview(mapped)
    views, places = [], []
    lengths = (4 * (_BUCKETS + 1), _DIGEST * count, _SIZE * count)
    for length, checksum in zip(lengths, sums, strict=True):
        view = whole[at : at + length]
        if len(view) != length or xxhash.xxh3_64_intdigest(view) != checksum:
            raise Damaged
        views.append(view)
        places.append(at)
        at += _align(length)
    starts = views[0].cast("I")
    if starts[_BUCKETS] != count:
        raise Damaged
    return _Section(starts, places[1], views[2].cast("q"))


def _kind(algorithm: str, is_tree: bool) -> str:
    return algorithm + TREE_SUFFIX if is_tree else algorithm


def _align(length: int) -> int:
    return -(-length // 8) * 8
