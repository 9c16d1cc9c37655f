"""Many entries at once become the same columns as one by one, and whatever is wrong is seen."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import store.version
from store.errors import ManifestInvalid, ObjectCorrupt
from store.git.files import GitEntry
from store.listing import list_files
from store.listing_compiler import compile_listing
from store.manifest import SIZE_MAX, Entry, check_entries, manifest_oid, serialize_manifest
from store.oid import MD5, Oid
from store.tree import UNKNOWN
from store.tree_cache import TreeCache
from store.tree_compiler import Leaf, TreeImage, compile_tree, leaf_flags
from store.version import GitPart, Materials, Part, Version, obtain_tree

PLAIN, EXECUTABLE = leaf_flags(algorithm=MD5), leaf_flags(executable=True, algorithm=MD5)

# What sorts before a slash and behind it, what takes several bytes, and lengths around that of a word.
letters = st.sampled_from("aab-./\0\x01é\udcff\U0001f600")
names = st.one_of(st.text(letters, max_size=4), st.sampled_from(["", ".", "..", "a" * 7, "a" * 8, "a" * 255]))
paths = st.lists(names, min_size=1, max_size=5).map("/".join)
good_names = st.one_of(
    st.text(st.sampled_from("ab-.\x01é\udcff"), min_size=1, max_size=3).filter(
        lambda n: n not in (".", "..")
    ),
    st.sampled_from(["a" * 7, "a" * 8, "a" * 255]),
)
good_paths = st.lists(good_names, min_size=1, max_size=4).map("/".join)
sizes = st.one_of(st.none(), st.integers(0, 9), st.sampled_from([-1, SIZE_MAX, SIZE_MAX + 1]))
digests = st.sampled_from(["0" * 32, "1f" * 16, "A0" * 16, "0" * 31, "é" * 32])


def entry(path: str, size: int | None = None, *, isexec: bool = False) -> Entry:
    name = path.encode("utf-8", "surrogatepass")
    return Entry(path, hashlib.md5(name, usedforsecurity=False).hexdigest(), size, isexec)


def compile_one_by_one(entries: list[Entry]) -> TreeImage | None:
    try:
        check_entries(entries, "m")
        leaves = [
            Leaf(
                os.fsencode(one.relpath),
                bytes.fromhex(one.md5),
                UNKNOWN if one.size is None else one.size,
                EXECUTABLE if one.isexec else PLAIN,
            )
            for one in entries
        ]
        return compile_tree(leaves, "m")
    except ManifestInvalid:
        return None


def compile_at_once(entries: list[Entry]) -> TreeImage | None:
    listing = list_files(entries)
    try:
        return compile_listing(listing, "m", PLAIN, EXECUTABLE) if listing is not None else None
    except ManifestInvalid:
        return None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.builds(entry, good_paths, st.none() | st.integers(0, 9), isexec=st.booleans()), min_size=1)
)
@example([entry("train/a"), entry("train-x/a"), entry("train.json")])
@example([entry("a" * 8 + "/b"), entry("a" * 8), entry("b")])
@example([entry("a" * 7), entry("a" * 7 + "/b")])
@example([entry("a" * 7), entry("a" * 7)])
@example([entry("/".join("a" * 2000)), entry("/".join("a" * 1999) + "/b")])
@example([entry("é" * 128)])
@example([entry("/".join(["a" * 255] * 16))])
def test_what_is_right_is_compiled_alike(entries: list[Entry]) -> None:
    assert compile_at_once(entries) == compile_one_by_one(entries)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.builds(Entry, paths, digests, sizes), max_size=3),
    st.lists(st.builds(entry, good_paths), min_size=1),
)
@example([Entry("a", "0" * 32, SIZE_MAX)], [entry("b", 1)])
@example([Entry("a", " " * 32)], [entry("b")])
@example([Entry("a\0b", "0" * 32)], [entry("c")])
@example([Entry("a/", "0" * 32)], [entry("b")])
@example([Entry("a/..", "0" * 32)], [entry("b")])
@example([Entry("\ud800", "0" * 32)], [entry("b")])
@example([Entry("/".join(["a" * 250] * 17), "0" * 32)], [entry("b")])
def test_what_is_wrong_is_seen(odd: list[Entry], entries: list[Entry]) -> None:
    assert compile_at_once([*odd, *entries]) == compile_one_by_one([*odd, *entries])


class OneManifest(Materials):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_manifest(self, oid: Oid) -> bytes:
        return self._data

    def list_git(self, part: GitPart) -> Iterable[GitEntry]:
        raise NotImplementedError


def test_a_large_manifest_is_compiled_at_once_and_faults_are_named(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_it(paths: list[str]) -> bytes:
        data = serialize_manifest((path, "0" * 32) for path in paths)
        version = Version((Part("", manifest_oid(data)),))
        trees = TreeCache(tmp_path_factory.mktemp("trees"))
        return obtain_tree(version, OneManifest(data), trees, "m").read_bytes()

    listed = [f"{number % 7}-{number % 3}/{number:04}" for number in range(500)]
    slowly = compile_it(listed)
    monkeypatch.setattr(store.version, "MANY", 400)
    monkeypatch.setattr(store.version, "LARGE_BYTES", 400)
    with monkeypatch.context() as without:
        without.setattr(store.version, "compile_tree", None)  # it is not asked
        assert compile_it(listed) == slowly
    with pytest.raises(ManifestInvalid, match=r"entry 1: '\.\./x' is not a path inside"):
        compile_it([*listed, "../x"])
    with pytest.raises(ManifestInvalid, match="'0-0' is both a file and a directory"):
        compile_it([*listed, "0-0"])


@pytest.mark.parametrize("large", [0, 1 << 20])
def test_another_manifest_is_not_blamed_for_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(store.version, "LARGE_BYTES", large)
    version = Version((Part("", manifest_oid(b"[]")),))
    with pytest.raises(ObjectCorrupt, match="does not have the content that its name promises"):
        obtain_tree(version, OneManifest(b"[1"), TreeCache(tmp_path), "m")
