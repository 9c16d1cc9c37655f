"""`DigestIndex` finds what a look at every row finds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.digest_index import DigestIndex
from store.oid import DIGEST_BYTES, GIT_SHA256, MD5, MD5_DOS2UNIX, Oid
from store.tree import Tree
from store.tree_compiler import Leaf, compile_tree, leaf_flags, write_tree

ALGORITHMS = (MD5, MD5_DOS2UNIX, GIT_SHA256)
oids = st.builds(
    lambda algorithm, start, rest: Oid.from_bytes(
        (start + bytes([rest]) * 32)[: DIGEST_BYTES[algorithm]], algorithm
    ),
    st.sampled_from(ALGORITHMS),
    st.sampled_from([b"\x00\x00", b"\x00\x01", b"\x01\x00", b"\xff\xff"]),  # many to a bucket
    st.integers(0, 3),
)


@given(st.lists(oids, max_size=30), oids)
def test_it_finds_what_is_there(
    tmp_path_factory: pytest.TempPathFactory, listed: list[Oid], other: Oid
) -> None:
    leaves = [
        Leaf(b"below/%d" % place, oid.raw, 1, leaf_flags(algorithm=oid.algorithm))
        for place, oid in enumerate(listed)
    ]
    path: Path = tmp_path_factory.mktemp("tree") / "t.tree"
    write_tree(compile_tree(leaves, "t"), path)
    tree = Tree.open(path)
    index = DigestIndex(tree)
    for oid in {*listed, other}:
        assert index.find(oid) == sorted(tree.rows_of(oid))
        assert index.looks(oid) >= len(index.find(oid))
