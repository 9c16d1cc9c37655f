"""Sizes that are kept beside a tree are those that were learnt, as long as they hold; damage is noticed."""

from __future__ import annotations

import os
import shutil
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.layouts import object_path
from store.learnt_sizes import (
    KeptSizes,
    LearntSizes,
    Stamps,
    kept_path,
    read_kept,
    take_stamps,
    write_kept,
)
from store.manifest import SIZE_MAX
from store.oid import MD5, MD5_DOS2UNIX, Oid
from store.sizes import How
from store.tree import PREAMBLE, UNKNOWN, Tree
from store.tree_compiler import Leaf, compile_tree, leaf_flags, write_tree

LATER_NS = 1 << 62
"""A time at which every directory has been at rest for long."""


def make(directory: Path, *sizes: int, algorithm: str = MD5) -> Tree:
    """A tree of files `0`, `1` and so on; the first byte of a digest is the file's number."""
    flags = leaf_flags(algorithm=algorithm)
    leaves = [Leaf(b"%d" % n, bytes([n]) * 16, size, flags) for n, size in enumerate(sizes)]
    path = directory / "t.tree"
    write_tree(compile_tree(leaves, "t"), path)
    return Tree.open(path)


def no_stamps() -> Stamps:
    return take_stamps([], LATER_NS)


def row_of(tree: Tree, number: int) -> int:
    row = tree.find(b"%d" % number)
    assert row is not None
    return row


def begun(tree: Tree, kept: KeptSizes | None = None) -> LearntSizes:
    sizes = LearntSizes(tree)
    sizes.begin(kept)
    return sizes


def pass_on(sizes: LearntSizes, tree: Tree, path: Path, before: Stamps, now: Stamps) -> LearntSizes:
    """What the next daemon has."""
    kept = sizes.keep()
    assert kept is not None
    write_kept(path, tree, kept, before)
    return begun(tree, read_kept(path, tree, now))


told = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 1 << 40), st.sampled_from(list(How))), max_size=10
)


@settings(max_examples=15, deadline=None)
@given(told)
def test_the_next_mount_knows_what_was_learnt(
    tmp_path_factory: pytest.TempPathFactory, learnt: list[tuple[int, int, How]]
) -> None:
    directory = tmp_path_factory.mktemp("trees")
    tree = make(directory, *[UNKNOWN] * 4, 77)
    sizes = begun(tree)
    for number, size, how in learnt:
        sizes.learn(row_of(tree, number), size, how)
    after = pass_on(sizes, tree, directory / "t.sizes", no_stamps(), no_stamps())
    assert list(after.column) == list(sizes.column)
    assert (after.unknown, after.bytes_known) == (sizes.unknown, sizes.bytes_known)
    assert after.unknown == list(after.column).count(UNKNOWN)
    assert after.bytes_known == sum(size for size in after.column if size != UNKNOWN)
    rows = range(tree.rows)
    assert [after.is_certain(row) for row in rows] == [sizes.is_certain(row) for row in rows]
    assert after.column[row_of(tree, 4)] == 77


@pytest.mark.parametrize("change", [0x01, 0xFF])
def test_no_damaged_byte_is_believed(tmp_path: Path, change: int) -> None:
    directory, learnt = tmp_path, (5, 0, 1 << 40)
    tree = make(directory, UNKNOWN, UNKNOWN, UNKNOWN)
    path = directory / "t.sizes"
    sizes = begun(tree)
    for number, size in enumerate(learnt):
        sizes.learn(row_of(tree, number), size, How.REMOTE)
    pass_on(sizes, tree, path, no_stamps(), no_stamps())
    whole = path.read_bytes()
    _, header, _ = PREAMBLE.unpack_from(whole)
    unnoticed = []
    stamps, file = no_stamps(), os.open(path, os.O_WRONLY)
    for place in range(len(whole)):
        os.pwrite(file, bytes([whole[place] ^ change]), place)
        kept = read_kept(path, tree, stamps)
        os.pwrite(file, whole[place : place + 1], place)
        if kept is not None:
            assert list(begun(tree, kept).column) == list(sizes.column)
            unnoticed.append(place)
    os.close(file)
    padding = range(PREAMBLE.size + header, PREAMBLE.size + header + 8)
    assert set(unnoticed) <= set(padding)
    for length in range(0, len(whole), 50):
        path.write_bytes(whole[:length])
        assert read_kept(path, tree, no_stamps()) is None


