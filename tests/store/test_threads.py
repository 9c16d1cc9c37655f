"""A thread that does not end costs its waiter a deadline, and nothing that it returns is lost."""

from __future__ import annotations

import threading

import pytest
import trio

from store import threads as module
from store.errors import StoreTimeout
from store.threads import Threads


def test_results_and_errors_come_through() -> None:
    async def main() -> None:
        threads = Threads()
        assert await threads.on_disk(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await threads.on_disk(divmod, 7, 0)

    trio.run(main)


def test_a_wait_ends_at_its_deadline_and_the_late_result_is_discarded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "DISK_DEADLINE", 0.05)
    go_on, discarded = threading.Event(), threading.Event()
    late: list[str] = []

    def work() -> str:
        assert go_on.wait(60)
        return "late"

    def discard(value: str) -> None:
        late.append(value)
        discarded.set()

    async def main() -> None:
        with pytest.raises(StoreTimeout, match="did not answer"):
            await Threads().on_disk(work, discard=discard)
        go_on.set()

    trio.run(main)
    assert discarded.wait(60)
    assert late == ["late"]


def test_a_result_that_nobody_came_for_is_discarded_whoever_was_first() -> None:
    for order in ("finish", "abandon"), ("abandon", "finish"):
        late: list[int] = []
        result = module._Result(late.append)
        for step in order:
            result.finish(5) if step == "finish" else result.abandon()
        assert late == [5]


def test_what_is_delivered_is_not_discarded() -> None:
    late: list[int] = []

    async def main() -> None:
        assert await Threads().on_disk(lambda: 5, discard=late.append) == 5

    trio.run(main)
    assert late == []
