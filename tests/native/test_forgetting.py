"""The kernel is told to forget when that is of use, and no more often."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from fusefs.native.forgetting import (
    FULL,
    IDLE_SECONDS,
    LITTLE,
    LONGEST_REST_SECONDS,
    PATIENCE_SECONDS,
    REST_SECONDS,
    Forgetting,
)
from fusefs.native.fresh import Fresh
from fusefs.native.stream import MANY, MANY_SECONDS, Stream

SOME = (LITTLE + FULL) / 2
SOON = 0.25
"""More than two looks at how things are."""


class Scripted(Fresh):
    """As full as is said."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.fraction = 0.0

    def used(self) -> float:
        return self.fraction


@dataclass
class Kernel:
    """When it was told, and whether somebody reads through us."""

    fresh: Scripted
    told: list[float] = field(default_factory=list)
    is_read: bool = False
    stays: float = 0.0
    """So much of the memory is in use however often it was told."""

    async def forget(self) -> None:
        self.told.append(trio.current_time())
        self.fresh.fraction = self.stays


def run(test: Callable[[Kernel, Stream, Forgetting], Awaitable[None]], *, has_memory: bool = True) -> None:
    async def main() -> None:
        kernel = Kernel(Scripted())
        stream = Stream()
        forgetting = Forgetting(
            kernel.forget, lambda: kernel.is_read, stream, kernel.fresh if has_memory else None
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forgetting.run)
            await trio.sleep(100)
            assert not kernel.told  # nothing has come
            await test(kernel, stream, forgetting)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_what_was_found_in_memory_is_forgotten_when_no_more_comes() -> None:
    async def test(kernel: Kernel, stream: Stream, forgetting: Forgetting) -> None:
        kernel.fresh.fraction = SOME
        for _ in range(60):
            forgetting.note_shown()
            await trio.sleep(IDLE_SECONDS / 2)
        assert not kernel.told  # more comes all the time, and there is room
        last = trio.current_time() - IDLE_SECONDS / 2
        await trio.sleep(100)
        assert kernel.told == [pytest.approx(last + IDLE_SECONDS, abs=SOON)]

    run(test)


def test_much_memory_is_not_waited_with_but_for_a_rest() -> None:
    async def test(kernel: Kernel, stream: Stream, forgetting: Forgetting) -> None:
        start = trio.current_time()
        for _ in range(100):
            kernel.fresh.fraction = FULL
            stream.note()
            forgetting.note_shown()
            await trio.sleep(0.1)
        assert kernel.told[0] == pytest.approx(start, abs=SOON)
        assert 8 <= len(kernel.told) <= 10  # in ten seconds, one each

    run(test)


def test_for_a_little_memory_the_kernel_is_left_alone() -> None:
    """It would forget all that it knows of the mount."""

    async def test(kernel: Kernel, stream: Stream, forgetting: Forgetting) -> None:
        kernel.fresh.fraction = LITTLE
        for _ in range(60):
            forgetting.note_shown()
            await trio.sleep(2 * IDLE_SECONDS)
        assert not kernel.told
        kernel.fresh.fraction = SOME
        forgetting.note_shown()
        await trio.sleep(2 * IDLE_SECONDS)
        assert len(kernel.told) == 1

    run(test)


def test_what_stays_in_memory_is_forgotten_later() -> None:
    """Readers have it open, or the disk takes its time; and nothing else need come."""

    async def test(kernel: Kernel, stream: Stream, forgetting: Forgetting) -> None:
        kernel.fresh.fraction = kernel.stays = SOME
        forgetting.note_shown()
        await trio.sleep(3600)
        between = [after - before for before, after in itertools.pairwise(kernel.told)]
        assert between[0] < 5
        assert all(after > 0.99 * before for before, after in itertools.pairwise(between))
        assert between[-1] == pytest.approx(LONGEST_REST_SECONDS, abs=2)
        kernel.stays = 0.0
        await trio.sleep(LONGEST_REST_SECONDS + 2)
        times = len(kernel.told)
        await trio.sleep(3600)
        assert len(kernel.told) == times
        kernel.fresh.fraction = FULL
        forgetting.note_shown()
        await trio.sleep(SOON)
        assert len(kernel.told) == times + 1

    run(test)


