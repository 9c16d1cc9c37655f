"""A fetch whose remotes answer nothing ends, however many files are left. Hours pass by the test's clock."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing

from fusefs.fetching import SILENT_SECONDS, Tally, fetch_files
from store.errors import ObjectMissing, RemoteSlow
from store.open_objects import Brought
from store.tree import UNKNOWN, Tree
from store.tree_compiler import Leaf, compile_tree, write_tree

FILES = 10_000
JOBS = 8
DEADLINE = 30.0
"""Seconds for which a file is waited for."""


@dataclass
class Silent:
    """Files of which none can be had."""

    tree: Tree
    rows: list[int]
    asked: list[int] = field(default_factory=list)
    says: Callable[[int], Exception] = lambda row: RemoteSlow("r says: later")
    meanwhile: Callable[[], object] = lambda: None

    @property
    def sizes(self) -> Sequence[int]:
        return array("q", [UNKNOWN]) * self.tree.rows

    async def missing(self, rows: Sequence[int]) -> list[int]:
        return list(rows)

    async def bring(self, row: int, largest: int | None = None) -> Brought | None:
        self.asked.append(row)
        await trio.sleep(DEADLINE)
        self.meanwhile()
        raise self.says(row)


@pytest.fixture
def silent(tmp_path: Path) -> Silent:
    leaves = [Leaf(b"%05d" % number, number.to_bytes(16, "big")) for number in range(FILES)]
    path = tmp_path / "tree"
    write_tree(compile_tree(leaves, "t"), path)
    tree = Tree.open(path)
    return Silent(tree, list(range(1, FILES + 1)))


def fetch(silent: Silent, received: Callable[[], int] = lambda: 0) -> tuple[Tally, float]:
    """What became of it, and the seconds that it took."""
    tally = Tally()

    async def drain() -> None:
        pass

    async def work() -> float:
        await fetch_files(silent, silent.rows, tally, jobs=JOBS, drain=drain, received=received)
        return trio.current_time()

    clock = trio.testing.MockClock(autojump_threshold=0)
    return tally, trio.run(work, clock=clock)


def test_after_minutes_without_an_answer_no_more_is_asked_for(silent: Silent) -> None:
    tally, seconds = fetch(silent)
    assert SILENT_SECONDS <= seconds <= SILENT_SECONDS + 2 * DEADLINE
    assert len(silent.asked) < 2 * JOBS * SILENT_SECONDS / DEADLINE
    assert tally.gave_up
    assert {kind: failure.files for kind, failure in tally.failures.items()} == {"slow": FILES}
    assert (tally.left, tally.left_unknown) == (0, 0)


def test_who_is_told_that_something_is_missing_asks_on(silent: Silent) -> None:
    silent.rows = silent.rows[:1000]
    silent.says = lambda row: ObjectMissing("r lacks it") if row % 10 == 0 else RemoteSlow("r says: later")
    tally, _ = fetch(silent)
    assert sorted(silent.asked) == silent.rows
    assert not tally.gave_up


def test_while_bytes_come_nothing_is_given_up(silent: Silent) -> None:
    silent.rows = silent.rows[:1000]
    came: list[int] = []
    silent.meanwhile = lambda: came.append(1)
    tally, _ = fetch(silent, received=lambda: len(came))
    assert sorted(silent.asked) == silent.rows
    assert not tally.gave_up
