"""Indexes and catalogues: there and back; what lies in them is refused, whatever it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from store.contents import index as index_module
from store.contents.archiving import build_archive
from store.contents.catalogue import Catalogue
from store.contents.index import Piece, decode_archive, decode_parts, encode_parts
from store.errors import ObjectCorrupt
from store.oid import MD5_DOS2UNIX, Oid
from tests.mount.datasets import md5

OID = Oid("ab" * 16)
TREE = Oid("cd" * 16, is_tree=True)
OTHER = Oid("ab" * 16, algorithm=MD5_DOS2UNIX)
CONTENTS = [(Oid(md5(data)), data) for data in (b"", b"one", b"x" * 512, b"y" * 1000)]
ARCHIVE = build_archive(CONTENTS)

digests = st.binary(min_size=16, max_size=16)
names = st.binary(min_size=32, max_size=32)
sizes = st.integers(0, (1 << 63) - 1)


def pieces_of(lengths: list[int]) -> list[Piece]:
    found, offset = [], 0
    for number, length in enumerate(lengths):
        part = hashlib.sha256(b"%d" % number)
        found.append(Piece(offset, length, part.hexdigest(), part.digest()[:16]))
        offset += length
    return found


@given(st.lists(st.integers(1, index_module.PIECE_LIMIT), min_size=1, max_size=40), st.data())
def test_pieces_are_found_by_their_ranges(lengths: list[int], data: st.DataObject) -> None:
    pieces = pieces_of(lengths)
    index = decode_parts(encode_parts(OID, pieces), OID)
    assert list(index.pieces()) == pieces and len(index) == len(pieces)
    assert index.size == sum(lengths)
    offset = data.draw(st.integers(0, index.size + 5))
    length = data.draw(st.integers(0, index.size + 5))
    wanted = [
        number
        for number, piece in enumerate(pieces)
        if max(offset, piece.offset) < min(offset + length, piece.offset + piece.length)
    ]
    assert list(index.covering(offset, length)) == wanted


@given(
    st.lists(names, unique=True, max_size=5), st.dictionaries(digests, sizes), st.dictionaries(digests, sizes)
)
def test_a_catalogue_is_read_as_it_was_written(
    archives: list[bytes], whole: dict[bytes, int], parts: dict[bytes, int]
) -> None:
    parts = {digest: size for digest, size in parts.items() if digest not in whole}
    data = Catalogue(TREE, tuple(name.hex() for name in archives), whole, parts).to_bytes()
    read = Catalogue.from_bytes(data, TREE)
    assert sorted(read.archives) == sorted(name.hex() for name in archives)
    assert (read.whole, read.parts) == (whole, parts)
    assert read.to_bytes() == data


def test_members_are_where_the_index_says() -> None:
    index = decode_archive(ARCHIVE.index, ARCHIVE.name)
    assert index.size == len(ARCHIVE.data)
    found = [(m.oid, ARCHIVE.data[m.offset : m.offset + m.length]) for m in index.members()]
    assert found == CONTENTS
    assert index.numbers() == {oid.raw: number for number, (oid, _) in enumerate(CONTENTS)}
    for member in index.members():
        body = ARCHIVE.data[member.offset : member.offset + member.length]
        assert xxhash.xxh3_128_digest(body) == member.sum


def forged(data: bytes, **changes: Any) -> bytes:
    """As it was, but for these fields, and sealed again."""
    fields = {**msgpack.unpackb(data[:-16]), **changes}
    body: bytes = msgpack.packb({name: value for name, value in fields.items() if value is not None})
    return body + xxhash.xxh3_128_digest(body)


def numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


PARTS = encode_parts(OID, pieces_of([3, 4]))
CATALOGUE = Catalogue(TREE, ("11" * 32,), {b"w" * 16: 5}, {b"p" * 16: 6}).to_bytes()
READERS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "parts": (PARTS, lambda data: decode_parts(data, OID)),
    "archive": (ARCHIVE.index, lambda data: decode_archive(data, ARCHIVE.name)),
    "catalogue": (CATALOGUE, lambda data: Catalogue.from_bytes(data, TREE)),
}
OFFSETS = [member.offset for member in ARCHIVE.members]


@pytest.mark.parametrize(
    ("kind", "changes", "match"),
    [
        ("parts", {"kind": "archive"}, "kind"),
        ("parts", {"format": 2}, "newer"),
        ("parts", {"format": "1"}, "cannot be read"),
        ("parts", {"size": -7}, "cannot be read|says"),
        ("parts", {"size": 8}, "says 8 bytes"),
        ("parts", {"size": 7.0}, "cannot be read"),
        ("parts", {"size": None}, "cannot be read"),
        ("parts", {"digest": b"x" * 16}, "another content"),
        ("parts", {"algorithm": MD5_DOS2UNIX}, "another content"),
        ("parts", {"lengths": numbers(0, 7)}, "lengths that none"),
        ("parts", {"lengths": numbers(7)}, "different lengths"),
        ("parts", {"lengths": numbers((1 << 64) - 1, 8)}, "lengths that none"),
        ("parts", {"lengths": [3, 4]}, "cannot be read"),
        ("parts", {"names": b"", "sums": b"", "lengths": b"", "size": 0}, "0 pieces"),
        ("parts", {"names": b"x" * 63}, "cut short"),
        ("parts", {"sums": b"x" * 31}, "different lengths"),
        ("archive", {"name": b"x" * 32}, "another archive"),
        ("archive", {"algorithm": "sha1"}, "named by"),
        ("archive", {"size": len(ARCHIVE.data) * 1000_000}, "bytes"),
        ("archive", {"size": OFFSETS[-1] + 1000}, "behind the archive's end"),
        ("archive", {"offsets": numbers(*OFFSETS[:-1], OFFSETS[-2])}, "overlap"),
        ("archive", {"offsets": numbers(0, *OFFSETS[1:])}, "overlap"),
        ("archive", {"offsets": numbers(*reversed(OFFSETS))}, "overlap"),
        ("archive", {"offsets": numbers(OFFSETS[0] + 1, *OFFSETS[1:])}, "lie where none"),
        ("archive", {"offsets": numbers(*OFFSETS[:-1], (1 << 64) - 512)}, "larger"),
        ("archive", {"lengths": numbers(0, 3, 512, (1 << 64) - 1)}, "larger"),
        ("archive", {"lengths": numbers(0, 3, 5000, 1000)}, "overlap"),
        ("archive", {"digests": b"x" * 64}, "twice"),
        ("archive", {"digests": b"x" * 16}, "different lengths"),
        ("archive", {"sums": b""}, "different lengths"),
        ("catalogue", {"digest": b"x" * 16}, "another manifest"),
        ("catalogue", {"archives": b"1" * 64}, "twice"),
        ("catalogue", {"archives": b"1" * 33}, "cut short"),
        ("catalogue", {"parts": b"w" * 16}, "twice"),
        ("catalogue", {"whole": b"w" * 32, "whole_sizes": numbers(5, 5)}, "twice"),
        ("catalogue", {"whole_sizes": numbers(1 << 63)}, "size"),
        ("catalogue", {"part_sizes": b""}, "different lengths"),
    ],
)
def test_what_lies_is_refused(kind: str, changes: dict[str, Any], match: str) -> None:
    good, read = READERS[kind]
    read(forged(good))
    with pytest.raises(ObjectCorrupt, match=match) as caught:
        read(forged(good, **changes))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_what_is_larger_than_any_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "MOST_PIECES", 1)
    monkeypatch.setattr(index_module, "MOST_MEMBERS", 3)
    monkeypatch.setattr("store.contents.catalogue.MOST_ARCHIVES", 0)
    for data, read in READERS.values():
        with pytest.raises(ObjectCorrupt, match=r"pieces|members|more archives"):
            read(data)
    monkeypatch.setattr("store.contents.sealing.LARGEST", 20)
    for data, read in READERS.values():
        with pytest.raises(ObjectCorrupt, match="more than there can be"):
            read(data)


@pytest.mark.parametrize("kind", READERS)
@given(data=st.data())
def test_what_is_torn_or_changed_is_refused(kind: str, data: st.DataObject) -> None:
    good, read = READERS[kind]
    where = data.draw(st.integers(0, len(good) - 1))
    if data.draw(st.booleans()):
        bad = good[:where]
    else:
        bad = bytearray(good)
        bad[where] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ObjectCorrupt):
        read(bytes(bad))


@given(st.binary(max_size=200), st.sampled_from(sorted(READERS)))
def test_any_bytes_under_a_right_checksum_are_refused(body: bytes, kind: str) -> None:
    with pytest.raises(ObjectCorrupt):
        READERS[kind][1](body + xxhash.xxh3_128_digest(body))


def test_an_index_of_another_content_is_refused() -> None:
    with pytest.raises(ObjectCorrupt, match="another content"):
        decode_parts(PARTS, OTHER)
