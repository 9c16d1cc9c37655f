"""The wait for requests: its lock goes to whoever comes first and is never forgotten; when it looks again."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from fusefs import waiting
from fusefs.waiting import Device, FirstComeLock

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


class Turns(trio.abc.Instrument):
    """Counts how often the loop looks around."""

    count = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += 1


class Sender:
    """Sends a byte to a device when that asks whether requests wait, and says what it is told to."""

    def __init__(self, *, is_busy: bool, can_spin: bool = True) -> None:
        self.theirs, self.ours = socket.socketpair()
        self.device = Device(self.is_busy, can_spin=can_spin)
        self.asked = 0
        self._says = is_busy

    def is_busy(self) -> bool:
        self.asked += 1
        self.ours.send(b"x")
        return self._says

    async def wait(self) -> bool:
        """Wait for a byte, and take it; whether the loop has had a turn meanwhile."""
        turns = Turns()
        trio.lowlevel.add_instrument(turns)
        with trio.fail_after(SECONDS):
            await self.device.wait_readable(self.theirs.fileno())
        trio.lowlevel.remove_instrument(turns)
        self.theirs.recv(1)
        return turns.count > 0

    async def wait_in_loop(self) -> None:
        """Wait for a byte that comes when the loop has nothing else to do."""
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def send() -> None:
                    await trio.testing.wait_all_tasks_blocked()
                    self.ours.send(b"x")

                await self.device.wait_readable(self.theirs.fileno())
        self.theirs.recv(1)

    def close(self) -> None:
        self.theirs.close()
        self.ours.close()


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """How long each wait in the loop takes by the device's clock."""
    lengths = [0.0]
    now = 0.0
    is_end = False

    def tell() -> float:
        nonlocal now, is_end
        now += lengths[0] if is_end else 0.0
        is_end = not is_end
        return now

    monkeypatch.setattr(waiting, "monotonic", tell)
    yield lengths


def test_what_comes_soon_is_looked_for_again(seconds: list[float]) -> None:
    async def main() -> None:
        sender = Sender(is_busy=False)
        await sender.wait_in_loop()
        assert not await sender.wait()
        assert sender.asked == 1
        sender.close()

    trio.run(main)


def test_others_have_their_turn_while_requests_wait(seconds: list[float]) -> None:
    async def main() -> None:
        sender = Sender(is_busy=True)
        await sender.wait_in_loop()
        assert await sender.wait()
        assert sender.asked == 1
        sender.close()

    trio.run(main)


@pytest.mark.parametrize(("length", "can_spin"), [(1.0, True), (0.0, False)])
def test_nothing_is_looked_for_where_it_does_not_come_soon(
    seconds: list[float], length: float, can_spin: bool
) -> None:
    async def main() -> None:
        sender = Sender(is_busy=False, can_spin=can_spin)
        seconds[0] = length
        for _ in range(3):
            await sender.wait_in_loop()
        assert sender.asked == 0
        sender.close()

    trio.run(main)


def test_others_have_their_turn_in_any_case(seconds: list[float]) -> None:
    """Requests that come without end keep nobody else waiting without end."""

    async def main() -> None:
        sender = Sender(is_busy=False)
        await sender.wait_in_loop()
        had_turn = []
        for _ in range(waiting.TURNS):
            sender.ours.send(b"x")
            had_turn.append(await sender.wait())
        assert had_turn.count(True) == 1
        sender.close()

    trio.run(main)