def test_sizes_of_another_tree_are_none(tmp_path: Path) -> None:
    tree = make(tmp_path, UNKNOWN, UNKNOWN)
    sizes = begun(tree)
    sizes.learn(row_of(tree, 0), 5, How.REMOTE)
    path = tmp_path / "t.sizes"
    assert pass_on(sizes, tree, path, no_stamps(), no_stamps()).unknown == 1
    for other in (make(tmp_path, UNKNOWN, 3), make(tmp_path, UNKNOWN, UNKNOWN, algorithm=MD5_DOS2UNIX)):
        assert read_kept(path, other, no_stamps()) is None


def test_only_a_file_of_ones_own_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make(tmp_path, UNKNOWN)
    path = tmp_path / "t.sizes"
    pass_on(begun(tree), tree, path, no_stamps(), no_stamps())
    assert path.stat().st_mode & 0o777 == 0o600
    link = tmp_path / "link.sizes"
    link.symlink_to(path)
    assert read_kept(path, tree, no_stamps()) is not None
    assert read_kept(link, tree, no_stamps()) is None
    os.mkfifo(tmp_path / "fifo.sizes")
    assert read_kept(tmp_path / "fifo.sizes", tree, no_stamps()) is None
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert read_kept(path, tree, no_stamps()) is None


