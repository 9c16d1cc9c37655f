"""Indexes: where the pieces of a content in parts are, and where the members of an archive.

`store.contents` describes their format. They are hostile input; what comes out of `decode` lies within the
bounds that it tells, without gaps (parts), overlaps or duplicates (archives). Pure; any thread.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

from store.contents.sealing import (
    DIGEST_BYTES,
    NAME_BYTES,
    SIZE_MAX,
    SUM_BYTES,
    Sealed,
    check_column,
    count_of,
    pack_numbers,
    seal,
    unpack_numbers,
    unseal,
    values,
)
from store.errors import ObjectCorrupt
from store.oid import DVC_ALGORITHMS, Oid
from store.shards.tar_format import BLOCK, END

PIECE_LIMIT: Final = 16 << 20
"""Bytes of a piece, at most: a reader holds one in memory to check it."""
MEMBER_LIMIT: Final = 16 << 20
"""Bytes of a member, for the same reason."""
ARCHIVE_LIMIT: Final = 1 << 30
"""Bytes of an archive."""
MOST_PIECES: Final = 1 << 22
MOST_MEMBERS: Final = 1 << 20


class Piece(NamedTuple):
    """A range of a content in parts, and the part that has it, which holds nothing else."""

    offset: int
    """In the content."""
    length: int
    part: str
    """The part's SHA-256 in hex."""
    sum: bytes
    """xxh3-128 of the bytes."""


class Member(NamedTuple):
    """A content in an archive."""

    oid: Oid
    offset: int
    """Of its bytes in the archive."""
    length: int
    sum: bytes
    """xxh3-128 of the bytes."""


class _Parts(Sealed, frozen=True, kw_only=True):
    algorithm: str
    digest: bytes
    size: int
    lengths: bytes
    names: bytes
    sums: bytes


class _Archive(Sealed, frozen=True, kw_only=True):
    name: bytes
    algorithm: str
    size: int
    digests: bytes
    offsets: bytes
    lengths: bytes
    sums: bytes


_PARTS: Final = "parts"
_ARCHIVE: Final = "archive"


@dataclass(frozen=True, slots=True, eq=False)
class PartsIndex:
    """A content in parts. Columns are as in the file."""

    oid: Oid
    size: int
    """Of the content, in bytes; at least 1."""
    ends: array[int]
    """Where the pieces end, ascending; the last one is `size`."""
    names: bytes
    sums: bytes

    def __len__(self) -> int:
        return len(self.ends)

    def piece(self, number: int) -> Piece:
        """One of the pieces, counted from 0."""
        start = self.ends[number - 1] if number else 0
        return Piece(
            start,
            self.ends[number] - start,
            self.names[number * NAME_BYTES : (number + 1) * NAME_BYTES].hex(),
            self.sums[number * SUM_BYTES : (number + 1) * SUM_BYTES],
        )

    def pieces(self) -> Iterator[Piece]:
        """All, in the order of the content."""
        return map(self.piece, range(len(self)))

    def covering(self, offset: int, length: int) -> range:
        """The numbers of the pieces that have bytes of a range, which may end behind the content."""
        if length <= 0 or offset >= self.size:
            return range(0)
        return range(
            bisect_right(self.ends, offset), bisect_left(self.ends, min(offset + length, self.size)) + 1
        )


@dataclass(frozen=True, slots=True, eq=False)
class ArchiveIndex:
    """An archive. Columns are as in the file."""

    name: str
    """The archive's SHA-256 in hex."""
    algorithm: str
    """That all members are named by."""
    size: int
    """Of the archive, in bytes."""
    digests: bytes
    offsets: array[int]
    lengths: array[int]
    sums: bytes

    def __len__(self) -> int:
        return len(self.offsets)

    def member(self, number: int) -> Member:
        """One of the members, counted from 0."""
        digest = self.digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
        return Member(
            Oid.from_bytes(digest, self.algorithm),
            self.offsets[number],
            self.lengths[number],
            self.sums[number * SUM_BYTES : (number + 1) * SUM_BYTES],
        )

    def members(self) -> Iterator[Member]:
        """All, in the order of the archive."""
        return map(self.member, range(len(self)))

    def numbers(self) -> dict[bytes, int]:
        """Raw digest → number of the member."""
        return {digest: number for number, digest in enumerate(values(self.digests, DIGEST_BYTES))}


