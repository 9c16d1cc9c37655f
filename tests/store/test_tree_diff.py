"""Differences of compiled trees, held against the same asked of two dictionaries."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.local_cache import LocalCache
from store.oid import GIT_SHA256, MD5_DOS2UNIX
from store.tree import DIRECTORY, Tree
from store.tree_compiler import Leaf, compile_tree, leaf_flags, write_tree
from store.tree_diff import Change, Kind, diff_trees

names = st.sampled_from([b"a", b"b", b"a.b", b"\xff", b"c d", b"A"])
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join)
contents = st.integers(0, 12)
Files = Mapping[bytes, int]


def drop_clashes(files: dict[bytes, int]) -> dict[bytes, int]:
    """Without files that are also a directory of another."""
    above = {path[:place] for path in files for place, byte in enumerate(path) if byte == 0x2F}
    return {path: content for path, content in files.items() if path not in above}


versions = st.dictionaries(paths, contents, max_size=30).map(drop_clashes)


def digest(content: int) -> bytes:
    return hashlib.md5(b"%d" % content, usedforsecurity=False).digest()


def make(directory: Path, name: str, *leaves: Leaf) -> Tree:
    path = directory / f"{name}.tree"
    write_tree(compile_tree(list(leaves), name), path)
    return Tree.open(path)


def make_version(directory: Path, name: str, files: Files) -> Tree:
    return make(directory, name, *(Leaf(path, digest(content), content) for path, content in files.items()))


def differ(old: Tree, new: Tree, cache: Path, *, renames: bool = True) -> list[Change]:
    found = diff_trees(old, new, renames=renames)
    changes = list(found.changes(LocalCache(cache)))
    assert len(changes) == len(found)
    return changes


def model(old: Files, new: Files) -> Counter[tuple[Kind, bytes, bytes]]:
    """What two dictionaries differ in: (kind, old path, new path)."""
    found = Counter((Kind.CHANGED, path, path) for path in old.keys() & new.keys() if old[path] != new[path])
    gone, come = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
    lost, won = Counter(old[path] for path in gone), Counter(new[path] for path in come)
    moved = {content for content in lost if lost[content] == won[content] == 1}
    whence = {old[path]: path for path in gone}
    found.update((Kind.RENAMED, whence[new[path]], path) for path in come if new[path] in moved)
    found.update((Kind.ADDED, b"", path) for path in come if new[path] not in moved)
    found.update((Kind.REMOVED, path, b"") for path in gone if old[path] not in moved)
    return found


def describe(change: Change) -> tuple[Kind, bytes, bytes]:
    old, new = (os.fsencode(side.path) if side else b"" for side in (change.old, change.new))
    return change.kind, old, new


@given(versions, versions)
def test_a_diff_is_that_of_two_dictionaries(
    tmp_path_factory: pytest.TempPathFactory, old: Files, new: Files
) -> None:
    directory = tmp_path_factory.mktemp("trees")
    trees = [make_version(directory, name, files) for name, files in (("old", old), ("new", new))]
    changes = differ(trees[0], trees[1], directory)
    assert Counter(map(describe, changes)) == model(old, new)
    places = [(os.fsencode((change.new or change.old).path)).split(b"/") for change in changes]  # type: ignore[union-attr]  # one is there
    assert places == sorted(places)
    for change in changes:
        for side, files in ((change.old, old), (change.new, new)):
            if side:
                content = files[os.fsencode(side.path)]
                assert (side.size, side.oid.raw) == (content, digest(content))


@given(versions)
def test_a_version_does_not_differ_from_itself(
    tmp_path_factory: pytest.TempPathFactory, files: Files
) -> None:
    directory = tmp_path_factory.mktemp("trees")
    one, other = (make_version(directory, name, files) for name in ("one", "other"))
    assert not len(diff_trees(one, other))


def test_without_renames_they_are_removals_and_additions(tmp_path: Path) -> None:
    old, new = make_version(tmp_path, "old", {b"a": 1}), make_version(tmp_path, "new", {b"b": 1})
    assert [change.kind for change in differ(old, new, tmp_path)] == [Kind.RENAMED]
    kinds = [change.kind for change in differ(old, new, tmp_path, renames=False)]
    assert kinds == [Kind.REMOVED, Kind.ADDED]


def test_what_several_files_have_is_no_rename(tmp_path: Path) -> None:
    old = make_version(tmp_path, "old", {b"a": 1, b"b": 1})
    new = make_version(tmp_path, "new", {b"c": 1})
    kinds = [change.kind for change in differ(old, new, tmp_path)]
    assert kinds == [Kind.REMOVED, Kind.REMOVED, Kind.ADDED]


def test_empty_files_are_not_followed(tmp_path: Path) -> None:
    empty = hashlib.md5(b"", usedforsecurity=False).digest()
    old, new = make(tmp_path, "old", Leaf(b"a", empty, 0)), make(tmp_path, "new", Leaf(b"b", empty, 0))
    assert [change.kind for change in differ(old, new, tmp_path)] == [Kind.REMOVED, Kind.ADDED]


def test_a_file_that_becomes_a_directory(tmp_path: Path) -> None:
    old, new = make_version(tmp_path, "old", {b"x": 1}), make_version(tmp_path, "new", {b"x/y/z": 2})
    assert list(map(describe, differ(old, new, tmp_path))) == [
        (Kind.REMOVED, b"x", b""),
        (Kind.ADDED, b"", b"x/y/z"),
    ]
    assert list(map(describe, differ(new, old, tmp_path))) == [
        (Kind.ADDED, b"", b"x"),
        (Kind.REMOVED, b"x/y/z", b""),
    ]


def test_a_mode_is_a_difference(tmp_path: Path) -> None:
    old = make(tmp_path, "old", Leaf(b"run", digest(1), 1))
    new = make(tmp_path, "new", Leaf(b"run", digest(1), 1, leaf_flags(executable=True)))
    [change] = differ(old, new, tmp_path)
    assert change.old and change.new
    assert (change.kind, change.old.executable, change.new.executable) == (Kind.CHANGED, False, True)


def test_equal_digests_of_both_algorithms_are_equal_content(tmp_path: Path) -> None:
    leaves = [Leaf(b"d/%d" % number, digest(number), number) for number in range(100)]
    legacy = leaf_flags(algorithm=MD5_DOS2UNIX)
    old = make(tmp_path, "old", *(leaf._replace(flags=legacy) for leaf in leaves))
    new = make(tmp_path, "new", *leaves, Leaf(b"d/x", digest(1000)))
    assert list(map(describe, differ(old, new, tmp_path))) == [(Kind.ADDED, b"", b"d/x")]


def test_trees_with_digests_of_other_lengths(tmp_path: Path) -> None:
    leaves = [Leaf(b"d/a", digest(1), 1), Leaf(b"d/b", digest(2), 2)]
    old = make(tmp_path, "old", *leaves)
    wide = Leaf(b"wide", bytes(range(32)), 3, leaf_flags(algorithm=GIT_SHA256))
    new = make(tmp_path, "new", leaves[0], Leaf(b"d/b", digest(3), 3), wide)
    assert list(map(describe, differ(old, new, tmp_path))) == [
        (Kind.CHANGED, b"d/b", b"d/b"),
        (Kind.ADDED, b"", b"wide"),
    ]


def test_empty_directories_are_no_paths(tmp_path: Path) -> None:
    old, new = make(tmp_path, "old"), make(tmp_path, "new", Leaf(b"d", flags=DIRECTORY))
    assert differ(old, new, tmp_path) == []


def test_sizes_are_asked_of_the_cache(tmp_path: Path) -> None:
    content = b"content"
    oid = hashlib.md5(content, usedforsecurity=False)
    path = tmp_path / "files/md5" / oid.hexdigest()[:2] / oid.hexdigest()[2:]
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    old, new = make(tmp_path, "old"), make(tmp_path, "new", Leaf(b"a", oid.digest()), Leaf(b"b", digest(5)))
    sizes = [change.new.size for change in differ(old, new, tmp_path) if change.new]
    assert sizes == [7, None]


def test_a_tree_of_great_depth(tmp_path: Path) -> None:
    deep = b"/".join([b"d"] * 2000)
    old = make_version(tmp_path, "old", {deep + b"/x": 1})
    new = make_version(tmp_path, "new", {deep + b"/x": 2})
    [change] = differ(old, new, tmp_path)
    assert describe(change) == (Kind.CHANGED, deep + b"/x", deep + b"/x")


def test_large_directories_where_one_file_differs(tmp_path: Path) -> None:
    files = {b"d/%05d" % number: number for number in range(1000)}
    old, new = (
        make_version(tmp_path, "old", files),
        make_version(tmp_path, "new", {**files, b"d/00777": 5000}),
    )
    assert list(map(describe, differ(old, new, tmp_path))) == [(Kind.CHANGED, b"d/00777", b"d/00777")]
