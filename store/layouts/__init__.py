"""Where an object lies below the root of a cache or of an ordinary remote.

DVC 3 keeps `md5` objects under `files/md5/<2>/<30>[.dir]`; DVC 0.x to 2.x kept theirs, hashed
with `md5-dos2unix`, at `<2>/<30>[.dir]` of the root. DVC never looks for an oid of one algorithm
in the other's place, and neither do we: the same digits may name different bytes there. Files that
git tracks are kept, unpacked, in a directory of our own by the name of their blob.
"""

from __future__ import annotations

from typing import Final

from store.oid import GIT_SHA1, GIT_SHA256, MD5, MD5_DOS2UNIX, Oid

OBJECT_ROOTS: Final = {MD5: "files/md5", MD5_DOS2UNIX: "", GIT_SHA1: "sha1", GIT_SHA256: "sha256"}
"""Algorithm → directory that holds the two-digit prefix directories, relative to the root."""


def object_path(oid: Oid) -> str:
    """The object's path relative to the root of a cache or remote, `/`-separated."""
    name = str(oid)
    root = OBJECT_ROOTS[oid.algorithm]
    return f"{root}/{name[:2]}/{name[2:]}" if root else f"{name[:2]}/{name[2:]}"
