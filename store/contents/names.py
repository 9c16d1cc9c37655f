"""Keys of content directories: what lies where below a remote, and which keys are of that layout at all.

The layout is described in `store.contents`. Keys come from listings, so they are hostile: `parse_key` knows
the ones that this layout has and no others. Pure; any thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from store.oid import DVC_ALGORITHMS, TREE_SUFFIX, Oid

ROOT: Final = "contents/"
PARTS: Final = "parts"
ARCHIVES: Final = "archives"
NAMESPACES: Final = (*DVC_ALGORITHMS, PARTS, ARCHIVES)

WHOLE: Final = "whole"
PARTS_INDEX: Final = "parts.idx"
CATALOGUE: Final = "catalogue"
ARCHIVE: Final = "archive.tar"
ARCHIVE_INDEX: Final = "archive.idx"

WRITTEN_DEPTH: Final = 1
DEPTHS: Final = (WRITTEN_DEPTH, 0, 2)
"""Of prefix directories, in the order in which readers look."""

_FILES: Final = {PARTS: {WHOLE}, ARCHIVES: {ARCHIVE, ARCHIVE_INDEX}}
_OF_TREES: Final = {WHOLE, CATALOGUE}
_OF_FILES: Final = {WHOLE, PARTS_INDEX}
_KEY: Final = re.compile(
    re.escape(ROOT)
    + rf"(?P<space>{'|'.join(NAMESPACES)})/(?P<below>(?:[0-9a-f]{{2}}/){{0,2}})"
    + r"(?P<digest>[0-9a-f]{32}|[0-9a-f]{64})"
    + rf"(?P<tree>{re.escape(TREE_SUFFIX)})?/(?P<file>[a-z.]+)"
)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, order=True)
class ContentName:
    """A content directory: the namespace that it is in, and the hash that it is named by."""

    namespace: str
    """One of `NAMESPACES`."""
    digest: str
    """Lower-case hex: 32 digits where `namespace` is an algorithm of DVC's, else 64."""
    is_tree: bool = False

    @classmethod
    def of(cls, oid: Oid) -> ContentName:
        """The directory of a content that DVC names."""
        if oid.algorithm not in DVC_ALGORITHMS:
            raise ValueError(f"{oid.algorithm} is no hash that contents are named by")
        return cls(oid.algorithm, oid.digest, oid.is_tree)

    @classmethod
    def of_part(cls, digest: str) -> ContentName:
        """The directory of a part, by its SHA-256 in hex."""
        return cls(PARTS, _sha256(digest))

    @classmethod
    def of_archive(cls, digest: str) -> ContentName:
        """The directory of an archive, by its SHA-256 in hex."""
        return cls(ARCHIVES, _sha256(digest))

    @property
    def oid(self) -> Oid | None:
        """What DVC calls the content; None for parts and archives."""
        if self.namespace not in DVC_ALGORITHMS:
            return None
        return Oid(self.digest, is_tree=self.is_tree, algorithm=self.namespace)

    def key(self, file: str, depth: int = WRITTEN_DEPTH) -> str:
        """The key of one of its files, below so many prefix directories."""
        below = "".join(f"{self.digest[2 * step : 2 * step + 2]}/" for step in range(depth))
        return f"{ROOT}{self.namespace}/{below}{self.digest}{TREE_SUFFIX if self.is_tree else ''}/{file}"

    def keys(self, file: str) -> Iterator[str]:
        """The keys at all depths, the likeliest first."""
        return (self.key(file, depth) for depth in DEPTHS)


@dataclass(frozen=True, slots=True)
class Place:
    """What a key tells: whose file it is, which one, and below how many prefix directories."""

    name: ContentName
    file: str
    depth: int


def parse_key(key: str) -> Place | None:
    """What lies at a key; None for one that this layout does not have."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    space, below, digest, file = match["space"], match["below"], match["digest"], match["file"]
    is_tree = match["tree"] is not None
    if space in _FILES:
        fits = len(digest) == 64 and not is_tree and file in _FILES[space]
    else:
        fits = len(digest) == 32 and file in (_OF_TREES if is_tree else _OF_FILES)
    depth = len(below) // 3
    name = ContentName(space, digest, is_tree)
    return Place(name, file, depth) if fits and name.key(file, depth) == key else None


def may_hold(key: str, algorithm: str, name: str) -> bool:
    """Can what lies at a key hold the content that DVC calls `name`? Of archives the key does not tell."""
    place = parse_key(key)
    if place is None:
        return False
    if place.file == ARCHIVE:
        return not name.endswith(TREE_SUFFIX)
    oid = place.name.oid
    if oid is None or place.file not in (WHOLE, PARTS_INDEX):
        return False
    return (oid.algorithm, str(oid)) == (algorithm, name)


def namespace_directory(namespace: str, prefix: str = "") -> str:
    """What all keys of a namespace begin with; with `prefix`, two digits, those of depths 1 and 2."""
    return f"{ROOT}{namespace}/{prefix}{'/' if prefix else ''}"


def _sha256(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"{digest!r} is no SHA-256")
    return digest
