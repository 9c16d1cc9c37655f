"""Which members of an archive come together, and that threads that want the same ask once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from store.contents.windows import LARGEST_WINDOW, SMALLEST_WINDOW, Brought, Run, Windows
from store.errors import RemoteCorrupt, RemoteUnreachable

MEMBER = 4608
ENDS = [MEMBER * (number + 1) for number in range(4000)]


class Asked:
    """Notes what is asked for, and brings each member's number."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def __call__(self, run: Run) -> Brought:
        self.runs.append(run)
        return {number: b"%d" % number for number in range(*run)}

    @property
    def sizes(self) -> list[int]:
        return [(run.stop - run.first) * MEMBER for run in self.runs]


def test_who_reads_in_order_moves_more_and_more_at_a_time() -> None:
    windows, asked = Windows(), Asked()
    for number in range(len(ENDS)):
        assert windows.read("one", ENDS, number, asked)[0] == b"%d" % number
    assert [run.first for run in asked.runs[1:]] == [run.stop for run in asked.runs[:-1]]
    assert all(MEMBER + size > SMALLEST_WINDOW << number for number, size in enumerate(asked.sizes[:5]))
    assert max(asked.sizes) <= LARGEST_WINDOW and len(asked.runs) == 8
    windows.read("two", ENDS, 0, asked)  # what comes behind the end of one is the beginning of another
    windows.read("three", ENDS, 0, asked)  # but not that of each
    assert asked.sizes[-2] > LARGEST_WINDOW // 2 and asked.sizes[-1] <= SMALLEST_WINDOW


def test_who_jumps_about_moves_little() -> None:
    windows, asked = Windows(), Asked()
    for number in range(0, len(ENDS), 500):
        windows.read("one", ENDS, number, asked)
    assert max(asked.sizes) <= SMALLEST_WINDOW
    assert windows.read("one", ENDS, 501, asked) == (b"501", {})
    assert len(asked.runs) == 8


def test_a_window_ends_where_another_begins() -> None:
    windows, asked = Windows(), Asked()
    windows.read("one", ENDS, 10, asked)
    windows.read("one", ENDS, 0, asked)
    assert asked.runs[1] == Run(0, 10)


def test_threads_that_want_one_window_ask_once() -> None:
    windows = Windows()
    together, go_on = threading.Barrier(9), threading.Event()
    calls = []

    def bring(run: Run) -> Brought:
        calls.append(run)
        assert go_on.wait(60)
        return {number: b"%d" % number for number in range(*run)}

    def read(number: int) -> tuple[bytes, int]:
        together.wait(60)
        data, along = windows.read("one", ENDS, 0, bring)
        return data, len(along)

    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(read, range(8))
        together.wait(60)
        go_on.set()
        found = sorted(answers)
    assert len(calls) == 1
    assert [count > 0 for _, count in found] == [False] * 7 + [True]  # one of them publishes the others


def test_a_failure_is_shared_and_not_kept() -> None:
    windows, asked = Windows(), Asked()

    def fail(_: Run) -> Brought:
        raise RemoteUnreachable("it is away")

    with pytest.raises(RemoteUnreachable, match="away"):
        windows.read("one", ENDS, 0, fail)
    assert windows.read("one", ENDS, 0, asked)[0] == b"0"

    def spoil(run: Run) -> Brought:
        return {**asked(run), run.first: RemoteCorrupt("wrong")}

    with pytest.raises(RemoteCorrupt, match="wrong"):
        windows.read("two", ENDS, 0, spoil)
    assert windows.read("two", ENDS, 0, asked)[0] == b"0"


def test_memory_is_bounded() -> None:
    windows, asked = Windows(budget=2 * SMALLEST_WINDOW), Asked()
    for number in range(0, len(ENDS), 500):
        windows.read("one", ENDS, number, asked)
    assert windows._bytes <= 2 * SMALLEST_WINDOW
    windows.read("one", ENDS, 0, asked)
    assert len(asked.runs) == 9
