"""What goes first, and how much there may be: the policy, against what it promises."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from store.budget import BLOCK, LAPSE, PROTECTED, SWEPT, Budget, Candidate, Limits, on_disk, order_victims

times = st.integers(0, 50).map(float)
things = st.lists(st.tuples(st.integers(0, 100), times), max_size=30)


def candidates(pairs: list[tuple[int, float]], numbers: count[int]) -> list[Candidate[int]]:
    return [Candidate(next(numbers), size, used) for size, used in sorted(pairs, key=lambda pair: pair[1])]


@given(things, things, st.integers(0, 3000))
def test_the_order(
    once_pairs: list[tuple[int, float]], again_pairs: list[tuple[int, float]], bound: int
) -> None:
    numbers: count[int] = count()
    once, again = candidates(once_pairs, numbers), candidates(again_pairs, numbers)
    again_bytes = sum(one.on_disk for one in again)
    order = list(order_victims(once, again, again_bytes, bound))
    assert sorted(one.thing for one in order) == sorted(one.thing for one in (*once, *again))
    for segment in (once, again):
        members = {one.thing for one in segment}
        assert [one for one in order if one.thing in members] == segment  # least recently used first
    # What was used again goes before something that was not only while there is too much of it, and only
    # if it was unused for longer.
    left, protected = again_bytes, {one.thing for one in again}
    waiting = list(once)
    for one in order:
        if one.thing not in protected:
            waiting.remove(one)
            continue
        if waiting:
            assert left > PROTECTED * bound - 1
            assert one.used < min(other.used for other in waiting)
        left -= one.on_disk


def test_a_scan_pushes_out_itself() -> None:
    bound = 100
    again = [Candidate(f"epoch {number}", 1, float(number)) for number in range(70)]
    scan = [Candidate(f"scan {number}", 1, 1000.0 + number) for number in range(500)]
    order = [one.thing for one in order_victims(scan, again, 70, bound)]
    assert order[:500] == [one.thing for one in scan]


def test_what_was_once_popular_gives_way() -> None:
    again = [Candidate(f"old {number}", 1, float(number)) for number in range(100)]
    new = [Candidate(f"new {number}", 1, 1000.0 + number) for number in range(10)]
    order = [one.thing for one in order_victims(new, again, 100, 100)]
    assert order[:20] == [f"old {number}" for number in range(20)]
    assert order[20:30] == [one.thing for one in new]


def test_nothing_is_read_before_it_is_needed() -> None:
    def endless() -> object:
        for number in count():
            yield Candidate(number, 1, float(number))

    order = order_victims(endless(), endless(), 10**9, 10)  # type: ignore[arg-type, type-var]
    assert next(order).used == 0.0


@given(st.integers(1, 100_000), st.lists(st.integers(0, 40_000), max_size=20))
def test_what_may_be_kept_fits(bound: int, sizes: list[int]) -> None:
    budget = Budget(Limits(bound))
    budget.measured(0, -1)
    kept = 0
    for number, size in enumerate(sizes):
        fits = kept + on_disk(size) <= bound
        assert budget.may_keep(size) == fits
        if fits:
            kept += on_disk(size)
            if number % 2:  # the others are on their way
                budget.added(size)
        else:
            assert budget.is_pressed
    assert kept <= bound


@given(st.integers(1, 100_000), st.lists(st.integers(0, 40_000), max_size=20))
def test_the_disk_keeps_its_room(wanted: int, sizes: list[int]) -> None:
    budget = Budget(Limits(free=wanted))
    free = 200_000
    budget.measured(0, free)
    for size in sizes:
        if budget.may_keep(size):
            budget.added(size)
            free -= on_disk(size)
    assert free >= wanted


def test_without_limits_everything_may_be_kept() -> None:
    budget = Budget(Limits())
    budget.measured(1 << 60, 0)
    assert budget.may_keep(1 << 60)
    assert not budget.is_pressed


def test_a_sweep_makes_room_again() -> None:
    budget = Budget(Limits(10 * BLOCK))
    budget.measured(10 * BLOCK, -1)
    assert not budget.may_keep(1)
    budget.freed(BLOCK, -1)
    assert budget.may_keep(BLOCK)
    assert budget.goal.size < 10 * BLOCK


def test_what_was_deleted_is_room_when_the_disk_says_so() -> None:
    """Readers may have it open, and the kernel may remember it. Others bring and delete things, too."""
    budget = Budget(Limits(free=10 * BLOCK))
    budget.measured(100 * BLOCK, 10 * BLOCK)
    budget.freed(5 * BLOCK, 10 * BLOCK)
    assert not budget.may_keep(1)
    budget.freed(5 * BLOCK, 13 * BLOCK)
    assert budget.may_keep(3 * BLOCK)
    assert not budget.may_keep(1)
    budget.freed(BLOCK, 50 * BLOCK)
    assert budget.may_keep(BLOCK)
    assert not budget.may_keep(1)


def test_what_does_not_come_is_forgotten_in_the_end() -> None:
    now = [0.0]
    budget = Budget(Limits(2 * BLOCK), clock=lambda: now[0])
    assert budget.may_keep(2 * BLOCK)
    for time, fits in ((1.0, False), (LAPSE, False), (LAPSE + 1.0, False), (2 * LAPSE, True)):
        now[0] = time
        budget.begin_measurement()
        budget.measured(BLOCK, -1)
        assert budget.has_room(1) == fits


def test_what_comes_during_a_measurement_counts() -> None:
    """Whether the measurement has seen it or not; and what is still to come counts after it, too."""
    budget = Budget(Limits(3 * BLOCK, free=BLOCK))
    assert budget.may_keep(BLOCK)
    assert budget.may_keep(BLOCK)
    budget.begin_measurement()
    budget.added(BLOCK)
    budget.measured(0, 4 * BLOCK)
    assert budget.may_keep(BLOCK)
    assert not budget.may_keep(1)
    budget.begin_measurement()
    budget.measured(BLOCK, 10 * BLOCK)
    assert not budget.may_keep(1)


def test_room_that_is_promised_presses() -> None:
    budget = Budget(Limits(free=10 * BLOCK))
    budget.measured(0, 100 * BLOCK)
    assert not budget.is_pressed
    assert budget.may_keep(90 * BLOCK)
    assert budget.is_pressed


def test_a_sweep_makes_room_for_what_had_none() -> None:
    """Also where there is less than a sweep leaves, as a rule, because objects are large."""
    budget = Budget(Limits(size=100 * BLOCK))
    budget.begin_measurement()
    budget.measured(90 * BLOCK, -1)
    assert budget.goal.size == int(SWEPT * 100 * BLOCK)
    assert not budget.may_keep(200 * BLOCK)  # for which there never can be
    assert budget.goal.size == int(SWEPT * 100 * BLOCK)
    assert not budget.may_keep(20 * BLOCK) and not budget.may_keep(15 * BLOCK)
    assert budget.is_pressed
    assert budget.goal.size == 80 * BLOCK
    budget.begin_measurement()
    budget.measured(80 * BLOCK, -1)
    assert not budget.is_pressed
    assert budget.may_keep(20 * BLOCK)


def test_a_sweep_makes_room_on_the_disk_for_what_had_none() -> None:
    budget = Budget(Limits(free=100 * BLOCK))
    budget.begin_measurement()
    budget.measured(0, 110 * BLOCK)
    assert not budget.may_keep(50 * BLOCK)
    assert budget.is_pressed
    assert budget.goal == Limits(0, 150 * BLOCK)
