"""The children that answer a daemon's questions: kept, replaced, and gone in the end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from fusefs import resolvers
from fusefs.resolvers import COMMAND, Resolvers
from store.errors import RevisionUnknown, StoreError, StoreTimeout

CHILD = """
import json, os, sys, time
for line in sys.stdin:
    question = json.loads(line)
    if question.get("rev") == "crash":
        raise ValueError("what a pity")
    if question.get("rev") == "hang":
        time.sleep(60)
    print(json.dumps({"pid": os.getpid(), **question}), flush=True)
"""


def with_resolvers(test: Callable[[Resolvers], Awaitable[None]], command: tuple[str, ...] = ()) -> None:
    async def run() -> None:
        async with trio.open_nursery() as nursery:
            await test(Resolvers(nursery, command or (sys.executable, "-I", "-c", CHILD)))
            nursery.cancel_scope.cancel()

    trio.run(run)


async def ask_pid(asked: Resolvers, **question: str) -> int:
    pid = (await asked.ask(question))["pid"]
    assert isinstance(pid, int)
    return pid


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_child_is_asked_again_and_ends_with_the_daemon() -> None:
    pids = []

    async def test(asked: Resolvers) -> None:
        pids.append(await ask_pid(asked, rev="one"))
        assert await ask_pid(asked, rev="two") == pids[0]
        assert is_running(pids[0])

    with_resolvers(test)
    assert not is_running(pids[0])


def test_a_child_that_nobody_asks_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolvers, "KEPT_SECONDS", 0.01)

    async def test(asked: Resolvers) -> None:
        pid = await ask_pid(asked)
        with trio.fail_after(30):
            while is_running(pid):
                await trio.sleep(0.01)

    with_resolvers(test)


def test_a_child_that_was_killed_is_replaced() -> None:
    async def test(asked: Resolvers) -> None:
        first = await ask_pid(asked)
        os.kill(first, signal.SIGKILL)
        assert await ask_pid(asked) != first

    with_resolvers(test)


def test_a_last_answer_ends_the_child() -> None:
    async def test(asked: Resolvers) -> None:
        first = await ask_pid(asked, last="yes")
        assert not is_running(first)
        assert await ask_pid(asked) != first

    with_resolvers(test)


@pytest.mark.parametrize("before", [0, 1])
def test_a_crash_is_told_by_its_last_line(before: int) -> None:
    async def test(asked: Resolvers) -> None:
        for _ in range(before):
            await asked.ask({})
        with pytest.raises(StoreError, match=r"the resolver failed: ValueError: what a pity"):
            await asked.ask({"rev": "crash"})
        assert await ask_pid(asked)

    with_resolvers(test)


def test_one_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolvers, "ANSWER_SECONDS", 0.5)

    async def test(asked: Resolvers) -> None:
        with pytest.raises(StoreTimeout, match=r"resolving hang took more than"):
            await asked.ask({"rev": "hang"})

    with_resolvers(test)


def test_errors_of_the_real_one_leave_it_usable(tmp_path: Path) -> None:
    async def test(asked: Resolvers) -> None:
        for _ in range(2):
            with pytest.raises(StoreError, match=r"is in no git repository") as raised:
                await asked.ask({"repo": str(tmp_path), "path": "a", "rev": "v1", "cache": ""})
            assert not isinstance(raised.value, RevisionUnknown)

    with_resolvers(test, COMMAND)
