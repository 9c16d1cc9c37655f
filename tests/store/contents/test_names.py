"""Keys of content directories: there and back, at every depth, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.contents.names import (
    ARCHIVE,
    ARCHIVE_INDEX,
    CATALOGUE,
    DEPTHS,
    PARTS_INDEX,
    WHOLE,
    ContentName,
    Place,
    parse_key,
)
from store.oid import MD5_DOS2UNIX, Oid

MD5_DIGITS = "0123456789abcdef" * 2
SHA256_DIGITS = "fedcba9876543210" * 4

NAMES = [
    (ContentName.of(Oid(MD5_DIGITS)), (WHOLE, PARTS_INDEX)),
    (ContentName.of(Oid(MD5_DIGITS, algorithm=MD5_DOS2UNIX)), (WHOLE, PARTS_INDEX)),
    (ContentName.of(Oid(MD5_DIGITS, is_tree=True)), (WHOLE, CATALOGUE)),
    (ContentName.of_part(SHA256_DIGITS), (WHOLE,)),
    (ContentName.of_archive(SHA256_DIGITS), (ARCHIVE, ARCHIVE_INDEX)),
]


@pytest.mark.parametrize(("name", "files"), NAMES)
def test_keys_are_told_at_every_depth(name: ContentName, files: tuple[str, ...]) -> None:
    for file in files:
        assert [parse_key(key) for key in name.keys(file)] == [Place(name, file, depth) for depth in DEPTHS]


def test_keys_are_as_they_are_described() -> None:
    tree = ContentName.of(Oid(MD5_DIGITS, is_tree=True))
    assert tree.key(WHOLE) == f"contents/md5/01/{MD5_DIGITS}.dir/whole"
    assert tree.oid == Oid(MD5_DIGITS, is_tree=True)
    archive = ContentName.of_archive(SHA256_DIGITS)
    assert archive.key(ARCHIVE, 2) == f"contents/archives/fe/dc/{SHA256_DIGITS}/archive.tar"
    assert archive.key(ARCHIVE, 0) == f"contents/archives/{SHA256_DIGITS}/archive.tar"
    assert archive.oid is None


@pytest.mark.parametrize(
    "key",
    [
        f"contents/md5/02/{MD5_DIGITS}/whole",
        f"contents/md5/01/24/{MD5_DIGITS}/whole",
        f"contents/md5/01/23/45/{MD5_DIGITS}/whole",
        f"contents/md5/../{MD5_DIGITS}/whole",
        f"/contents/md5/01/{MD5_DIGITS}/whole",
        f"contents/md5/01/{MD5_DIGITS}/whole/more",
        f"contents/md5/01/{MD5_DIGITS}/whole\n",
        f"contents/md5/01/{MD5_DIGITS}/catalogue",
        f"contents/md5/01/{MD5_DIGITS}.dir/parts.idx",
        f"contents/md5/fe/{SHA256_DIGITS}/whole",
        f"contents/parts/01/{MD5_DIGITS}/whole",
        f"contents/parts/fe/{SHA256_DIGITS}.dir/whole",
        f"contents/parts/fe/{SHA256_DIGITS}/archive.tar",
        f"contents/archives/fe/{SHA256_DIGITS.upper()}/archive.tar",
        f"contents/git-sha256/fe/{SHA256_DIGITS}/whole",
    ],
)
def test_other_keys_are_none(key: str) -> None:
    assert parse_key(key) is None


@given(st.text(alphabet="contents/md5parhiv.idxwole0123abf\n", max_size=120))
def test_no_key_is_taken_for_another(key: str) -> None:
    place = parse_key(key)
    assert place is None or place.name.key(place.file, place.depth) == key


@pytest.mark.parametrize("digest", ["", MD5_DIGITS, SHA256_DIGITS.upper(), "../" + SHA256_DIGITS])
def test_parts_and_archives_are_named_by_sha256(digest: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        ContentName.of_part(digest)
    with pytest.raises(ValueError, match="SHA-256"):
        ContentName.of_archive(digest)
