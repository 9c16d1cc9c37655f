"""`Oid`: the identity of content, as DVC names it. Valid from birth.

An oid is a hash algorithm and a digest. DVC has two algorithms for the objects of its cache:
`md5` (of the raw bytes, DVC 3) and `md5-dos2unix` (of the bytes after a text heuristic turned
CRLF into LF, DVC 0.x to 2.x; entries of both may stand in one repository). The hash of a
directory manifest carries the suffix `.dir` in DVC's files and in the cache's file names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from store.errors import InputError

MD5: Final = "md5"
MD5_DOS2UNIX: Final = "md5-dos2unix"
ALGORITHMS: Final = (MD5, MD5_DOS2UNIX)
TREE_SUFFIX: Final = ".dir"

_DIGEST = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, order=True)
class Oid:
    """Content identity: `digest` is 32 lower-case hex digits, `is_tree` says that it names a manifest."""

    digest: str
    is_tree: bool = False
    algorithm: str = MD5

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise InputError(f"unknown hash algorithm {self.algorithm!r}; known are {', '.join(ALGORITHMS)}")
        if not _DIGEST.fullmatch(self.digest):
            raise InputError(f"{self.digest!r} is not an oid: expected 32 hex digits")

    @classmethod
    def parse(cls, text: str, algorithm: str = MD5) -> Oid:
        """Read what DVC prints: 32 hex digits of either case, with `.dir` behind for a manifest.

        Raises `InputError` for anything else.
        """
        digest = text.removesuffix(TREE_SUFFIX)
        return cls(digest.lower(), is_tree=len(digest) != len(text), algorithm=algorithm)

    @classmethod
    def from_bytes(cls, digest: bytes, algorithm: str = MD5) -> Oid:
        """The oid of a file from its 16 raw digest bytes."""
        return cls(digest.hex(), algorithm=algorithm)

    @property
    def raw(self) -> bytes:
        """The 16 bytes of the digest."""
        return bytes.fromhex(self.digest)

    def __str__(self) -> str:
        return self.digest + TREE_SUFFIX if self.is_tree else self.digest