class Cache:
    """Objects of the digests that `make` gives."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for number in range(4):
            self.put(number, b"x" * number)
            # Long ago: two changes within a tick of the file system's clock would show the same.
            os.utime(root / "files" / "md5" / f"{number:02x}", (1e9, 1e9))

    def put(self, number: int, data: bytes) -> None:
        path = self.root / object_path(Oid(bytes([number]).hex() * 16))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name("new")
        temporary.write_bytes(data)
        temporary.replace(path)

    def remove(self, number: int) -> None:
        (self.root / object_path(Oid(bytes([number]).hex() * 16))).unlink()


@pytest.mark.parametrize("change", ["put", "remove", "directory", "link"])
def test_what_a_file_told_holds_as_long_as_its_directory_is_left_alone(tmp_path: Path, change: str) -> None:
    cache = Cache(tmp_path / "cache")
    tree = make(tmp_path, *[UNKNOWN] * 4)
    sizes = begun(tree)
    before = take_stamps([cache.root], LATER_NS)
    for number in range(4):
        sizes.learn(row_of(tree, number), number, How.REMOTE if number == 3 else How.STAT)
    path = tmp_path / "t.sizes"
    same = pass_on(sizes, tree, path, before, take_stamps([cache.root], LATER_NS))
    assert same.unknown == 0
    for number in (1, 3):
        place = cache.root / "files" / "md5" / f"{number:02x}"
        if change == "put":
            cache.put(number, b"other")
        elif change == "remove":
            cache.remove(number)
        else:
            shutil.copytree(place, tmp_path / f"copy{number}")
            shutil.rmtree(place)
            if change == "link":
                place.symlink_to(tmp_path / f"copy{number}")
    after = pass_on(sizes, tree, path, before, take_stamps([cache.root], LATER_NS))
    assert [after.column[row_of(tree, number)] for number in range(4)] == [0, UNKNOWN, 2, 3]
    assert (after.unknown, after.bytes_known) == (1, 5)


def test_files_in_a_directory_that_just_changed_are_asked_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    tree = make(tmp_path, UNKNOWN, UNKNOWN)
    sizes = begun(tree)
    place = cache.root / "files" / "md5" / "00"
    fresh = take_stamps([cache.root], place.stat().st_ctime_ns + 1)
    sizes.learn(row_of(tree, 0), 0, How.STAT)
    sizes.learn(row_of(tree, 1), 1, How.HASHED)
    after = pass_on(sizes, tree, tmp_path / "t.sizes", fresh, fresh)
    assert [after.column[row_of(tree, number)] for number in (0, 1)] == [UNKNOWN, 1]


def test_another_cache_in_front_makes_them_asked_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    before = take_stamps([cache.root], LATER_NS)
    assert before == take_stamps([cache.root], LATER_NS)
    both = take_stamps([tmp_path / "none", cache.root], LATER_NS)
    assert not any(old == new for old, new in zip(before[MD5], both[MD5], strict=True))


def test_what_was_told_is_only_corrected_by_what_was_hashed(tmp_path: Path) -> None:
    tree = make(tmp_path, UNKNOWN, 9)
    sizes = begun(tree)
    row, known = row_of(tree, 0), row_of(tree, 1)
    assert not sizes.learn(row, 5, How.STAT)
    assert not sizes.learn(row, 6, How.REMOTE)
    assert not sizes.is_certain(row)
    assert sizes.learn(row, 7, How.HASHED)
    assert not sizes.learn(row, 8, How.HASHED)
    assert not sizes.learn(known, 8, How.HASHED)
    assert [sizes.column[row], sizes.column[known], sizes.bytes_known] == [7, 9, 16]
    assert sizes.is_certain(row)


def test_two_files_may_have_the_older_hash(tmp_path: Path) -> None:
    tree = make(tmp_path, UNKNOWN, algorithm=MD5_DOS2UNIX)
    sizes = begun(tree)
    row = row_of(tree, 0)
    sizes.learn(row, 7, How.HASHED)
    assert not sizes.is_certain(row)
    assert sizes.learn(row, 8, How.HASHED)


def test_sizes_that_no_file_system_has_are_not_believed(tmp_path: Path) -> None:
    tree = make(tmp_path, UNKNOWN, UNKNOWN)
    sizes = begun(tree)
    sizes.learn(row_of(tree, 0), SIZE_MAX, How.REMOTE)
    sizes.learn(row_of(tree, 1), SIZE_MAX, How.REMOTE)
    assert (sizes.bytes_known, sizes.unknown) == (SIZE_MAX, 1)


def test_what_is_learnt_before_the_kept_ones_are_read_stays(tmp_path: Path) -> None:
    tree = make(tmp_path, UNKNOWN, UNKNOWN, UNKNOWN)
    path = tmp_path / "t.sizes"
    first = begun(tree)
    first.learn(row_of(tree, 0), 1, How.REMOTE)
    pass_on(first, tree, path, no_stamps(), no_stamps())
    sizes = LearntSizes(tree)
    sizes.learn(row_of(tree, 0), 2, How.HASHED)
    sizes.learn(row_of(tree, 1), 3, How.REMOTE)
    sizes.begin(read_kept(path, tree, no_stamps()))
    assert [sizes.column[row_of(tree, n)] for n in range(3)] == [2, 3, UNKNOWN]
    assert (sizes.unknown, sizes.bytes_known) == (1, 5)


def test_nothing_is_left_when_they_cannot_be_written(tmp_path: Path) -> None:
    tree = make(tmp_path, UNKNOWN)
    kept = begun(tree).keep()
    assert kept is not None
    path = kept_path(tmp_path / "t.tree")
    path.mkdir()
    with pytest.raises(OSError):
        write_kept(path, tree, kept, no_stamps())
    assert sorted(found.name for found in tmp_path.iterdir()) == ["t.sizes", "t.tree"]


@settings(max_examples=25, deadline=None)
@given(
    known=st.lists(st.tuples(st.integers(0, 1199), st.integers(0, 9)), max_size=3),
    found=st.lists(st.tuples(st.integers(0, 1199), st.sampled_from([0, *How])), max_size=3),
    has_begun=st.booleans(),
)
def test_many_are_taken_in_as_if_each_were_learnt(
    tmp_path_factory: pytest.TempPathFactory,
    known: list[tuple[int, int]],
    found: list[tuple[int, int]],
    has_begun: bool,
) -> None:
    leaves = [Leaf(b"%04d" % n, b"%016d" % n, UNKNOWN, leaf_flags()) for n in range(1200)]
    path = tmp_path_factory.mktemp("trees") / "t.tree"
    write_tree(compile_tree(leaves, "t"), path)
    tree = Tree.open(path)
    size, how = array("q", range(1200)), bytearray([How.STAT]) * 1200
    for row, told in found:
        how[row] = told
        size[row] = 0 if not told else size[row]
    at_once, singly = LearntSizes(tree), LearntSizes(tree)
    for sizes in (at_once, singly):
        if has_begun:
            sizes.begin(None)
        for row, length in known:
            sizes.learn(1 + row, length, How.STAT)
    at_once.take(1, memoryview(size), memoryview(how))
    for row, told in enumerate(how):
        if told and singly.column[1 + row] == UNKNOWN:
            singly.learn(1 + row, size[row], How(told))
    assert list(at_once.column) == list(singly.column)
    assert at_once.keep() == singly.keep()
    if not has_begun:
        for sizes in (at_once, singly):
            sizes.begin(None)
        assert list(at_once.column) == list(singly.column)
