"""What is ahead of readers stays within its bounds, gives way to them, and leaves nothing behind."""

from __future__ import annotations

import random
import threading
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store import prefetch_window, prefetcher
from store.budget import Limits
from store.errors import RemoteSlow
from store.oid import Oid
from store.open_objects import Brought
from store.prefetch_window import AT_ONCE, FEWEST, LATEST, Window
from store.prefetcher import FAILURES, Prefetcher
from store.threads import Threads
from store.traces import trace_path
from store.tree import Tree
from store.tree_compiler import Leaf, compile_tree, write_tree

SIZE = 1000
UNLIMITED = Limits()


@dataclass(eq=False)
class Opened:
    """What stands for an open object."""

    oid: Oid
    size: int
    closed: int = 0

    async def read(self, offset: int, length: int) -> bytes:
        return b""

    async def bring(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


@dataclass
class Files:
    """A version whose remotes answer when they are told to."""

    tree: Tree
    sizes: Sequence[int]
    here: set[int] = field(default_factory=set)
    failing: set[int] = field(default_factory=set)
    memory: bool = False
    """Does what comes stay in memory for the time being?"""
    kept: bool = True
    asked: list[int] = field(default_factory=list)
    opened: list[Opened] = field(default_factory=list)
    gate: trio.Event = field(default_factory=trio.Event)
    most: int = 0
    now: int = 0

    async def bring(self, row: int, largest: int) -> Brought | None:
        self.asked.append(row)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
            await trio.lowlevel.checkpoint()
        finally:
            self.now -= 1
        if row in self.failing:
            raise RemoteSlow("it takes long")
        if self.sizes[row] > largest:
            return None
        opened = Opened(self.tree.oid(row), self.sizes[row])
        self.opened.append(opened)
        return Brought(opened, True, self.kept, opened.size if self.memory else 0)

    async def missing(self, rows: Sequence[int]) -> list[int]:
        await trio.lowlevel.checkpoint()
        return [row for row in rows if row not in self.here]


@dataclass
class Reading:
    """A prefetcher and its surroundings."""

    files: Files
    window: Window
    ahead: Prefetcher
    read: list[Opened] = field(default_factory=list)

    def open(self, *rows: int) -> int:
        """Open files; how many were ahead."""
        hits = 0
        for row in rows:
            opened = self.ahead.opened(row, self.files.tree.oid(row))
            if opened is not None:
                assert isinstance(opened, Opened)
                assert opened.oid == self.files.tree.oid(row)
                assert not opened.closed
                opened.close()
                hits += 1
        return hits

    def check_end(self) -> None:
        """Everything was closed, once, and nothing is charged any more."""
        self.ahead.stop()
        window = self.window
        assert [one.closed for one in self.files.opened] == [1] * len(self.files.opened)
        assert (window.files, window.bytes, window.memory, window.running) == (0, 0, 0, 0)
        assert not any(window.is_wanted(self.files.tree.oid(row)) for row in range(1, self.files.tree.rows))


def compile_files(directory: Path, count: int) -> Tree:
    path = directory / "t.tree"
    leaves = [Leaf(b"%05d" % number, number.to_bytes(16, "big"), SIZE) for number in range(count)]
    write_tree(compile_tree(leaves, "t"), path)
    return Tree.open(path)


Test = Callable[[Reading], Awaitable[None]]


def run(
    directory: Path, test: Test, *, count: int = 400, limits: Limits = UNLIMITED, flights: int = 0
) -> None:
    tree = compile_files(directory, count)

    async def main() -> None:
        files = Files(tree, tree.size)
        window = Window(limits, lambda: flights + window.running)
        async with trio.open_nursery() as nursery:
            ahead = Prefetcher(files, window, Threads(), nursery.start_soon, trace_path(directory / "t.tree"))
            reading = Reading(files, window, ahead)
            await test(reading)
            files.gate.set()
            await trio.testing.wait_all_tasks_blocked()
            reading.check_end()
            nursery.cancel_scope.cancel()

    trio.run(main)


async def settle() -> None:
    """Until nobody has anything to do; threads are not waited for."""
    await trio.testing.wait_all_tasks_blocked()


def order_of(reading: Reading) -> array[int]:
    rows = list(range(1, reading.files.tree.rows))
    random.Random(7).shuffle(rows)
    return array("I", rows)


def test_an_order_is_followed(tmp_path: Path) -> None:
    async def test(reading: Reading) -> None:
        reading.files.gate.set()
        order = order_of(reading)
        reading.ahead.follow(order)
        await settle()
        assert reading.open(*order) == len(order)
        assert sorted(reading.files.asked) == sorted(order)
        report = reading.ahead.report()
        assert (report.fetched, report.hits, report.ahead, report.fetching) == (400, 400, 0, 0)

    run(tmp_path, test)


def test_so_many_at_once(tmp_path: Path) -> None:
    async def test(reading: Reading) -> None:
        reading.ahead.follow(order_of(reading))
        await settle()
        assert reading.files.most == AT_ONCE
        assert reading.ahead.report().fetching == AT_ONCE

    run(tmp_path, test)


@pytest.mark.parametrize(("misses", "left"), [(10, AT_ONCE - 10), (64, FEWEST)])
def test_readers_that_miss_come_first(tmp_path: Path, misses: int, left: int) -> None:
    async def test(reading: Reading) -> None:
        reading.ahead.follow(order_of(reading))
        await settle()
        assert reading.files.most == left

    run(tmp_path, test, flights=misses)


def test_a_share_of_the_budget_is_ahead(tmp_path: Path) -> None:
    async def test(reading: Reading) -> None:
        reading.files.gate.set()
        order = order_of(reading)
        reading.ahead.follow(order)
        for done in range(30):
            await settle()
            assert (reading.window.files, reading.window.bytes) == (10, 10 * SIZE)
            assert sorted(reading.files.asked) == sorted(order[: 10 + done])
            assert reading.open(order[done]) == 1

    run(tmp_path, test, limits=Limits(size=40 * SIZE))


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cache keeps is let go when memory is full, and read from there; what it does not waits."""
    monkeypatch.setattr(prefetch_window, "MEMORY_BYTES", 20 * SIZE)

    async def kept(reading: Reading) -> None:
        reading.files.gate.set()
        reading.files.memory = True
        order = order_of(reading)
        reading.ahead.follow(order)
        await settle()
        assert reading.window.memory == 20 * SIZE
        assert reading.ahead.report().ahead == len(order)
        assert all(reading.window.is_wanted(reading.files.tree.oid(row)) for row in order)
        assert reading.open(*order) == 20
        assert reading.ahead.report().hits == len(order)

    async def unkept(reading: Reading) -> None:
        reading.files.gate.set()
        reading.files.memory, reading.files.kept = True, False
        reading.window.has_room = lambda _: False
        order = order_of(reading)
        reading.ahead.follow(order)
        await settle()
        # Those that were begun before anything had come may be more.
        assert 20 <= reading.ahead.report().ahead <= 20 + AT_ONCE
        for row in order:
            assert reading.open(row) == 1
            await settle()

    for name, test in (("kept", kept), ("unkept", unkept)):
        (tmp_path / name).mkdir()
        run(tmp_path / name, test)


def test_what_is_here_and_what_is_large_is_passed_over(tmp_path: Path) -> None:
    async def test(reading: Reading) -> None:
        reading.files.gate.set()
        order = order_of(reading)
        sizes = list(reading.files.sizes)
        sizes[order[5]] = reading.window.most_bytes
        sizes[order[6]] = -1
        reading.files.sizes = sizes
        reading.files.here = set(order[::2])
        reading.ahead.follow(order)
        await settle()
        assert sorted(reading.files.asked) == sorted(row for row in order[1::2] if row != order[5])
        assert all(map(reading.window.is_wanted, map(reading.files.tree.oid, order[::2])))
        assert reading.open(*order) == len(order) // 2 - 1

    run(tmp_path, test)


def test_a_remote_that_fails_is_not_pressed(tmp_path: Path) -> None:
    async def test(reading: Reading) -> None:
        reading.files.gate.set()
        reading.files.failing = set(range(500))
        order = order_of(reading)
        reading.ahead.follow(order)
        await settle()
        assert FAILURES <= len(reading.files.asked) <= FAILURES + AT_ONCE
        reading.files.failing = set()
        reading.open(*order[:50])
        await settle()
        assert reading.open(*order[50:]) == len(order) - 50

    run(tmp_path, test)


def test_what_comes_after_its_reader_is_let_go(tmp_path: Path) -> None:
    async def test(reading: Reading) -> None:
        order = order_of(reading)
        reading.ahead.follow(order)
        await settle()
        assert reading.open(*order[:10]) == 0
        reading.files.gate.set()
        await settle()
        came_late = {reading.files.tree.oid(row) for row in order[:10]}
        assert {one.oid for one in reading.files.opened if one.closed} == came_late
        assert reading.open(*order[10:]) == len(order) - 10

    run(tmp_path, test)


def test_a_reader_who_leaves_the_order_frees_the_window(tmp_path: Path) -> None:
    """The order is the first half; whatever waits is let go, and the usual order is waited for again."""

    async def test(reading: Reading) -> None:
        reading.files.gate.set()
        order = order_of(reading)
        reading.ahead.follow(order[:200])
        await settle()
        assert reading.window.files == 200
        reading.open(*order[200:])
        await settle()
        assert reading.window.files == 0
        assert all(one.closed == 1 for one in reading.files.opened)

    run(tmp_path, test)


def test_a_full_window_of_what_nobody_reads_is_given_up(tmp_path: Path) -> None:
    """Readers began elsewhere in the order, near enough to be taken to follow it."""

    async def test(reading: Reading) -> None:
        reading.files.gate.set()
        order = order_of(reading)
        reading.ahead.follow(order)
        await settle()
        hits = [0] * 300
        for place in range(100, 400):
            hits[place - 100] = reading.open(order[place])
            await settle()
        assert sum(hits[:64]) == 0
        assert sum(hits[100:]) == 200

    run(tmp_path, test, limits=Limits(size=40 * SIZE))


def test_hints_go_before_the_usual_order_and_end(tmp_path: Path) -> None:
    async def test(reading: Reading) -> None:
        reading.files.gate.set()
        order = order_of(reading)
        reading.ahead.follow(order[:100])
        await settle()
        assert reading.ahead.hint(order[100:120]) == 20
        await settle()
        assert reading.ahead.report().order == "hint"
        assert reading.window.files == 20
        assert reading.open(*order[100:120]) == 20
        assert reading.open(*order[:40]) == 0
        await settle()
        assert reading.ahead.report().order == "file"
        assert reading.open(*order[40:100]) == 60

    run(tmp_path, test)


def test_a_version_that_is_not_shown_any_more_leaves_the_window_to_others(tmp_path: Path) -> None:
    async def test(reading: Reading) -> None:
        reading.files.gate.set()
        order = order_of(reading)
        reading.ahead.follow(order)
        await settle()
        reading.ahead.rest()
        assert reading.window.files == 0
        await settle()
        assert reading.window.files == 0
        reading.open(*order[:8])
        await settle()
        assert reading.open(*order[8:]) == len(order) - 8

    run(tmp_path, test)


def test_hints_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetcher, "MOST_HINTED", 30)

    async def test(reading: Reading) -> None:
        reading.files.gate.set()
        order = order_of(reading)
        assert reading.ahead.hint(order[:20]) == 20
        assert reading.ahead.hint(order[20:40]) == 10
        assert reading.ahead.hint(order[30:40]) == 0
        await settle()
        assert reading.open(*order[:30]) == 30

    run(tmp_path, test)


def test_eviction_is_told_what_was_read_and_what_will_be(tmp_path: Path) -> None:
    async def test(reading: Reading) -> None:
        reading.files.gate.set()
        order = order_of(reading)
        oids = [reading.files.tree.oid(row) for row in order]
        reading.ahead.follow(order)
        await settle()
        reading.open(*order[:300])
        await settle()
        assert reading.window.take_spent(200) == oids[:200]
        assert reading.window.take_spent(200) == oids[200 : 300 - LATEST]
        assert reading.window.take_spent(200) == []
        assert [reading.window.is_wanted(oid) for oid in oids] == [False] * 300 + [True] * 100

    run(tmp_path, test)


def test_epochs_follow_each_other(tmp_path: Path) -> None:
    """The order of one is that of the next; it is kept, by each and by the end."""

    async def test(reading: Reading) -> None:
        reading.files.gate.set()
        order = order_of(reading)
        assert reading.open(*order) == 0
        for _ in range(3):
            missed = 0
            for row in order:
                missed += not reading.open(row)
                await settle()
            assert missed <= 8
        assert reading.ahead.report().order == "trace"
        reading.ahead.keep_now()
        assert trace_path(tmp_path / "t.tree").exists()

    run(tmp_path, test)


def test_the_end_keeps_what_is_still_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that writes the order of an epoch has not come to it when the mount ends."""

    async def test(reading: Reading) -> None:
        held, write_trace = threading.Event(), prefetcher.write_trace

        def write_late(path: Path, tree: Tree, order: array[int]) -> None:
            if threading.current_thread() is not threading.main_thread():
                assert held.wait(60)
            write_trace(path, tree, order)

        monkeypatch.setattr(prefetcher, "write_trace", write_late)
        reading.files.gate.set()
        order = order_of(reading)
        reading.open(*order)
        reading.open(*order[:100])
        await settle()
        assert reading.ahead.report().order == "trace"
        assert not trace_path(tmp_path / "t.tree").exists()
        reading.ahead.keep_now()
        assert trace_path(tmp_path / "t.tree").exists()
        held.set()

    run(tmp_path, test)


@given(data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_is_left_behind(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever is read, hinted and refused, in whatever order: bounds hold, and all is closed in the end."""
    count = 60
    steps = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(["open", "hint", "settle", "follow", "gate", "along"]),
                st.integers(1, count),
                st.integers(1, 40),
            ),
            max_size=40,
        )
    )
    failing = data.draw(st.sets(st.integers(1, count), max_size=30))
    memory = data.draw(st.booleans())
    kept = data.draw(st.booleans())

    async def test(reading: Reading) -> None:
        reading.files.failing, reading.files.memory, reading.files.kept = failing, memory, kept
        order = order_of(reading)
        for what, row, many in steps:
            if what == "open":
                reading.open(row)
            elif what == "along":
                reading.open(*order[row - 1 : row - 1 + many])
            elif what == "hint":
                reading.ahead.hint(order[row - 1 : row - 1 + many])
            elif what == "follow":
                reading.ahead.follow(order[:many])
            elif what == "gate":
                reading.files.gate.set()
                reading.files.gate = trio.Event()
            await settle()
            window = reading.window
            assert window.files <= window.most_files
            assert window.bytes <= window.most_bytes
            assert window.running <= AT_ONCE
        reading.ahead.stop()
        await settle()

    run(tmp_path_factory.mktemp("ahead"), test, count=count, limits=Limits(size=80 * SIZE))


def test_each_file_is_brought_once(tmp_path: Path) -> None:
    async def test(reading: Reading) -> None:
        reading.files.gate.set()
        order = order_of(reading)
        reading.ahead.follow(order)
        readers = [order[start::4] for start in range(4)]
        for together in zip(*readers, strict=True):
            for row in reversed(together):
                reading.open(row)
            await settle()
        assert max(Counter(reading.files.asked).values()) == 1

    run(tmp_path, test)
