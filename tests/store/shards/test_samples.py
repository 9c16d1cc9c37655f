"""Files that share a basename stay together, and a shuffle is the same for ever."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from store.shards.samples import Samples, group_samples, path_of, sample_key
from store.tree import DIRECTORY, Tree
from store.tree_compiler import Leaf, leaf_flags
from tests.store.shards.conftest import NewVersion

Listed = list[list[bytes]]

names = st.text("ab.-~", min_size=1, max_size=5).filter(lambda n: n not in (".", "..")).map(str.encode)
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join)


def listed(tree: Tree, samples: Samples) -> Listed:
    return [
        [path_of(tree, row) for row in samples.of(number, number + 1).tolist()]
        for number in range(len(samples))
    ]


def drop_clashes(some: list[bytes]) -> list[bytes]:
    """Without paths that are also a directory of another."""
    above = {path[:place] for path in some for place, byte in enumerate(path) if byte == 0x2F}
    return [path for path in some if path not in above]


def grouped(tree: Tree) -> Listed:
    """The same in the plainest way."""
    found: dict[bytes, list[bytes]] = {}
    for row in range(tree.rows):
        if not tree.is_directory(row):
            path = path_of(tree, row)
            found.setdefault(sample_key(path), []).append(path)
    return list(found.values())


@given(st.lists(paths, unique=True, max_size=40).map(drop_clashes))
def test_every_file_is_in_the_sample_of_its_key(new_version: NewVersion, some: list[bytes]) -> None:
    tree = new_version(dict.fromkeys(some, b"")).tree
    samples = group_samples(tree)
    assert listed(tree, samples) == grouped(tree)
    assert samples.path_length[1:].tolist() == [len(path_of(tree, row)) for row in range(1, tree.rows)]
    shuffled = group_samples(tree, 7)
    assert sorted(listed(tree, shuffled)) == sorted(listed(tree, samples))


@given(paths)
def test_keys_are_those_of_webdataset(path: bytes) -> None:
    """But for what it skips, and for names that begin with a dot, of which it makes the same groups."""
    theirs, _ = base_plus_ext(path.decode())
    if theirs is not None:
        assert sample_key(path).decode() == theirs


def test_names_without_a_dot_and_with_several(new_version: NewVersion) -> None:
    some = [b"a", b"a-1.jpg", b"a.b.c", b"a.jpg", b"a.x/z", b"b.tar.gz", b".git", b".x", b"c/a.jpg", b"a-1"]
    tree = new_version(dict.fromkeys(some, b"")).tree
    assert listed(tree, group_samples(tree)) == [
        [b".git", b".x"],
        [b"a", b"a.b.c", b"a.jpg"],
        [b"a-1", b"a-1.jpg"],
        [b"b.tar.gz"],
        [b"a.x/z"],
        [b"c/a.jpg"],
    ]


def test_links_and_empty_directories_are_left_out(new_tree: Callable[[list[Leaf]], Tree]) -> None:
    kinds = {b"a.jpg": 0, b"a.link": leaf_flags(symlink=True), b"e": DIRECTORY}
    tree = new_tree([Leaf(path, bytes(16), 3, flags) for path, flags in kinds.items()])
    assert listed(tree, group_samples(tree)) == [[b"a.jpg"]]


def test_nothing_in_nothing(new_tree: Callable[[list[Leaf]], Tree]) -> None:
    tree = new_tree([])
    assert len(group_samples(tree)) == 0
    assert len(group_samples(tree, 3)) == 0


@pytest.mark.parametrize(
    ("seed", "order"),
    [
        (0, "c2eb8d49506af137"),
        (1, "2c54f7810b93de6a"),
        (2**64 - 1, "ec658fb3749a01d2"),
    ],
)
def test_a_shuffle_never_changes(new_version: NewVersion, seed: int, order: str) -> None:
    """These orders have been seen: another one needs another name."""
    some = [b"d/%x.%s" % (number, kind) for number in range(10) for kind in (b"cls", b"jpg")]
    some += [b"%x.jpg" % number for number in range(10, 16)]
    tree = new_version(dict.fromkeys(some, b"")).tree
    found = listed(tree, group_samples(tree, seed))
    assert [len(sample) for sample in found] == [2 if sample[0][:2] == b"d/" else 1 for sample in found]
    assert "".join(sample_key(sample[0])[-1:].decode() for sample in found) == order


def test_what_is_added_leaves_the_others_in_their_order(new_version: NewVersion) -> None:
    some = [b"%d.jpg" % number for number in range(100)]
    few = new_version(dict.fromkeys(random.Random(1).sample(some, 50), b""))
    all_of_them = new_version(dict.fromkeys(some, b""))
    order = listed(all_of_them.tree, group_samples(all_of_them.tree, 5))
    assert order != sorted(order)
    assert [sample for sample in order if sample[0] in few.files] == listed(
        few.tree, group_samples(few.tree, 5)
    )
