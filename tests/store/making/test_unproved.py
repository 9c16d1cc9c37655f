"""What was made of bytes that nobody had hashed goes when they turn out to be wrong, and stays when not."""

from __future__ import annotations

import os
from pathlib import Path

import trio

from store.making.products import BELOW
from store.making.tasks import Task
from store.making.unproved import MOST, Unproved
from store.oid import Oid
from tests.store.making.origins import FarOrigin, FileOrigin, maker_at, settled

LENGTH = 20_000 // 3
ONE, OTHER = Oid("1" * 32), Oid("2" * 32)


def reading(*origins: FarOrigin | FileOrigin, chunk: int = 0) -> Task:
    return Task("copy", "1", "", origins, chunk, {"pieces": 3}, 3)


def kept(cache: Path) -> int:
    return sum(path.is_file() for path in (cache / BELOW).rglob("*"))


def test_products_of_wrong_bytes_are_dropped(tmp_path: Path) -> None:
    cache, near = tmp_path / "cache", tmp_path / "near"
    near.write_bytes(os.urandom(20_000))
    wrong, right, local = FarOrigin(os.urandom(20_000)), FarOrigin(os.urandom(20_000)), FileOrigin(near)

    async def main() -> None:
        async with maker_at(cache) as made:
            tasks = [reading(wrong), reading(wrong, chunk=1), reading(right), reading(local)]
            for task in tasks:
                assert len(await made.piece(task, 1)) == LENGTH
            await settled(made)
            assert [made.is_proved(task) for task in tasks] == [False, False, False, True]
            assert kept(cache) == 4
            made.prove(right.oid)
            await made.refute(wrong.oid)
            assert kept(cache) == 2
            assert made.sizes(tasks[0]) is None
            assert made.is_proved(tasks[2])
            await made.refute(right.oid)  # which is too late, and says nothing of what was proved
            assert kept(cache) == 2
            assert len(await made.piece(tasks[0], 2)) == LENGTH  # made anew, of what comes now

    trio.run(main)


def test_one_that_is_on_its_way_into_the_cache_is_dropped_behind(tmp_path: Path) -> None:
    cache, wrong = tmp_path / "cache", FarOrigin(os.urandom(20_000))

    async def main() -> None:
        async with maker_at(cache) as made:
            assert len(await made.piece(reading(wrong), 2)) == LENGTH
            while made._flights:
                await trio.lowlevel.checkpoint()
            await made.refute(wrong.oid)
            await settled(made)
        assert not kept(cache)

    trio.run(main)


def test_a_product_of_two_objects_is_proved_by_both() -> None:
    unproved = Unproved()
    unproved.note("a", [ONE])
    unproved.note("a", [OTHER])
    unproved.prove(ONE)
    assert unproved.holds("a")
    unproved.prove(OTHER)
    assert not unproved.holds("a")
    assert unproved.refute(ONE) == []


def test_what_is_remembered_is_bounded() -> None:
    unproved = Unproved()
    for number in range(MOST + 10):
        unproved.note(str(number), [ONE])
    assert len(unproved.refute(ONE)) == MOST
    assert unproved.is_refuted(str(MOST))
    assert not unproved.is_refuted(str(MOST))
