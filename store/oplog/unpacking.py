"""`unpack`: an archive of contents from its bytes alone, where its index is lost or lies. Pure."""

from __future__ import annotations

from typing import Final

from store.contents.archiving import Archive, build_archive
from store.hashing import bytes_match
from store.oid import MD5, MD5_DOS2UNIX, Oid
from store.oplog.listing import object_at
from store.shards.tar_format import BLOCK, padding

_NAME: Final = slice(0, 100)
_SIZE: Final = slice(124, 135)


def unpack(data: bytes, name: str) -> Archive | None:
    """The archive of that name, a SHA-256 in hex, with an index as whoever made it has written it.

    None for bytes that are not that archive, or that no push makes: they are hostile."""
    found: dict[Oid, bytes] = {}
    at = 0
    while at + BLOCK <= len(data) and data[at]:
        header = data[at : at + BLOCK]
        try:
            path, size = header[_NAME].rstrip(b"\0").decode("ascii"), int(header[_SIZE], 8)
        except ValueError:
            return None
        oid = object_at(path, MD5) or object_at(path, MD5_DOS2UNIX)
        body = data[at + BLOCK : at + BLOCK + size] if size >= 0 else b""
        if oid is None or oid.is_tree or oid in found or len(body) != size or not bytes_match(body, oid):
            return None
        found[oid] = body
        at += BLOCK + size + padding(size)
    if not found or len({oid.algorithm for oid in found}) > 1:
        return None
    made = build_archive(list(found.items()))
    return made if made.name == name and made.data == data else None
