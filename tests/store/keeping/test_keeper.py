"""The keeper of a daemon, with real threads and a remote that is a directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from store.budget import Limits
from store.fetching.remote_pool import RemotePool
from store.fetching.remote_set import RemoteSet
from store.keeping.cache_locks import SWEEPING, sole
from store.keeping.confirmation import SEVERAL, confirm_now, is_elsewhere
from store.keeping.keeper import DRY_SECONDS, FAILURES, Keeper, confirm
from store.keeping.known_remotes import KnownRemotes
from store.ledger import Ledger
from store.metrics import Metrics
from store.oid import Oid
from store.remotes.opening import open_remote
from store.remotes.spec import RemoteSpec
from store.threads import Threads
from tests.store.keeping.conftest import Cache

BLOCK = 4096


class Bench:
    """A cache, a remote that has a copy of all that is put there, and keepers."""

    def __init__(self, cache: Cache, directory: Path) -> None:
        self.cache = cache
        self.own = directory / "own"
        self.spec = RemoteSpec("near", str(directory / "remote"))
        self.threads = Threads()
        self.pool = RemotePool(open_remote, Metrics())
        self.known = KnownRemotes(cache.root, lambda spec: RemoteSet((spec,), self.pool, self.threads))
        self.known.add([self.spec])

    def keeper(self, limits: Limits) -> Keeper:
        return Keeper(self.cache.root, self.own, limits, self.threads, self.known.find)

    def copy(self, oid: Oid) -> None:
        """The remote has it, too."""
        there = Path(self.spec.url) / self.cache.path(oid).relative_to(self.cache.root)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.cache.path(oid), there)

    def arrive(self, keeper: Keeper, data: bytes, remote: str | None = None) -> Oid:
        oid = self.cache.put(data)
        self.copy(oid)
        keeper.note_arrival(oid, len(data), self.spec.identity if remote is None else remote)
        return oid

    def here(self, oids: list[Oid]) -> list[bool]:
        return [self.cache.path(oid).exists() for oid in oids]


@pytest.fixture
def bench(cache: Cache, tmp_path: Path) -> Callable[[], Bench]:
    return lambda: Bench(cache, tmp_path)


def test_it_keeps_within_its_bound(bench: Callable[[], Bench]) -> None:
    async def main() -> None:
        work = bench()
        keeper = work.keeper(Limits(size=10 * BLOCK))
        made = []
        for number in range(20):
            made.append(work.arrive(keeper, b"%d" % number))
            await keeper.attend()
            assert sum(work.here(made)) <= 10
        assert keeper.may_keep(1)
        assert work.here(made)[-1]
        keeper.close()

    trio.run(main)


def test_what_was_deleted_is_let_go_of(bench: Callable[[], Bench]) -> None:
    """By whoever holds on to it, before it is asked what is free."""

    async def main() -> None:
        work = bench()
        keeper = work.keeper(Limits(size=10 * BLOCK))
        found: list[list[bool]] = []

        async def let_go() -> None:
            found.append(work.here(made))

        keeper.after_sweep = let_go
        made = [work.arrive(keeper, b"%d" % number) for number in range(2)]
        await keeper.attend()
        assert found == []
        made.extend(work.arrive(keeper, b"%d" % number) for number in range(2, 20))
        await keeper.attend()
        assert found == [work.here(made)]
        assert sum(found[0]) <= 10
        keeper.close()

    trio.run(main)


def test_at_the_bound_with_nothing_to_evict(bench: Callable[[], Bench]) -> None:
    async def main() -> None:
        work = bench()
        keeper = work.keeper(Limits(size=2 * BLOCK))
        made = [work.arrive(keeper, b"%d" % number, "gone 0123") for number in range(3)]
        await keeper.attend()
        assert work.here(made) == [True] * 3
        assert not keeper.may_keep(1)
        keeper.close()

    trio.run(main)


def test_the_room_to_leave_free_is_heeded_before_all_has_been_measured(bench: Callable[[], Bench]) -> None:
    async def main() -> None:
        work = bench()
        with closing(work.keeper(Limits(free=1 << 60))) as keeper:
            assert not keeper.may_keep(1)
            assert not keeper.is_measured.is_set()
        with closing(work.keeper(Limits(free=1))) as keeper:
            assert keeper.may_keep(1)

    trio.run(main)


def test_it_tries_again_when_something_may_have_changed(bench: Callable[[], Bench]) -> None:
    clock = trio.testing.MockClock()

    async def main() -> None:
        work = bench()
        keeper = work.keeper(Limits(size=2 * BLOCK))
        made = [work.arrive(keeper, b"%d" % number) for number in range(3)]
        with sole(work.cache.root, SWEEPING) as alone:  # as another daemon does
            assert alone
            await keeper.attend()
            assert work.here(made) == [True] * 3
        clock.jump(DRY_SECONDS)
        await keeper.attend()
        assert work.here(made) == [False, False, True]
        keeper.close()

    trio.run(main, clock=clock)


def test_it_writes_down_uses_and_ends_with_what_waits_written(bench: Callable[[], Bench]) -> None:
    async def main() -> None:
        work = bench()
        keeper = work.keeper(Limits())
        oid = work.arrive(keeper, b"data")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            await trio.testing.wait_all_tasks_blocked()
            while keeper.ledger.is_waiting:
                await trio.sleep(0)
            other = work.arrive(keeper, b"more")
            keeper.note_use(oid)
            nursery.cancel_scope.cancel()
        keeper.close()
        with closing(Ledger(work.cache.root)) as ledger:
            assert {found.oid for found in ledger.find([oid, other])} == {oid, other}

    trio.run(main)


def test_only_the_remote_that_an_object_came_from_is_believed(bench: Callable[[], Bench]) -> None:
    async def main() -> None:
        work = bench()
        with closing(Ledger(work.cache.root)) as ledger:
            from_near, from_far, from_several, shorter, missing = (
                work.cache.put(b"%d" % n) for n in range(5)
            )
            for oid in (from_near, from_far, from_several, shorter):
                work.copy(oid)
            path = Path(work.spec.url) / work.cache.path(shorter).relative_to(work.cache.root)
            path.chmod(0o644)
            path.write_bytes(b"")
            for oid in (from_near, shorter, missing):
                ledger.arrived(oid, 1, work.spec.identity)
            ledger.arrived(from_far, 1, "far 0123")
            ledger.arrived(from_several, 1, SEVERAL)
            ledger.flush()
            fetched = list(ledger.by_use(again=False))
        assert len(fetched) == 5
        expected = {from_near, from_several}
        assert await confirm(fetched, work.known.find) == expected
        remote = open_remote(work.spec)
        assert confirm_now(fetched, {work.spec.identity: remote}) == expected
        remote.storage.close()

    trio.run(main)


def test_a_remote_that_fails_is_not_asked_for_ever(bench: Callable[[], Bench]) -> None:
    async def main() -> None:
        work = bench()
        made = [work.cache.fetch(b"%d" % number, work.spec.identity) for number in range(3 * FAILURES)]
        with closing(Ledger(work.cache.root)) as ledger:
            fetched = ledger.find(made)
        far = RemoteSpec("far", "s3://bucket/prefix")
        offline = RemoteSet((far,), work.pool, work.threads, offline=True)
        asked = []

        def find(identity: str) -> list[RemoteSet]:
            asked.append(identity)
            return [offline]

        assert await confirm(fetched, find) == set()
        assert len(asked) == len(made) > FAILURES

    trio.run(main)


@pytest.mark.parametrize(
    ("url", "elsewhere"),
    [
        ("{cache}", False),
        ("{cache}/files", False),
        ("{cache}/..", False),
        ("{link}", False),
        ("file://{cache}", False),
        ("{cache}-other", True),
        ("s3://bucket/cache", True),
    ],
)
def test_a_directory_that_leads_to_the_cache_is_no_remote(tmp_path: Path, url: str, elsewhere: bool) -> None:
    cache, link = tmp_path / "deep/cache", tmp_path / "link"
    cache.mkdir(parents=True)
    link.symlink_to(cache)
    assert is_elsewhere(RemoteSpec("r", url.format(cache=cache, link=link)), cache) == elsewhere
