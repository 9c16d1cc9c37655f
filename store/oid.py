"""`Oid`: the identity of content, as DVC or git names it. Valid from birth.

An oid is a hash algorithm and a digest. DVC has two algorithms for the objects of its cache:
`md5` (of the raw bytes, DVC 3) and `md5-dos2unix` (of the bytes after a text heuristic turned
CRLF into LF, DVC 0.x to 2.x; entries of both may stand in one repository). The hash of a
directory manifest carries the suffix `.dir` in DVC's files and in the cache's file names. Files
that git tracks are named by their blobs, in SHA-1 or SHA-256 repositories.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from store.errors import InputError

MD5: Final = "md5"
MD5_DOS2UNIX: Final = "md5-dos2unix"
GIT_SHA1: Final = "git-sha1"
GIT_SHA256: Final = "git-sha256"
DIGEST_BYTES: Final = {MD5: 16, MD5_DOS2UNIX: 16, GIT_SHA1: 20, GIT_SHA256: 32}
"""Algorithm → length of its raw digests."""
ALGORITHMS: Final = tuple(DIGEST_BYTES)
"""In the order of their numbers in compiled trees: append only."""
DVC_ALGORITHMS: Final = (MD5, MD5_DOS2UNIX)
TREE_SUFFIX: Final = ".dir"

_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True, order=True)
class Oid:
    """Content identity: `digest` is lower-case hex, `is_tree` says that it names a manifest of DVC's."""

    digest: str
    is_tree: bool = False
    algorithm: str = MD5

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise InputError(f"unknown hash algorithm {self.algorithm!r}; known are {', '.join(ALGORITHMS)}")
        digits = 2 * DIGEST_BYTES[self.algorithm]
        if len(self.digest) != digits or not _HEX.fullmatch(self.digest):
            raise InputError(f"{self.digest!r} is not an oid: expected {digits} hex digits")

    @classmethod
    def parse(cls, text: str, algorithm: str = MD5) -> Oid:
        """Read what DVC prints: 32 hex digits of either case, with `.dir` behind for a manifest.

        Raises `InputError` for anything else.
        """
        digest = text.removesuffix(TREE_SUFFIX)
        return cls(digest.lower(), is_tree=len(digest) != len(text), algorithm=algorithm)

    @classmethod
    def from_bytes(cls, digest: bytes, algorithm: str = MD5) -> Oid:
        """The oid of a file from its raw digest."""
        return cls(digest.hex(), algorithm=algorithm)

    @property
    def raw(self) -> bytes:
        """The digest's bytes."""
        return bytes.fromhex(self.digest)

    def __str__(self) -> str:
        return self.digest + TREE_SUFFIX if self.is_tree else self.digest
