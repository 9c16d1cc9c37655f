"""`HeldBytes`: within its bound, and made once for all who wait."""

from __future__ import annotations

import pytest
import trio

from fusefs.views.held import HeldBytes
from store.errors import MediaInvalid


class Maker:
    """Makes bytes and counts how often."""

    def __init__(self, size: int = 40) -> None:
        self.made = 0
        self._size = size

    async def __call__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        self.made += 1
        return bytes([self.made]) * self._size


def test_what_is_held_is_made_once_and_the_oldest_goes() -> None:
    async def main() -> None:
        held, makers = HeldBytes(100), [Maker() for _ in range(3)]
        for number in (0, 1, 0, 2, 0):
            assert await held.get(number, makers[number]) == b"\1" * 40
        assert [maker.made for maker in makers] == [1, 1, 1]
        assert await held.get(1, makers[1]) == b"\2" * 40
        held.clear()
        assert await held.get(0, makers[0]) == b"\2" * 40

    trio.run(main)


def test_what_is_too_large_is_held_alone() -> None:
    async def main() -> None:
        held, small, large = HeldBytes(100), Maker(), Maker(1000)
        for name, maker in (("small", small), ("large", large), ("large", large), ("small", small)):
            await held.get(name, maker)
        assert (small.made, large.made) == (2, 1)

    trio.run(main)


def test_all_who_wait_share_what_is_made() -> None:
    async def main() -> None:
        held, maker = HeldBytes(100), Maker()
        async with trio.open_nursery() as nursery:
            for _ in range(9):
                nursery.start_soon(held.get, "key", maker)
        assert maker.made == 1

    trio.run(main)


def test_an_error_is_of_who_asked_and_not_remembered() -> None:
    async def fail() -> bytes:
        await trio.lowlevel.checkpoint()
        raise MediaInvalid("broken")

    async def main() -> None:
        held, maker = HeldBytes(100), Maker()
        failed = 0

        async def ask() -> None:
            nonlocal failed
            with pytest.raises(MediaInvalid):
                await held.get("key", fail)
            failed += 1

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        assert failed == 3
        assert await held.get("key", maker) == b"\1" * 40

    trio.run(main)
