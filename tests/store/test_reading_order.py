"""Readers are followed along an order as loosely as loaders read it, and given up where it does not fit."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.reading_order import NEAR, PATIENCE, REACH, STRAYS, TRIMMED, Follower

MANY = 20_000


def ordered(rows: int, *, searching: bool = False, seed: int = 1) -> tuple[Follower, list[int]]:
    order = random.Random(seed).sample(range(rows), rows)
    return Follower(rows, order, searching=searching), order


def test_each_row_is_handed_out_once_and_not_too_far_ahead() -> None:
    follower, order = ordered(MANY)
    assert follower.take(10) == order[:10]
    assert follower.take(MANY) == order[10:REACH]
    assert follower.take(MANY) == []
    for row in order[:100]:
        follower.note(row)
    assert follower.take(MANY) == order[REACH : REACH + 100]


def test_what_was_read_before_it_was_handed_out_is_not() -> None:
    follower, order = ordered(MANY)
    follower.note(order[3])
    assert follower.take(5) == [*order[:3], *order[4:6]]
    assert follower.is_passed(order[3])
    assert not follower.is_passed(order[4])


@pytest.mark.parametrize("workers", [1, 8])
def test_workers_that_read_a_batch_each_are_followed(workers: int) -> None:
    follower, order = ordered(MANY, searching=True)
    batches = [order[start : start + 64] for start in range(0, 64 * 8 * 20, 64)]
    opens = [
        row
        for start in range(0, len(batches), workers)
        for together in zip(*batches[start : start + workers], strict=True)
        for row in together
    ]
    ahead: set[int] = set()
    missed = 0
    for row in opens:
        missed += row not in ahead
        follower.note(row)
        ahead.update(follower.take(32))
    assert missed <= PATIENCE + workers - 1
    assert follower.is_following


def test_an_order_that_does_not_fit_is_given_up() -> None:
    follower, order = ordered(MANY)
    others = iter(random.Random(2).sample(order, MANY))
    opens = 0
    while follower.is_following:
        follower.note(next(others))
        opens += 1
    assert STRAYS <= opens < 4 * STRAYS
    for row in others:
        follower.note(row)
        assert not follower.is_following
    assert follower.take(10) == []


def test_rows_that_are_not_in_the_order_are_strays() -> None:
    follower = Follower(100, range(40), searching=False)
    for row in range(50, 50 + STRAYS):
        assert follower.is_following
        follower.note(row)
    assert not follower.is_following


def test_readers_that_went_elsewhere_are_found_again() -> None:
    follower, order = ordered(MANY)
    for row in order[:200]:
        follower.note(row)
    losses = follower.losses
    place = 10_000
    while follower.is_following:
        follower.note(order[place])
        place += 1
    assert place == 10_000 + STRAYS
    while not follower.is_following:
        follower.note(order[place])
        place += 1
    assert place == 10_000 + STRAYS + 2 * PATIENCE  # the second time is harder
    assert follower.losses == losses + 2
    assert follower.take(3) == order[place : place + 3]


def test_a_file_that_is_opened_again_and_again_is_no_order() -> None:
    follower, order = ordered(MANY, searching=True)
    for _ in range(100):
        follower.note(order[5])
    assert not follower.is_following
    for row in order[: PATIENCE - 1]:
        follower.note(row)
    follower.note(order[2 * NEAR])
    assert not follower.is_following


def test_what_everybody_passed_by_is_behind() -> None:
    follower, order = ordered(MANY)
    for row in order[10 : REACH + 20]:
        follower.note(row)
    assert [follower.is_behind(row) for row in (order[0], order[18], order[19], order[-1])] == [
        True,
        True,
        False,
        False,
    ]


def test_hints_are_put_behind_what_is_still_to_come() -> None:
    follower = Follower(100, (), searching=False)
    assert follower.is_at_end
    assert follower.extend([1, 2, 3]) == 3
    assert follower.extend([3, 4, 4]) == 1
    assert follower.take(10) == [1, 2, 3, 4]
    for row in (1, 2):
        follower.note(row)
    assert follower.extend([2, 3, 1]) == 2
    assert follower.take(10) == [2, 1]
    assert follower.is_at_end


def test_hints_without_end_take_no_more_memory() -> None:
    rows = 3000
    follower = Follower(rows, (), searching=False)
    shuffle = random.Random(3)
    for _ in range(2 * TRIMMED // rows + 30):
        order = shuffle.sample(range(rows), rows)
        follower.extend(order)
        handed = follower.take(rows)
        while handed:
            for row in handed:
                follower.note(row)
            handed = follower.take(rows)
        assert follower.is_at_end
        assert len(follower) <= TRIMMED + 2 * rows
    assert follower.is_following


@given(
    st.lists(st.integers(0, 59), max_size=200),
    st.lists(st.integers(0, 59), unique=True, max_size=60),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_any_opens(opens: list[int], order: list[int], searching: bool) -> None:
    """Whatever is read: only rows of the order come out, each once between two losses, and none twice."""
    follower = Follower(60, order, searching=searching)
    losses, seen = follower.losses, set[int]()
    for row in opens:
        follower.note(row)
        if follower.losses != losses:
            losses, seen = follower.losses, set()
        taken = follower.take(7)
        assert not seen & set(taken)
        assert set(taken) <= set(order)
        assert not any(map(follower.is_passed, taken))
        seen |= set(taken)
