"""The lock around the wait for requests goes to whoever comes first, and is never forgotten."""

from __future__ import annotations

import random

import trio
import trio.testing

from fusefs.waiting import FirstComeLock

SECONDS = 30.0


def test_who_is_back_before_others_had_a_turn_goes_on() -> None:
    order: list[str] = []

    async def take(lock: FirstComeLock, name: str, times: int) -> None:
        for _ in range(times):
            async with lock:
                order.append(name)

    async def main() -> None:
        lock = FirstComeLock()
        async with trio.open_nursery() as nursery:
            async with lock:
                nursery.start_soon(take, lock, "other", 1)
                await trio.testing.wait_all_tasks_blocked()
            await take(lock, "first", 3)

    trio.run(main)
    assert order == ["first"] * 3 + ["other"]


def test_nobody_shares_it_and_nobody_is_left_waiting() -> None:
    inside: list[int] = []
    done: list[int] = []

    async def work(lock: FirstComeLock, number: int) -> None:
        choice = random.Random(number)
        for _ in range(50):
            async with lock:
                assert not inside
                inside.append(number)
                if choice.random() < 0.5:
                    await trio.lowlevel.checkpoint()
                inside.remove(number)
            if choice.random() < 0.3:
                await trio.lowlevel.checkpoint()
        done.append(number)

    async def give_up(lock: FirstComeLock, scope: trio.CancelScope) -> None:
        with scope:
            async with lock:
                await trio.lowlevel.checkpoint()

    async def main() -> None:
        lock = FirstComeLock()
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(work, lock, number)
                    scope = trio.CancelScope()
                    nursery.start_soon(give_up, lock, scope)
                    await trio.lowlevel.checkpoint()
                    scope.cancel()

    trio.run(main)
    assert sorted(done) == list(range(5))
