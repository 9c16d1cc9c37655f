"""`Catalogue`: where all is that a manifest names, and how long what is not in archives.

`store.contents` describes its format. It is hostile input, and a hint: what it says is proved by what is
read. Pure; any thread.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from store.contents.sealing import (
    DIGEST_BYTES,
    NAME_BYTES,
    SIZE_MAX,
    Sealed,
    count_of,
    pack_numbers,
    seal,
    unpack_numbers,
    unseal,
    values,
)
from store.errors import ObjectCorrupt
from store.oid import Oid

MOST_ARCHIVES: Final = 1 << 20
_KIND: Final = "catalogue"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Of one manifest."""

    manifest: Oid
    archives: tuple[str, ...]
    """Their SHA-256s in hex, each once. What the two below do not have is a member of one of them, or lies in
    DVC's place."""
    whole: Mapping[bytes, int]
    """Raw digest → length in bytes."""
    parts: Mapping[bytes, int]
    """Of contents in parts, the same."""

    @property
    def is_empty(self) -> bool:
        """Does it tell of nothing?"""
        return not (self.archives or self.whole or self.parts)

    def to_bytes(self) -> bytes:
        """The file's bytes; equal ones for equal catalogues."""
        whole, parts = sorted(self.whole.items()), sorted(self.parts.items())
        return seal(
            _Catalogue(
                kind=_KIND,
                algorithm=self.manifest.algorithm,
                digest=self.manifest.raw,
                archives=bytes.fromhex("".join(sorted(self.archives))),
                whole=b"".join(digest for digest, _ in whole),
                whole_sizes=pack_numbers(array("Q", (size for _, size in whole))),
                parts=b"".join(digest for digest, _ in parts),
                part_sizes=pack_numbers(array("Q", (size for _, size in parts))),
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes, manifest: Oid) -> Catalogue:
        """The catalogue of that manifest. Raises `ObjectCorrupt`."""
        where = f"the catalogue of {manifest}"
        raw = unseal(data, _KIND, _Catalogue, where)
        if raw.algorithm != manifest.algorithm or raw.digest != manifest.raw:
            raise ObjectCorrupt(f"{where} is one of another manifest")
        if count_of(raw.archives, NAME_BYTES, where) > MOST_ARCHIVES:
            raise ObjectCorrupt(f"{where} has more archives than there can be")
        archives = [name.hex() for name in values(raw.archives, NAME_BYTES)]
        whole = _sizes(raw.whole, raw.whole_sizes, where)
        parts = _sizes(raw.parts, raw.part_sizes, where)
        if len(set(archives)) != len(archives) or not whole.keys().isdisjoint(parts):
            raise ObjectCorrupt(f"{where} names something twice")
        return cls(manifest, tuple(archives), whole, parts)


class _Catalogue(Sealed, frozen=True, kw_only=True):
    algorithm: str
    digest: bytes
    archives: bytes
    whole: bytes
    whole_sizes: bytes
    parts: bytes
    part_sizes: bytes


def _sizes(digests: bytes, column: bytes, where: str) -> dict[bytes, int]:
    count = count_of(digests, DIGEST_BYTES, where)
    sizes = unpack_numbers(column, count, where)
    found = dict(zip(values(digests, DIGEST_BYTES), sizes, strict=True))
    if len(found) != count:
        raise ObjectCorrupt(f"{where} names something twice")
    if max(sizes, default=0) > SIZE_MAX:
        raise ObjectCorrupt(f"{where} has a size that no content has")
    return found
