"""Compiled trees equal what they were compiled from, and damage is always noticed."""

from __future__ import annotations

import os
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import CacheUnusable, ManifestInvalid
from store.oid import GIT_SHA1, MD5, MD5_DOS2UNIX, Oid
from store.tree import DIRECTORY, PREAMBLE, ROOT_ROW, UNKNOWN, Tree, TreeDamaged
from store.tree_cache import TreeCache
from store.tree_compiler import Leaf, compile_tree, leaf_flags, write_tree

names = st.binary(min_size=1, max_size=6).filter(lambda n: not set(n) & {0, 0x2F} and n not in (b".", b".."))
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)


def digest(number: int) -> bytes:
    return number.to_bytes(16, "big")


def make(tmp_path: Path, *leaves: Leaf) -> Tree:
    path = tmp_path / "t.tree"
    write_tree(compile_tree(list(leaves), "t"), path)
    return Tree.open(path)


def drop_clashes(listed: list[bytes]) -> list[bytes]:
    """Without paths that are also a directory of another."""
    above = {path[:place] for path in listed for place, byte in enumerate(path) if byte == 0x2F}
    return [path for path in listed if path not in above]


@given(st.lists(paths, unique=True, max_size=40).map(drop_clashes))
def test_every_path_is_found_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, listed: list[bytes]
) -> None:
    leaves = [Leaf(path, digest(n), n * 10) for n, path in enumerate(listed)]
    tree = make(tmp_path_factory.mktemp("tree"), *leaves)
    assert tree.files == len(listed)
    for leaf in leaves:
        row = tree.find(leaf.path)
        assert row is not None
        assert not tree.is_directory(row)
        assert tree.path(row) == os.fsdecode(leaf.path)
        assert tree.digest_of(row) == leaf.digest
        assert tree.size[row] == leaf.size
        assert tree.find(leaf.path + b"x") is None or leaf.path + b"x" in listed
    found = set()
    stack = [ROOT_ROW]
    while stack:
        row = stack.pop()
        labels = [tree.name(child) for child in tree.children(row)]
        assert labels == sorted(set(labels))
        for child in tree.children(row):
            assert tree.parent[child] == row
            if tree.is_directory(child):
                assert len(tree.children(child)) > 0
                stack.append(child)
            else:
                found.add(os.fsencode(tree.path(child)))
    assert found == set(listed)


def test_the_rows_of_an_oid_are_its_files_alone(tmp_path: Path) -> None:
    wanted, other = b"ABABABABABABABAB", b"BABABABABABABABA"
    leaves = [
        Leaf(b"a", other, 1),
        Leaf(b"b/one", wanted, 1),
        Leaf(b"b/text", wanted, 1, leaf_flags(algorithm=MD5_DOS2UNIX)),
        Leaf(b"c", wanted, 1),
        Leaf(b"d", b"AB" * 8, 1),
    ]
    tree = make(tmp_path, *leaves)
    found = {tree.path(row) for row in tree.rows_of(Oid.from_bytes(wanted, MD5))}
    assert found == {"b/one", "c", "d"}
    assert [tree.path(row) for row in tree.rows_of(Oid.from_bytes(other, MD5))] == ["a"]
    assert tree.rows_of(Oid.from_bytes(digest(7), MD5)) == []


def test_an_empty_version_has_a_root(tmp_path: Path) -> None:
    tree = make(tmp_path)
    assert (tree.rows, tree.files, tree.bytes_known) == (1, 0, 0)
    assert tree.is_directory(ROOT_ROW)
    assert list(tree.children(ROOT_ROW)) == []
    assert tree.lookup(ROOT_ROW, b"a") is None


def test_flags_and_sizes(tmp_path: Path) -> None:
    tree = make(
        tmp_path,
        Leaf(b"a", digest(1), 5, leaf_flags(executable=True)),
        Leaf(b"b", digest(2), UNKNOWN, leaf_flags(algorithm=MD5_DOS2UNIX)),
    )
    a, b = tree.find(b"a"), tree.find(b"b")
    assert a is not None
    assert b is not None
    assert tree.oid(a).algorithm == MD5
    assert tree.oid(b).algorithm == MD5_DOS2UNIX
    assert (tree.bytes_known, tree.sizes_unknown) == (5, 1)


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ([b"a", b"a"], "'a' is there twice"),
        ([b"d/e/a", b"d/e/a"], "'d/e/a' is there twice"),
        ([b"x", b"x/y"], "'x' is both a file and a directory"),
        ([b"d/x/y", b"d/x"], "'d/x' is both a file and a directory"),
    ],
)
def test_clashes_are_refused_by_name(listed: list[bytes], reason: str) -> None:
    with pytest.raises(ManifestInvalid, match=reason):
        compile_tree([Leaf(path, digest(0)) for path in listed], "m")