def test_nothing_is_found_in_memory_where_there_is_none() -> None:
    async def test(kernel: Kernel, stream: Stream, forgetting: Forgetting) -> None:
        stream.note()
        forgetting.note_shown()
        await trio.sleep(100)
        assert not kernel.told
        forgetting.find_anew()
        await trio.sleep(100)
        assert len(kernel.told) == 1

    run(test, has_memory=False)


def test_what_came_through_us_is_found_when_no_more_comes() -> None:
    async def test(kernel: Kernel, stream: Stream, forgetting: Forgetting) -> None:
        for _ in range(10):
            stream.note()
            forgetting.find_anew()
            await trio.sleep(IDLE_SECONDS / 2)
        assert not kernel.told
        last = trio.current_time() - IDLE_SECONDS / 2
        await trio.sleep(100)
        assert kernel.told == [pytest.approx(last + IDLE_SECONDS, abs=SOON)]

    run(test)


def test_readers_through_us_are_waited_for_and_not_for_ever() -> None:
    async def test(kernel: Kernel, stream: Stream, forgetting: Forgetting) -> None:
        kernel.is_read = True
        forgetting.find_anew()
        await trio.sleep(2 * IDLE_SECONDS)
        assert not kernel.told
        kernel.is_read = False
        await trio.sleep(SOON)
        assert len(kernel.told) == 1
        await trio.sleep(REST_SECONDS)
        kernel.is_read = True
        start = trio.current_time()
        forgetting.find_anew()
        await trio.sleep(100)
        assert kernel.told[1:] == [pytest.approx(start + PATIENCE_SECONDS, abs=SOON)]

    run(test)


def test_a_stream_without_end_is_read_natively_all_the_same() -> None:
    """By who reads the same again; with a rest between, for what has been forgotten is asked for again."""

    async def test(kernel: Kernel, stream: Stream, forgetting: Forgetting) -> None:
        for _ in range(1000):
            stream.note()
            forgetting.find_anew()
            await trio.sleep(0.1)
        between = [after - before for before, after in zip(kernel.told, kernel.told[1:], strict=False)]
        assert len(kernel.told) >= 4
        assert between == [pytest.approx(max(PATIENCE_SECONDS, REST_SECONDS), abs=2 * SOON)] * len(between)

    run(test)


def test_what_is_in_vain_is_done_less_and_less() -> None:
    """Somebody reads, all the time, what the kernel could find by what we know."""

    async def test(kernel: Kernel, stream: Stream, forgetting: Forgetting) -> None:
        for _ in range(5000):
            forgetting.find_anew()
            await trio.sleep(1)
        between = [after - before for before, after in zip(kernel.told, kernel.told[1:], strict=False)]
        assert between[0] == pytest.approx(REST_SECONDS, abs=2)
        assert all(after > 0.99 * before for before, after in itertools.pairwise(between))
        assert between[-1] == pytest.approx(LONGEST_REST_SECONDS, abs=2)

    run(test)


def test_a_stream_is_many_in_a_short_time() -> None:
    async def main() -> None:
        can_end = True
        stream = Stream(lambda: can_end)
        for _ in range(3 * MANY):
            assert not stream.is_on()
            stream.note()
            await trio.sleep(1.1 * MANY_SECONDS / MANY)
        await trio.sleep(MANY_SECONDS)
        for number in range(3 * MANY):
            assert stream.is_on() == (number >= MANY)
            stream.note()
            await trio.sleep(0.5 * MANY_SECONDS / MANY)
        can_end = False
        assert not stream.is_on()
        can_end = True
        assert stream.is_on()
        await trio.sleep(MANY_SECONDS)
        assert not stream.is_on()

    trio.run(main, clock=MockClock(autojump_threshold=0))
