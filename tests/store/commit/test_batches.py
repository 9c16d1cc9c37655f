"""`Batches`: what is published when."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing

import pytest

from store.commit.batches import Batches
from store.commit.publish import Staged
from tests.patience import SECONDS, until


class Disk:
    """Publishes a batch when it is allowed to."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.allowed = threading.Semaphore(0)

    def publish(self, batch: Sequence[Staged]) -> int:
        self.begun.append(len(batch))
        assert self.allowed.acquire(timeout=SECONDS)
        return len(batch)


@pytest.mark.parametrize(("size", "least"), [(1, 4), (100, 2)])
def test_a_batch_is_what_came_meanwhile(size: int, least: int) -> None:
    """Of at most 64 files or 2400 bytes, and at least a sixteenth of that."""
    disk = Disk()
    with closing(Batches(disk, 64, 2400)) as batches:
        for _ in range(least):
            assert not disk.begun
            _add(batches, size)
        until(lambda: disk.begun == [least], "the first batch is published")
        for _ in range(10):
            _add(batches, size)
        assert disk.begun == [least]  # as long as it takes
        disk.allowed.release(2)
        _finish(batches, disk, least + 10)


def test_a_full_batch_waits_for_the_one_before() -> None:
    disk = Disk()
    with closing(Batches(disk, 64, 10_000)) as batches:
        for _ in range(4 + 63):
            _add(batches, 1)
        until(lambda: disk.begun == [4])
        filler = threading.Thread(target=_add, args=(batches, 1))
        filler.start()
        disk.allowed.release(2)
        filler.join(SECONDS)
        assert not filler.is_alive()
        _finish(batches, disk, 68)
    assert disk.begun == [4, 64]


def _add(batches: Batches, size: int) -> None:
    batches.add(Staged("name", "oid", size))


def _finish(batches: Batches, disk: Disk, published: int) -> None:
    disk.allowed.release(10)
    assert batches.finish() == published