def test_equal_subtrees_have_equal_digests_wherever_they_stand(tmp_path: Path) -> None:
    tree = make(
        tmp_path,
        Leaf(b"one/a", digest(1), 1),
        Leaf(b"one/s/b", digest(2), 1),
        Leaf(b"two/a", digest(1), 1),
        Leaf(b"two/s/b", digest(2), 1),
        Leaf(b"three/a", digest(1), 1),
        Leaf(b"three/s/b", digest(3), 1),
        Leaf(b"four/ab", digest(1), 1),
    )

    def digest_at(path: bytes) -> bytes:
        row = tree.find(path)
        assert row is not None
        return tree.digest_of(row)

    assert digest_at(b"one") == digest_at(b"two")
    assert len({digest_at(path) for path in (b"one", b"three", b"four", b"")}) == 4


def test_any_damaged_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "t.tree"
    write_tree(compile_tree([Leaf(b"d/a", digest(1), 5), Leaf(b"d/b", digest(2), 5)], "t"), path)
    whole = path.read_bytes()
    _, header_bytes, _ = PREAMBLE.unpack_from(whole)
    header = msgpack.unpackb(whole[PREAMBLE.size : PREAMBLE.size + header_bytes])
    meaningful = set(range(PREAMBLE.size + header_bytes))
    for offset, length, _ in header["columns"].values():
        meaningful |= set(range(offset, offset + length))
    unnoticed = set()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            Tree.open(path)
        except TreeDamaged:
            continue
        unnoticed.add(place)
    assert not unnoticed & meaningful


@pytest.mark.parametrize("length", [0, 1, 19, 20, 60, 200])
def test_a_file_cut_short_is_noticed(tmp_path: Path, length: int) -> None:
    path = tmp_path / "t.tree"
    write_tree(compile_tree([Leaf(b"a", digest(1), 5)], "t"), path)
    os.truncate(path, length)
    with pytest.raises(TreeDamaged):
        Tree.open(path)


def test_a_damaged_tree_counts_as_absent(tmp_path: Path) -> None:
    trees = TreeCache(tmp_path / "trees")
    assert not trees.has("k")
    trees.put("k", compile_tree([Leaf(b"a", digest(1), 5)], "t"))
    assert trees.has("k")
    assert (tmp_path / "trees").stat().st_mode & 0o777 == 0o700
    assert trees.path("k").stat().st_mode & 0o777 == 0o600
    trees.path("k").write_bytes(b"FUSEFS")
    assert not trees.has("k")


def test_a_tree_cache_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees = TreeCache(tmp_path)
    trees.put("k", compile_tree([], "t"))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(CacheUnusable, match="another user"):
        trees.has("k")


def test_no_part_of_a_tree_is_left_when_writing_fails(tmp_path: Path) -> None:
    image = compile_tree([Leaf(b"a", digest(1), 5)], "t")
    (tmp_path / "t.tree").mkdir()
    with pytest.raises(OSError):
        write_tree(image, tmp_path / "t.tree")
    assert [path.name for path in tmp_path.iterdir()] == ["t.tree"]


def test_deep_paths_cost_their_length(tmp_path: Path) -> None:
    deep = [b"/".join([b"d%d" % n] + [b"x"] * 1500 + [b"f"]) for n in range(20)]
    tree = make(tmp_path, *[Leaf(path, digest(0), 1) for path in deep])
    assert tree.rows == 1 + 20 * 1502


def test_directories_may_be_empty_and_links_are_told_apart(tmp_path: Path) -> None:
    link = leaf_flags(symlink=True, algorithm=GIT_SHA1)
    tree = make(
        tmp_path,
        Leaf(b"d/empty", flags=DIRECTORY),
        Leaf(b"d", flags=DIRECTORY),
        Leaf(b"d/link", b"l" * 20, 4, link),
        Leaf(b"d/md5", digest(7), 4),
    )
    empty, found, md5 = (tree.find(path) for path in (b"d/empty", b"d/link", b"d/md5"))
    assert empty is not None
    assert found is not None
    assert md5 is not None
    assert tree.is_directory(empty)
    assert list(tree.children(empty)) == []
    assert tree.is_symlink(found)
    assert not tree.is_symlink(md5)
    # Digests of two widths in one tree.
    assert tree.oid(found).raw == b"l" * 20
    assert tree.oid(md5).raw == digest(7)
    assert tree.files == 2


def test_an_empty_directory_clashes_with_a_file_of_its_name() -> None:
    with pytest.raises(ManifestInvalid, match="both a file and a directory"):
        compile_tree([Leaf(b"a", digest(0)), Leaf(b"a", flags=DIRECTORY)], "m")