def encode_parts(oid: Oid, pieces: list[Piece]) -> bytes:
    """The index of a content; `pieces` are all of it, in order."""
    return seal(
        _Parts(
            kind=_PARTS,
            algorithm=oid.algorithm,
            digest=oid.raw,
            size=sum(piece.length for piece in pieces),
            lengths=pack_numbers(array("Q", (piece.length for piece in pieces))),
            names=b"".join(bytes.fromhex(piece.part) for piece in pieces),
            sums=b"".join(piece.sum for piece in pieces),
        )
    )


def decode_parts(data: bytes, oid: Oid) -> PartsIndex:
    """The index of the content `oid`. Raises `ObjectCorrupt`."""
    where = f"the index of the parts of {oid}"
    raw = unseal(data, _PARTS, _Parts, where)
    if raw.algorithm != oid.algorithm or raw.digest != oid.raw:
        raise ObjectCorrupt(f"{where} is one of another content")
    count = count_of(raw.names, NAME_BYTES, where)
    if not 1 <= count <= MOST_PIECES:
        raise ObjectCorrupt(f"{where} has {count} pieces")
    check_column(raw.sums, SUM_BYTES, count, where)
    lengths = unpack_numbers(raw.lengths, count, where)
    if not 1 <= min(lengths) <= max(lengths) <= PIECE_LIMIT:
        raise ObjectCorrupt(f"{where} has pieces of lengths that none has")
    ends = array("Q", accumulate(lengths))  # bounded: so many pieces of that length are less than 2**63
    if ends[-1] != raw.size:
        raise ObjectCorrupt(f"{where} says {raw.size} bytes, and its pieces have {ends[-1]}")
    return PartsIndex(oid, raw.size, ends, raw.names, raw.sums)


def encode_archive(name: str, size: int, algorithm: str, members: list[Member]) -> bytes:
    """The index of an archive of `size` bytes; `members` are all, in order."""
    return seal(
        _Archive(
            kind=_ARCHIVE,
            name=bytes.fromhex(name),
            algorithm=algorithm,
            size=size,
            digests=b"".join(member.oid.raw for member in members),
            offsets=pack_numbers(array("Q", (member.offset for member in members))),
            lengths=pack_numbers(array("Q", (member.length for member in members))),
            sums=b"".join(member.sum for member in members),
        )
    )


def decode_archive(data: bytes, name: str) -> ArchiveIndex:
    """The index of the archive of that name, a SHA-256 in hex. Raises `ObjectCorrupt`."""
    where = f"the index of the archive {name}"
    raw = unseal(data, _ARCHIVE, _Archive, where)
    if raw.name.hex() != name:
        raise ObjectCorrupt(f"{where} is one of another archive")
    if raw.algorithm not in DVC_ALGORITHMS:
        raise ObjectCorrupt(f"{where} has members that are named by {raw.algorithm[:40]!r}")
    if not 0 <= raw.size <= ARCHIVE_LIMIT:
        raise ObjectCorrupt(f"{where} says that the archive has {raw.size} bytes")
    count = count_of(raw.digests, DIGEST_BYTES, where)
    if not 1 <= count <= MOST_MEMBERS:
        raise ObjectCorrupt(f"{where} has {count} members")
    check_column(raw.sums, SUM_BYTES, count, where)
    offsets = unpack_numbers(raw.offsets, count, where)
    lengths = unpack_numbers(raw.lengths, count, where)
    if max(lengths) > MEMBER_LIMIT or max(offsets) > SIZE_MAX:
        raise ObjectCorrupt(f"{where} has a member that is larger than any")
    # A header of a block at the least stands before each body, and the end behind the last one.
    starts = [0, *(offset + length for offset, length in zip(offsets, lengths, strict=True))]
    if any(offset % BLOCK or offset < end + BLOCK for offset, end in zip(offsets, starts, strict=False)):
        raise ObjectCorrupt(f"{where} has members that overlap, or that lie where none can")
    if starts[-1] + END > raw.size:
        raise ObjectCorrupt(f"{where} has members behind the archive's end")
    if len(set(values(raw.digests, DIGEST_BYTES))) != count:
        raise ObjectCorrupt(f"{where} has a member twice")
    return ArchiveIndex(name, raw.algorithm, raw.size, raw.digests, offsets, lengths, raw.sums)
