"""Archives: many small contents in one tar file, which has their hashes for names; and which go together.

An archive follows from its members and their order alone, so two who push the same make the same. It is built
in memory: it has `ARCHIVE_BYTES` of contents at most. Pure; any thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import xxhash

from store.contents.index import Member, encode_archive
from store.layouts import object_path
from store.oid import Oid
from store.shards.tar_format import archive_length, member_header, padding

SMALL_BYTES: Final = 512 << 10
"""A content of up to so many bytes goes into an archive, unless it is the only one."""
ARCHIVE_BYTES: Final = 7 << 20
"""Of contents, headers and padding in one archive: it is sent in one request."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive, ready to be put."""

    name: str
    """Its SHA-256 in hex."""
    data: bytes
    index: bytes
    members: tuple[Member, ...]


def build_archive(contents: Sequence[tuple[Oid, bytes]]) -> Archive:
    """An archive of contents that were proved: files, of one algorithm, each once; at least one."""
    blocks: list[bytes] = []
    members: list[Member] = []
    offset = 0
    for oid, data in contents:
        header = member_header(object_path(oid).encode(), len(data))
        offset += len(header)
        members.append(Member(oid, offset, len(data), xxhash.xxh3_128_digest(data)))
        blocks += (header, data, bytes(padding(len(data))))
        offset += len(data) + padding(len(data))
    blocks.append(bytes(archive_length(offset) - offset))
    whole = b"".join(blocks)
    name = hashlib.sha256(whole).hexdigest()
    return Archive(
        name, whole, encode_archive(name, len(whole), members[0].oid.algorithm, members), tuple(members)
    )


def grouped(contents: Iterable[tuple[T, int]]) -> Iterator[list[T]]:
    """Things with the lengths of their contents, in their order, cut into what one archive may have."""
    group: list[T] = []
    filled = 0
    for thing, size in contents:
        taken = len(_SAMPLE) + size + padding(size)
        if group and filled + taken > ARCHIVE_BYTES:
            yield group
            group, filled = [], 0
        group.append(thing)
        filled += taken
    if group:
        yield group


_SAMPLE: Final = member_header(object_path(Oid("0" * 32)).encode(), 0)
"""All members' headers are as long as this one: names are short, and contents small."""
