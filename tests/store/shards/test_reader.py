"""A reader of a shard: right whatever overtakes what, ahead within its bounds, and nothing stays open."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import pytest
import trio
import trio.testing

from store.errors import ObjectCorrupt, ObjectMissing
from store.shards import reader
from store.shards.layout import Body, Layout
from store.shards.reader import KEPT_OPEN, Allowance, ShardReader
from store.tree import Tree
from store.tree_files import TreeFiles
from tests.store.shards.conftest import NewVersion, Version

CONTENT = {b"%03d.bin" % number: bytes([number]) * (number % 50 * 97) for number in range(120)}
"""Some are empty."""
SECONDS = 60.0


@dataclass(eq=False)
class Opened:
    """What stands for an open object."""

    data: bytes
    size: int
    closed: int = 0


@dataclass
class Files:
    """The files of a version, whose remotes answer when they are told to."""

    version: Version
    has_remotes: bool = True
    prefetcher: object = None
    gate: trio.Event = field(default_factory=trio.Event)
    missing: set[int] = field(default_factory=set)
    longer: set[int] = field(default_factory=set)
    asked: list[int] = field(default_factory=list)
    opened: list[Opened] = field(default_factory=list)
    most: int = 0

    @property
    def tree(self) -> Tree:
        return self.version.tree

    @property
    def open_now(self) -> list[Opened]:
        return [opened for opened in self.opened if not opened.closed]

    async def open(self, row: int) -> Opened:
        self.asked.append(row)
        if self.has_remotes:
            await self.gate.wait()
        await trio.lowlevel.checkpoint()
        if row in self.missing:
            raise ObjectMissing(self.tree.path(row))
        data = self.version.files[self.tree.path(row).encode()]
        opened = Opened(data, len(data) + (row in self.longer))
        self.opened.append(opened)
        self.most = max(self.most, len(self.open_now))
        return opened

    async def read(self, row: int, opened: Opened, offset: int, length: int) -> bytes:
        assert not opened.closed
        await trio.lowlevel.checkpoint()
        assert not opened.closed
        return opened.data[offset : offset + length]

    def close(self, opened: Opened) -> None:
        opened.closed += 1


@dataclass
class Bench:
    """A shard of all files, who reads it, and what it should be."""

    files: Files
    layout: Layout
    archive: bytes
    reader: ShardReader
    allowance: Allowance


def run(
    new_version: NewVersion,
    test: Callable[[Bench], Awaitable[None]],
    *,
    local: bool = False,
    ahead: bool = True,
) -> Files:
    """Run `test` with a reader; at its end nothing is open, and the allowance is whole."""
    version = new_version(CONTENT)

    async def main() -> Files:
        files = Files(version, has_remotes=not local, prefetcher=object() if ahead else None)
        layout = version.layout()
        allowance = Allowance(100, 1 << 20)
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                reading = ShardReader(cast(TreeFiles, files), layout.shard(0), allowance, nursery.start_soon)
                await test(Bench(files, layout, version.archive(layout), reading, allowance))
                reading.close()
        assert [opened.closed for opened in files.opened] == [1] * len(files.opened)
        assert allowance.take(1 << 20)
        allowance.give_back(1 << 20)
        assert all(allowance.take(0) for _ in range(100))
        assert not allowance.take(0)
        return files

    return trio.run(main)


def bodies(bench: Bench, offset: int, length: int) -> list[int]:
    """The files that a range has bytes of."""
    return [piece.row for piece in bench.layout.pieces(0, offset, length) if isinstance(piece, Body)]


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("ahead", [True, False])
def test_readers_at_once_get_the_bytes_of_their_ranges(
    new_version: NewVersion, local: bool, ahead: bool
) -> None:
    async def test(bench: Bench) -> None:
        bench.files.gate.set()
        choice = random.Random(7)

        async def read(offset: int, length: int) -> None:
            assert await bench.reader.read(offset, length) == bench.archive[offset : offset + length]

        for _ in range(40):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(read, choice.randrange(len(bench.archive)), choice.randrange(30_000))
            start = choice.randrange(len(bench.archive))
            async with trio.open_nursery() as nursery:  # as the kernel reads ahead
                for block in range(4):
                    nursery.start_soon(read, start + 20_000 * block, 20_000)

    run(new_version, test, local=local, ahead=ahead)


def test_from_the_beginning_to_the_end_every_member_is_opened_once(new_version: NewVersion) -> None:
    async def test(bench: Bench) -> None:
        bench.files.gate.set()
        got = [bytes(await bench.reader.read(at, 9000)) for at in range(0, len(bench.archive), 9000)]
        assert b"".join(got) == bench.archive
        assert len(bench.files.open_now) <= KEPT_OPEN

    files = run(new_version, test)
    assert sorted(files.asked) == [row for row in range(1, 121) if files.tree.size[row]]


def test_a_local_reader_opens_what_it_reads_and_no_more(new_version: NewVersion) -> None:
    async def test(bench: Bench) -> None:
        await bench.reader.read(0, 9000)
        assert bench.files.asked == bodies(bench, 0, 9000)
        await bench.reader.read(512, 0)
        await bench.reader.read(len(bench.archive), 10)

    assert run(new_version, test, local=True).most <= KEPT_OPEN + 1


@pytest.mark.parametrize("ahead", [True, False])
def test_members_are_asked_for_together_and_within_bounds(
    new_version: NewVersion, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    monkeypatch.setattr(reader, "MEMBERS_AHEAD", 30)

    async def test(bench: Bench) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.reader.read, 0, 10_000)
            await trio.testing.wait_all_tasks_blocked()
            wanted = bodies(bench, 0, 10_000)
            assert set(wanted) <= set(bench.files.asked)
            assert len(bench.files.asked) == (30 if ahead else len(wanted))
            bench.files.gate.set()

    run(new_version, test, ahead=ahead)


def test_readers_share_what_they_have_ahead(new_version: NewVersion) -> None:
    async def test(bench: Bench) -> None:
        async with trio.open_nursery() as nursery:
            others = [
                ShardReader(
                    cast(TreeFiles, bench.files), bench.layout.shard(0), bench.allowance, nursery.start_soon
                )
                for _ in range(5)
            ]
            for other in others:
                nursery.start_soon(other.read, 0, 10_000)
            await trio.testing.wait_all_tasks_blocked()
            # Each waits for a member that it opens itself where there is no room ahead.
            assert 100 <= len(bench.files.asked) <= 105
            bench.files.gate.set()
            await trio.testing.wait_all_tasks_blocked()
            for other in others:
                other.close()

    run(new_version, test)


def test_who_goes_elsewhere_lets_go_of_what_was_ahead(new_version: NewVersion) -> None:
    async def test(bench: Bench) -> None:
        bench.files.gate.set()
        await bench.reader.read(0, 3000)
        await trio.testing.wait_all_tasks_blocked()
        assert len(bench.files.open_now) > 20
        assert bench.layout.size(0) > 200_000
        bench.reader._furthest = -(1 << 30)  # as if it had come from far away
        await bench.reader.read(200_000, 100)
        assert len(bench.files.open_now) <= KEPT_OPEN + 1

    run(new_version, test)


def test_what_is_passed_over_is_let_go_of(new_version: NewVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "OVERTAKEN", 10_000)
    monkeypatch.setattr(reader, "MEMBERS_AHEAD", 20)

    async def test(bench: Bench) -> None:
        bench.files.gate.set()
        shard = bench.layout.shard(0)
        for start in shard.starts[:100].tolist():  # headers alone
            assert await bench.reader.read(start, 512) == bench.archive[start : start + 512]
            await trio.testing.wait_all_tasks_blocked()
            assert len(bench.files.open_now) <= 20
        assert int(shard.rows[105]) in bench.files.asked

    run(new_version, test)


def test_a_reader_that_is_closed_closes_what_comes_later(new_version: NewVersion) -> None:
    async def test(bench: Bench) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.reader.read, 0, 3000)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        bench.reader.close()
        bench.files.gate.set()

    assert run(new_version, test).opened


def test_a_failure_ahead_is_told_to_who_comes_to_it(new_version: NewVersion) -> None:
    async def test(bench: Bench) -> None:
        bench.files.gate.set()
        bench.files.missing = {20}
        start = bench.archive.index(b"019.bin")
        assert await bench.reader.read(0, start) == bench.archive[:start]
        for _ in range(2):
            with pytest.raises(ObjectMissing, match=r"019\.bin"):
                await bench.reader.read(start, 1000)
        bench.files.missing.clear()
        assert await bench.reader.read(start, 9000) == bench.archive[start : start + 9000]

    run(new_version, test)


@pytest.mark.parametrize("local", [True, False])
def test_a_member_of_another_length_is_no_member(new_version: NewVersion, local: bool) -> None:
    async def test(bench: Bench) -> None:
        bench.files.gate.set()
        bench.files.longer = {10}
        start = bench.archive.index(b"009.bin")
        with pytest.raises(ObjectCorrupt, match=r"'009\.bin' has 874 bytes and not 873"):
            await bench.reader.read(start, 1000)

    run(new_version, test, local=local)


def test_shards_of_files(new_version: NewVersion) -> None:
    layout = new_version(CONTENT).layout("7,shuffle=3")
    places = {row: number for number in range(layout.shards) for row in layout.rows(number).tolist()}
    for rows in ([1], [5, 6, 7, 100], sorted(places), []):
        assert layout.shards_of(rows) == sorted({places[row] for row in rows})


def test_digests_follow_names_and_contents(new_version: NewVersion) -> None:
    version = new_version(CONTENT)
    assert version.layout().shard(0).digest() == new_version(CONTENT).layout().shard(0).digest()
    renamed = new_version({path.replace(b"000", b"-00"): data for path, data in CONTENT.items()})
    assert version.layout().shard(0).digest() != renamed.layout().shard(0).digest()
