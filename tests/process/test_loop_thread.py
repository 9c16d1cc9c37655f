"""The loop that Python code without a mount has: who stops waiting, who comes too late, and when it fails."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator

import pytest
import trio

from fusefs.loop_thread import LoopThread
from store.errors import StoreError


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    running = LoopThread()
    yield running
    running.close()


async def twice(number: int) -> int:
    await trio.lowlevel.checkpoint()
    if number < 0:
        raise ValueError(number)
    return 2 * number


def test_it_returns_and_raises_what_the_coroutine_does(loop: LoopThread) -> None:
    assert [loop.call(twice, number) for number in range(3)] == [0, 2, 4]
    with pytest.raises(ValueError, match="-1"):
        loop.call(twice, -1)
    assert loop.call(twice, 4) == 8


def test_who_waits_when_it_ends_is_told_so() -> None:
    running = LoopThread()
    began = threading.Event()
    said: list[str] = []

    async def wait() -> None:
        began.set()
        await trio.sleep_forever()

    def caller() -> None:
        try:
            running.call(wait)
        except StoreError as error:
            said.append(str(error))

    thread = threading.Thread(target=caller)
    thread.start()
    assert began.wait(30)
    running.close()
    thread.join(30)
    assert len(said) == 1 and "closed" in said[0]
    with pytest.raises(StoreError, match="closed"):
        running.call(twice, 1)
    assert not running.is_here and not running.tell(print)


def test_who_stops_waiting_ends_what_it_began(loop: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("concurrent.futures.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.call(wait)
    monkeypatch.undo()
    assert ended.wait(30)
    assert loop.call(twice, 1) == 2


def test_one_that_cannot_start_says_so(caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    held = []
    try:
        while True:
            try:
                held.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        with pytest.raises(StoreError, match="no event loop"):
            LoopThread()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in held:
            os.close(descriptor)
    assert "Too many open files" in caplog.text
