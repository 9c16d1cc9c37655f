"""Compiles a version's files to the columns that `store/tree.py` maps.

Run by whoever resolves a target, never by the daemon: it needs some hundred bytes a file while
it works, and a short-lived process gives them back. Pure but for `write_tree`.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final, NamedTuple

import msgpack
import xxhash

from store.errors import ManifestInvalid
from store.manifest import SIZE_MAX
from store.oid import ALGORITHMS, MD5
from store.tree import ALGORITHM_SHIFT, DIRECTORY, EXECUTABLE, MAGIC, PREAMBLE, SYMLINK, UNKNOWN

ALIGNMENT: Final = 8
NARROWEST: Final = 16
"""Bytes of a digest's place: those of an MD5, and of what stands for a directory."""


class Leaf(NamedTuple):
    """One file of the version. `path` has been validated; `size` is `UNKNOWN` where nothing tells it.

    With `DIRECTORY` in its flags it stands for a directory that may have nothing in it.
    """

    path: bytes
    digest: bytes = b""
    size: int = UNKNOWN
    flags: int = 0


def leaf_flags(*, executable: bool = False, symlink: bool = False, algorithm: str = MD5) -> int:
    """The flags of a file's row."""
    kind = (EXECUTABLE if executable else 0) | (SYMLINK if symlink else 0)
    return kind | ALGORITHMS.index(algorithm) << ALGORITHM_SHIFT


@dataclass(frozen=True, slots=True)
class TreeImage:
    """A compiled tree in memory: the columns' bytes by name, and what the header says of them."""

    rows: int
    files: int
    digest_width: int
    bytes_known: int
    sizes_unknown: int
    columns: dict[str, memoryview]


class _Members:
    """Directories while they are being filled: id → [(name, what)], `what` a leaf's number or -id."""

    def __init__(self) -> None:
        self.of: list[list[tuple[bytes, int]]] = [[]]
        self._ids: dict[tuple[int, bytes], int] = {}

    def directory(self, path: bytes) -> int:
        """The id of the directory at `path`, made with its parents where it is new.

        Keyed by (parent, name), not by path, so that deep hostile paths cost their length and
        not its square.
        """
        here = 0
        for part in path.split(b"/"):
            key = (here, part)
            below = self._ids.get(key)
            if below is None:
                below = self._ids[key] = len(self.of)
                self.of.append([])
                self.of[here].append((part, -below))
            here = below
        return here


def compile_tree(leaves: Iterable[Leaf], name: str) -> TreeImage:
    """Compile the files of the version that messages call `name`.

    Raises `ManifestInvalid` for a path that is named twice, or that is a file and a directory, and for
    sizes whose sum no file system can have.
    """
    listed = leaves if isinstance(leaves, list) else list(leaves)
    members = _gather(listed)
    name_end, parent, first, count = array("I", [1]), array("I", [0]), array("I", [0]), array("I", [0])
    size, flags = array("q", [0]), bytearray([DIRECTORY])
    width = max((len(leaf.digest) for leaf in listed), default=0)
    width = max(width, NARROWEST)
    blank = bytes(width)
    names, digests = [b"\0"], [blank]
    directories = [(0, 0)]  # (row, id), grows while it is walked: breadth first
    for row, directory in directories:
        children = members.of[directory]
        children.sort()
        labels = [label for label, _ in children]
        if len(set(labels)) != len(labels):
            _complain(children, name, row, names, name_end, parent)
        base = len(flags)
        first[row], count[row] = base, len(children)
        names.append(b"".join([label + b"\0" for label in labels]))
        name_end.extend(list(accumulate([len(label) + 1 for label in labels], initial=name_end[-1]))[1:])
        parent.extend([row] * len(children))
        first.extend([0] * len(children))
        count.extend([0] * len(children))
        for offset, (_, what) in enumerate(children):
            if what < 0:
                directories.append((base + offset, -what))
                digests.append(blank)
                size.append(0)
                flags.append(DIRECTORY)
            else:
                leaf = listed[what]
                digests.append(leaf.digest if len(leaf.digest) == width else leaf.digest.ljust(width, b"\0"))
                size.append(leaf.size)
                flags.append(leaf.flags)
        members.of[directory] = []
    return complete_image(
        name,
        b"".join(names),
        memoryview(name_end),
        memoryview(parent),
        memoryview(first),
        memoryview(count),
        bytearray(b"".join(digests)),
        memoryview(size),
        bytes(flags),
        [row for row, _ in directories],
        width,
    )


