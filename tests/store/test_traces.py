"""The order in which an epoch read a version is told from everything else, and damage to it is noticed."""

from __future__ import annotations

import itertools
import os
import random
from array import array
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from store.traces import (
    FEWEST,
    LAG,
    MAX_AGAIN,
    SHORTEST,
    EpochRecorder,
    is_worth_keeping,
    read_trace,
    trace_path,
    write_trace,
)
from store.tree import Tree
from store.tree_compiler import Leaf, compile_tree, write_tree


def make(directory: Path, files: int, name: str = "t") -> Tree:
    leaves = [Leaf(b"%d" % number, bytes([number]) * 16) for number in range(files)]
    path = directory / f"{name}.tree"
    write_tree(compile_tree(leaves, name), path)
    return Tree.open(path)


def record(opens: Sequence[int], rows: int) -> list[list[int]]:
    """The epochs that these opens are, the last one unfinished."""
    recorder = EpochRecorder(rows)
    ended = [list(epoch) for row in opens if (epoch := recorder.opened(row)) is not None]
    return [*ended, list(recorder.order)]


@given(
    st.integers(2, 300),
    st.integers(1, 5),
    st.integers(0, 1000),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_epochs_in_any_order(files: int, epochs: int, seed: int, twice: bool) -> None:
    """Each file once an epoch, or opened twice, for a header and then all of it."""
    shuffle = random.Random(seed)
    orders = [shuffle.sample(range(files), files) for _ in range(epochs)]
    # A file that is the last of one epoch and the first of the next is taken to be opened twice.
    assume(all(order[-1] != following[0] for order, following in itertools.pairwise(orders)))
    opens = [row for order in orders for row in order for _ in range(2 if twice else 1)]
    assert record(opens, files) == (orders if files >= FEWEST else orders[:1])


def test_workers_that_read_a_batch_each() -> None:
    """They are a batch apart, and begin the next epoch together."""
    batches = [list(range(start, start + 8)) for start in range(0, 256, 8)]
    opens = [
        row
        for start in range(0, len(batches), 4)
        for together in zip(*batches[start : start + 4], strict=True)
        for row in together
    ]
    assert record(opens * 3, 256) == [opens] * 3


def test_a_look_at_a_few_files_does_not_end_an_epoch() -> None:
    recorder = EpochRecorder(200)
    for row in range(150):
        assert recorder.opened(row) is None
        if row % 10 == 9 and row > 30:
            for again in range(7):
                assert recorder.opened(again) is None
    assert list(recorder.order) == list(range(150))


def test_what_was_just_read_is_not_begun_anew() -> None:
    """A file that is opened a thousand times, and the batch before the last once more."""
    recorder = EpochRecorder(5000)
    for row in range(4000):
        recorder.opened(row)
    for _ in range(1000):
        assert recorder.opened(3999) is None
    for row in range(4000 - LAG // 2, 4000):
        assert recorder.opened(row) is None
    assert recorder.opened(4000) is None
    assert len(recorder.order) == 4001


def test_a_validation_set_belongs_to_the_epoch() -> None:
    train, validation = list(range(100)), list(range(100, 120))
    assert record([*train, *validation, *train[::-1], *validation], 120) == [
        [*train, *validation],
        [*train[::-1], *validation],
    ]


def test_files_that_wait_for_a_decision_are_bounded() -> None:
    rows = 4 * MAX_AGAIN
    recorder = EpochRecorder(rows)
    for row in range(rows):
        recorder.opened(row)
    for row in range(rows - LAG, rows):
        assert recorder.opened(row) is None
    ended = [recorder.opened(row) for row in range(8)]
    assert [epoch is not None for epoch in ended] == [False] * 7 + [True]


def test_what_takes_the_place_of_what() -> None:
    kept = array("I", range(100))
    shuffled = array("I", reversed(kept))
    assert is_worth_keeping(kept, None, ended=False)
    assert not is_worth_keeping(kept, array("I", kept), ended=True)
    assert is_worth_keeping(shuffled, kept, ended=True)
    assert is_worth_keeping(shuffled[:50], kept, ended=True)
    assert not is_worth_keeping(shuffled[:49], kept, ended=True)
    assert is_worth_keeping(shuffled[:90], kept, ended=False)
    assert not is_worth_keeping(shuffled[:89], kept, ended=False)
    assert not is_worth_keeping(array("I", range(SHORTEST - 1)), None, ended=True)


def test_a_trace_is_kept(tmp_path: Path) -> None:
    tree = make(tmp_path, 20)
    path = trace_path(tmp_path / "t.tree")
    assert read_trace(path, tree) is None
    order = array("I", random.Random(1).sample(range(1, 21), 20))
    write_trace(path, tree, order)
    write_trace(path, tree, order)
    assert read_trace(path, tree) == order
    assert sorted(one.name for one in tmp_path.iterdir()) == ["t.trace", "t.tree"]
    assert path.stat().st_mode & 0o077 == 0


def test_damage_at_any_byte(tmp_path: Path) -> None:
    tree = make(tmp_path, 12)
    path = trace_path(tmp_path / "t.tree")
    write_trace(path, tree, array("I", range(1, 13)))
    data = path.read_bytes()
    for place in range(len(data)):
        for turned in (0x01, 0x80):
            damaged = bytearray(data)
            damaged[place] ^= turned
            path.write_bytes(damaged)
            assert read_trace(path, tree) is None, place
        path.write_bytes(data[:place])
        assert read_trace(path, tree) is None, place
    path.write_bytes(data + b"\0")
    assert read_trace(path, tree) is None
    path.write_bytes(data)
    assert read_trace(path, tree) is not None


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_anything_else(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    directory = tmp_path_factory.mktemp("trace")
    tree = make(directory, 3)
    (directory / "x").write_bytes(data)
    assert read_trace(directory / "x", tree) is None


def test_the_trace_of_another_tree_and_what_is_no_file(tmp_path: Path) -> None:
    tree, other = make(tmp_path, 20), make(tmp_path, 21, "other")
    path = tmp_path / "t.trace"
    write_trace(path, other, array("I", range(1, 21)))
    assert read_trace(path, tree) is None
    write_trace(path, tree, array("I", [tree.rows]))
    assert read_trace(path, tree) is None
    write_trace(path, tree, array("I", range(1, 21)))
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(path)
    os.mkfifo(pipe)
    for place in (link, pipe, tmp_path):
        assert read_trace(place, tree) is None


def test_a_trace_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    tree = make(tmp_path, 5)
    place = tmp_path / "t.trace"
    place.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_trace(place, tree, array("I", range(1, 6)))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["t.trace", "t.tree"]
