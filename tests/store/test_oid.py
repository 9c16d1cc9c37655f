"""Oids are valid from birth."""

import pytest

from store.errors import InputError
from store.layouts import object_path
from store.oid import MD5_DOS2UNIX, Oid

DIGEST = "f437ca7b1c0fe5b8e6fba5a4ac4ad1e3"


def test_prints_what_it_parsed() -> None:
    assert str(Oid.parse(DIGEST)) == DIGEST
    assert str(Oid.parse(f"{DIGEST}.dir")) == f"{DIGEST}.dir"
    assert Oid.parse(f"{DIGEST}.dir").is_tree
    assert not Oid.parse(DIGEST).is_tree


def test_digits_are_lowered() -> None:
    assert Oid.parse(DIGEST.upper()) == Oid.parse(DIGEST)


def test_raw_bytes_round_trip() -> None:
    oid = Oid.parse(DIGEST)
    assert len(oid.raw) == 16
    assert Oid.from_bytes(oid.raw) == oid


@pytest.mark.parametrize(
    "text", ["", ".dir", "abc", DIGEST + "0", DIGEST[:-1] + "g", DIGEST + "\n", "../" + DIGEST]
)
def test_refuses_what_is_no_digest(text: str) -> None:
    with pytest.raises(InputError, match="not an oid"):
        Oid.parse(text)


def test_refuses_an_unknown_algorithm() -> None:
    with pytest.raises(InputError, match="algorithm"):
        Oid(DIGEST, algorithm="sha1")


def test_objects_lie_where_dvc_puts_them() -> None:
    assert object_path(Oid.parse(f"{DIGEST}.dir")) == f"files/md5/f4/{DIGEST[2:]}.dir"
    assert object_path(Oid.parse(DIGEST, MD5_DOS2UNIX)) == f"f4/{DIGEST[2:]}"