def complete_image(
    name: str,
    names: bytes,
    name_end: memoryview,
    parent: memoryview,
    first: memoryview,
    count: memoryview,
    digest: bytearray,
    size: memoryview,
    flags: bytes,
    directories: Sequence[int],
    width: int,
) -> TreeImage:
    """The image of these columns; the digests of the `directories`, in rows' order, are yet to be made.

    Raises `ManifestInvalid` for sizes whose sum no file system can have.
    """
    _digest_directories(names, name_end, digest, width, flags, first, count, directories)
    sizes = size.tolist()
    unknown = sizes.count(UNKNOWN)
    total = sum(sizes) + unknown
    if total > SIZE_MAX:
        raise ManifestInvalid(f"manifest {name}: its files have more bytes together than can be told")
    columns = {
        "name_end": name_end.cast("B"),
        "names": memoryview(names),
        "parent": parent.cast("B"),
        "first": first.cast("B"),
        "count": count.cast("B"),
        "digest": memoryview(digest).toreadonly(),
        "size": size.cast("B"),
        "flags": memoryview(flags),
    }
    return TreeImage(len(flags), len(flags) - len(directories), width, total, unknown, columns)


def _gather(leaves: list[Leaf]) -> _Members:
    members = _Members()
    last, siblings = b"", members.of[0]
    for number, leaf in enumerate(leaves):
        if leaf.flags & DIRECTORY:
            members.directory(leaf.path)
            continue
        head, _, label = leaf.path.rpartition(b"/")
        if head != last:  # manifests are sorted: mostly the directory stays the same
            last, siblings = head, members.of[members.directory(head) if head else 0]
        siblings.append((label, number))
    return members


def _complain(
    children: list[tuple[bytes, int]],
    name: str,
    row: int,
    names: list[bytes],
    name_end: array[int],
    parent: array[int],
) -> None:
    """Say which path of a directory is there twice."""
    blob = b"".join(names)
    parts: list[bytes] = []
    while row:
        parts.append(blob[name_end[row - 1] : name_end[row] - 1])
        row = parent[row]
    for (label, what), (following, other) in pairwise(children):
        if label == following:
            path = os.fsdecode(b"/".join([*reversed(parts), label]))
            both = "both a file and a directory" if what < 0 <= other else "there twice"
            raise ManifestInvalid(f"manifest {name}: {path!r} is {both}")


def _digest_directories(
    names: bytes,
    name_end: memoryview,
    digest: bytearray,
    width: int,
    flags: bytes,
    first: memoryview,
    count: memoryview,
    rows: Sequence[int],
) -> None:
    """Give every directory a digest of what is below it, so that equal subtrees are seen to be equal.

    Children come after their parents, so the last row's digest can be had first.
    """
    for row in reversed(rows):
        begin, end = first[row], first[row] + count[row]
        state = xxhash.xxh3_128()
        if begin != end:
            state.update(names[name_end[begin - 1] : name_end[end - 1]])
            state.update(digest[begin * width : end * width])
            state.update(flags[begin:end])
        digest[row * width : row * width + NARROWEST] = state.digest()


def write_tree(image: TreeImage, path: Path) -> None:
    """Write the tree's file, whole or not at all: under another name first, then renamed. Mode 0600."""
    places: dict[str, tuple[int, int, int]] = {}
    # The header's length depends on the offsets in it, so they count from its padded end, which a
    # first packing with the widest values fixes.
    widest = dict.fromkeys(image.columns, (1 << 63, 1 << 63, (1 << 64) - 1))
    room = PREAMBLE.size + len(_pack_header(image, widest))
    offset = start = -(-room // ALIGNMENT) * ALIGNMENT
    for name, column in image.columns.items():
        places[name] = (offset, len(column), xxhash.xxh3_64_intdigest(column))
        offset += -(-len(column) // ALIGNMENT) * ALIGNMENT
    header = _pack_header(image, places)
    preamble = PREAMBLE.pack(MAGIC, len(header), xxhash.xxh3_64_intdigest(header))
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write((preamble + header).ljust(start, b"\0"))
            for column in image.columns.values():
                file.write(column)
                file.write(bytes(-len(column) % ALIGNMENT))
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _pack_header(image: TreeImage, places: dict[str, tuple[int, int, int]]) -> bytes:
    packed: bytes = msgpack.packb(
        {
            "rows": image.rows,
            "files": image.files,
            "digest_width": image.digest_width,
            "bytes_known": image.bytes_known,
            "sizes_unknown": image.sizes_unknown,
            "columns": places,
        }
    )
    return packed
