"""When the loop waits for the disk itself, and when threads do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from store.pace import (
    FORGIVEN_ONES,
    LONGEST_REST_SECONDS,
    QUICK_ONES,
    QUICK_SECONDS,
    REST_FACTOR,
    DiskPace,
)


def proven(pace: DiskPace, now: float = 0.0, answers: int = QUICK_ONES) -> DiskPace:
    for _ in range(answers):
        pace.took(QUICK_SECONDS, now)
    return pace


def test_a_disk_is_trusted_when_it_has_shown_itself() -> None:
    pace = DiskPace(is_local=True)
    assert not proven(pace, answers=QUICK_ONES - 1).is_quick(0)
    assert proven(pace, answers=1).is_quick(0)


def test_a_network_is_never_waited_for() -> None:
    assert not proven(DiskPace(is_local=False)).is_quick(0)


def test_one_slow_answer_sends_the_waiting_back_to_threads() -> None:
    pace = proven(DiskPace(is_local=True))
    pace.took(0.1, 10.0)
    assert not proven(pace, 10.0).is_quick(10.0 + 0.1 * REST_FACTOR * 0.99)
    assert pace.is_quick(10.0 + 0.1 * REST_FACTOR)


def test_a_disk_must_show_itself_again_after_its_rest() -> None:
    pace = proven(DiskPace(is_local=True))
    pace.took(2 * QUICK_SECONDS, 0.0)
    assert not pace.is_quick(LONGEST_REST_SECONDS)


def test_rests_grow_and_are_bounded_and_forgotten() -> None:
    pace = DiskPace(is_local=True)
    now = 0.0
    pace.took(0.1, now)
    pace.took(0.1, now)
    assert not proven(pace, now).is_quick(0.1 * 2 * REST_FACTOR * 0.99)
    for _ in range(50):
        pace.took(1.0, now)
        now += LONGEST_REST_SECONDS
        assert proven(pace, now).is_quick(now)
    pace.took(0.1, now)
    assert not proven(pace, now).is_quick(now + LONGEST_REST_SECONDS - 1)
    proven(pace, now, FORGIVEN_ONES)
    pace.took(0.1, now + LONGEST_REST_SECONDS)
    assert proven(pace, now).is_quick(now + LONGEST_REST_SECONDS + 0.1 * REST_FACTOR)


@given(st.lists(st.floats(QUICK_SECONDS * 1.01, LONGEST_REST_SECONDS / REST_FACTOR), min_size=1))
def test_slow_answers_hold_the_loop_up_for_a_small_part_of_its_time(slow: list[float]) -> None:
    pace = proven(DiskPace(is_local=True))
    now = waited = 0.0
    for seconds in slow:
        while not pace.is_quick(now):
            now += 1 / 128
            pace.took(QUICK_SECONDS, now)
        now += seconds
        waited += seconds
        pace.took(seconds, now)
    last = slow[-1]
    assert (waited - last) * REST_FACTOR <= now - last


@given(st.lists(st.floats(0, 1), min_size=1), st.floats(0, 1e6))
def test_never_quick_right_after_a_slow_answer(answers: list[float], now: float) -> None:
    pace = DiskPace(is_local=True)
    for seconds in answers:
        pace.took(seconds, now)
    if answers[-1] > QUICK_SECONDS:
        assert not pace.is_quick(now)
