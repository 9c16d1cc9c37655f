"""A value that is got once for all who wait for it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from store.errors import RemoteSlow, RemoteUnreachable
from store.remotes.kept import FOREVER, Kept


def test_many_threads_get_it_once() -> None:
    calls: list[int] = []
    go = threading.Event()

    def make() -> tuple[int, float]:
        calls.append(1)
        go.wait()
        return len(calls), FOREVER

    kept = Kept(make, 60.0, "late")
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(kept.get) for _ in range(8)]
        go.set()
        assert {each.result() for each in waiting} == {1}
    assert kept.get() == kept.latest() == 1


def test_a_failure_is_shared_and_not_kept() -> None:
    answers = iter([RemoteUnreachable("first"), RemoteUnreachable("second"), 3])

    def make() -> tuple[int, float]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer, FOREVER

    kept = Kept(make, 60.0, "late")
    for words in ("first", "second"):
        with pytest.raises(RemoteUnreachable, match=words):
            kept.get()
    assert kept.get() == 3


def test_what_has_run_out_is_got_again() -> None:
    ends = iter([time.time() - 1, FOREVER])
    kept = Kept(lambda: (ends_now := next(ends), ends_now), 60.0, "late")
    first = kept.get()
    assert first != FOREVER
    assert kept.latest() == first
    assert kept.get() == FOREVER


def test_who_waits_for_another_thread_waits_for_a_time() -> None:
    started, go = threading.Event(), threading.Event()

    def make() -> tuple[int, float]:
        started.set()
        go.wait()
        return 1, FOREVER

    kept = Kept(make, 0.05, "too late")
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(kept.get)
        started.wait()
        with pytest.raises(RemoteSlow, match="too late"):
            kept.get()
        go.set()
        assert first.result() == 1
