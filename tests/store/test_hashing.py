"""`Hasher` against DVC's own function, and against what DVC 2 wrote."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest
from dvc_data.hashfile.hash import fobj_md5
from hypothesis import given, settings
from hypothesis import strategies as st

from store.hashing import Hasher, file_matches
from store.oid import GIT_SHA1, MD5, MD5_DOS2UNIX, Oid

MIB = 1 << 20
TEXT = b"a line\r\n" * (MIB // 8)
BINARY = b"\0\r\n\1" * (MIB // 4)


def digest_in_pieces(data: bytes, sizes: list[int], oid: Oid) -> bool:
    hasher = Hasher(oid.algorithm)
    while data:
        size = sizes.pop() if sizes else len(data)
        hasher.update(data[:size])
        data = data[size:]
    return hasher.matches(oid)


def dvc_digest(data: bytes, algorithm: str) -> Oid:
    return Oid(fobj_md5(io.BytesIO(data), name=algorithm), algorithm=algorithm)


def dvc2_digest(data: bytes) -> Oid:
    """One look at the beginning decides for all blocks."""
    head = data[:512]
    nontext = sum(byte not in b"\n\r\t\f\b" and not 32 <= byte < 127 for byte in head)
    is_text = not head or (b"\0" not in head and nontext / len(head) <= 0.30)
    digest = hashlib.md5(usedforsecurity=False)
    for start in range(0, len(data), MIB):
        block = data[start : start + MIB]
        digest.update(block.replace(b"\r\n", b"\n") if is_text else block)
    return Oid(digest.hexdigest(), algorithm=MD5_DOS2UNIX)


@pytest.mark.parametrize("algorithm", [MD5, MD5_DOS2UNIX])
@settings(deadline=None)
@given(
    data=st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"x", b"\xe4", b"\0"]), max_size=700).map(b"".join),
    sizes=st.lists(st.integers(1, 300)),
)
def test_it_hashes_as_dvc_does(algorithm: str, data: bytes, sizes: list[int]) -> None:
    assert digest_in_pieces(data, sizes, dvc_digest(data, algorithm))


@pytest.mark.parametrize("special", [0, 153, 154, 512])
def test_the_share_of_other_bytes_decides(special: int) -> None:
    data = b"\xe4" * special + b"a" * (512 - special) + b"\r\n"
    assert digest_in_pieces(data, [], dvc_digest(data, MD5_DOS2UNIX))


@pytest.mark.parametrize(
    "data",
    [
        TEXT + BINARY + TEXT,
        BINARY + TEXT,
        TEXT + TEXT[:5],
        b"a" * (MIB - 1) + b"\r\n" + TEXT,  # a CRLF that two blocks share
        TEXT + BINARY.replace(b"\r\n", b"__") + TEXT,
    ],
    ids=["text-binary-text", "binary-text", "text", "split", "binary-without-crlf"],
)
@settings(max_examples=5, deadline=None)
@given(sizes=st.lists(st.integers(1, 3 * MIB), max_size=8))
def test_large_files_may_have_the_hash_of_either_generation(data: bytes, sizes: list[int]) -> None:
    assert digest_in_pieces(data, list(sizes), dvc_digest(data, MD5_DOS2UNIX))
    assert digest_in_pieces(data, list(sizes), dvc2_digest(data))
    assert not digest_in_pieces(data + b"x", list(sizes), dvc_digest(data, MD5_DOS2UNIX))


def test_other_bytes_do_not_match() -> None:
    assert not digest_in_pieces(b"a\r\n", [], dvc_digest(b"a\n", MD5))
    assert digest_in_pieces(b"a\r\n", [], dvc_digest(b"a\n", MD5_DOS2UNIX))


def test_a_file_is_hashed_from_its_beginning(tmp_path: Path) -> None:
    data = TEXT + b"end"
    path = tmp_path / "file"
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.lseek(descriptor, 7, os.SEEK_SET)
        assert file_matches(descriptor, dvc_digest(data, MD5))
        assert file_matches(descriptor, dvc_digest(data, MD5_DOS2UNIX))
        assert not file_matches(descriptor, dvc_digest(data[:-1], MD5))
    finally:
        os.close(descriptor)


def test_only_hashes_of_dvc_are_known() -> None:
    with pytest.raises(ValueError, match=GIT_SHA1):
        Hasher(GIT_SHA1)
