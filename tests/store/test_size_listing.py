"""Directories are listed side by side, those that somebody waits for first."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from store.errors import RemoteSlow
from store.size_listing import AT_ONCE, AWAITED_AT_ONCE, PATIENCE, Directory, SizeListing

ALL = [Directory("md5", f"{number:02x}") for number in range(256)]


class Remote:
    """Lists when it is told to."""

    def __init__(self) -> None:
        self.begun: list[Directory] = []
        self.listed: list[Directory] = []
        self.turn = trio.Semaphore(0)
        self.fails = False

    async def list(self, directory: Directory) -> None:
        self.begun.append(directory)
        await self.turn.acquire()
        if self.fails:
            raise RemoteSlow("it does not list")
        self.listed.append(directory)

    def go_on(self, times: int) -> None:
        for _ in range(times):
            self.turn.release()


def test_what_somebody_waits_for_is_listed_before_others() -> None:
    async def main() -> None:
        remote = Remote()
        listing = SizeListing(remote.list)
        came: list[Directory] = []

        async def wait(directory: Directory) -> None:
            await listing.await_listed(directory)
            came.append(directory)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listing.run, [(directory, directory) for directory in ALL])
            await wait_all_tasks_blocked()
            assert remote.begun == ALL[:AT_ONCE]
            for awaited in ALL[-20:]:
                nursery.start_soon(wait, awaited)
            nursery.start_soon(wait, ALL[0])
            await wait_all_tasks_blocked()
            assert len(remote.begun) == AWAITED_AT_ONCE
            remote.go_on(20 + AT_ONCE)
            await wait_all_tasks_blocked()
            assert set(remote.listed) == {*ALL[:AT_ONCE], *ALL[-20:]}
            assert set(came) == {ALL[0], *ALL[-20:]}
            remote.go_on(len(ALL))
        assert sorted(remote.begun) == ALL
        await listing.await_listed(ALL[0])
        await listing.await_listed(Directory("sha", "00"))

    trio.run(main)


def test_nobody_waits_for_long() -> None:
    async def main() -> None:
        remote = Remote()
        listing = SizeListing(remote.list)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listing.run, [(directory, directory) for directory in ALL])
            await wait_all_tasks_blocked()
            began = trio.current_time()
            await listing.await_listed(ALL[-1])
            assert trio.current_time() - began == pytest.approx(PATIENCE)
            await listing.await_listed(ALL[-2])  # nobody else finds that out for himself
            assert trio.current_time() - began == pytest.approx(PATIENCE)
            remote.go_on(len(ALL))

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_failure_ends_it_and_all_waiting() -> None:
    async def main() -> None:
        remote = Remote()
        remote.fails = True
        listing = SizeListing(remote.list)
        async with trio.open_nursery() as nursery:
            for directory in (ALL[0], ALL[-1]):
                nursery.start_soon(_wait_when_begun, listing, directory)
            remote.go_on(1)
            with pytest.raises(RemoteSlow, match="does not list"):
                await listing.run([(directory, directory) for directory in ALL])
        assert len(remote.begun) <= AWAITED_AT_ONCE
        await listing.await_listed(ALL[-1])

    async def _wait_when_begun(listing: SizeListing[Directory], directory: Directory) -> None:
        await wait_all_tasks_blocked()
        await listing.await_listed(directory)

    trio.run(main)
