"""Sizes are found without bytes, by few questions, and nobody waits longer than agreed."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from store import size_finder, size_learner, size_listing, size_survey
from store.cache_chain import CacheChain
from store.content_store import ContentStore
from store.errors import ObjectCorrupt, ObjectMissing, RemoteDenied, RemoteSlow, RemoteUnreachable, StoreError
from store.fetcher import Fetcher
from store.fetching.remote_pool import RemotePool
from store.fetching.remote_set import RemoteSet
from store.layouts import object_path
from store.learnt_sizes import kept_path
from store.local_cache import LocalCache
from store.metrics import Metrics
from store.oid import MD5, Oid
from store.pace import DiskPace
from store.remotes.local import open_local
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Address, Body, Limits, Listed, Storage
from store.size_finder import SizeFinder
from store.sizes import How, Learnt, Size, SizeIndex
from store.threads import Threads
from store.tree import UNKNOWN, Tree
from store.tree_compiler import Leaf, compile_tree, write_tree
from store.tree_files import TreeFiles
from tests.descriptors import open_below
from tests.store.conftest import LONG

pytestmark = pytest.mark.usefixtures("unhurried")

SECONDS = 60.0


class Watched:
    """A storage that counts what it is asked, and fails or stalls where it is told to."""

    def __init__(self, inner: Storage, can_list: bool) -> None:
        self._inner = inner
        self.can_list = can_list
        self.asked: Counter[str] = Counter()
        self.error: StoreError | None = None
        self.denies_lists = False
        self.go_on = threading.Event()
        self.go_on.set()

    def _ask(self, what: str) -> None:
        self.asked[what] += 1
        assert self.go_on.wait(SECONDS)
        if self.error is not None:
            raise self.error

    def size(self, address: Address) -> int:
        self._ask("size")
        return self._inner.size(address)

    def list(self, prefix: str) -> Iterator[Listed]:
        self._ask("list")
        if self.denies_lists:
            raise RemoteDenied("no listings here")
        return self._inner.list(prefix)

    def read(
        self, address: Address, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> AbstractContextManager[Body]:
        raise AssertionError("no bytes are needed for sizes")

    def renew(self) -> None: ...

    def close(self) -> None: ...


class World:
    """A cache, a remote, and what a daemon has of them."""

    def __init__(self, root: Path, count: int, can_list: bool = True) -> None:
        self.cache, self.remote = root / "cache", root / "remote"
        self.cache.mkdir()
        self.remote.mkdir()
        (root / "index").mkdir(0o700)
        self.index = SizeIndex(root / "index")
        self.data = {b"%d" % n: b"x" * (n % 97) + b"%d" % n for n in range(count)}
        leaves = [Leaf(path, hashlib.md5(data).digest()) for path, data in self.data.items()]
        self.path = root / "t.tree"
        write_tree(compile_tree(leaves, "t"), self.path)
        self.tree = Tree.open(self.path)
        self.storage = Watched(open_local(RemoteSpec("far", str(self.remote)), Limits()), can_list)
        self.spec = RemoteSpec("far", "https://far.test")

    def put(self, root: Path, name: bytes, data: bytes | None = None) -> None:
        path = root / object_path(self.oid(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.data[name] if data is None else data)

    def fill(self, root: Path) -> None:
        for name in self.data:
            self.put(root, name)

    def oid(self, name: bytes) -> Oid:
        return Oid(hashlib.md5(self.data[name]).hexdigest())

    def row(self, name: bytes) -> int:
        row = self.tree.find(name)
        assert row is not None
        return row

    def sizes(self, files: TreeFiles) -> Mapping[bytes, int]:
        return {name: files.sizes[self.row(name)] for name in self.data}

    @property
    def right(self) -> Mapping[bytes, int]:
        return {name: len(data) for name, data in self.data.items()}

    @asynccontextmanager
    async def daemon(self, *, remote: bool = True, offline: bool = False) -> AsyncIterator[TreeFiles]:
        pool = RemotePool(lambda spec: Remote(spec.name, self.storage), Metrics())
        caches = CacheChain(LocalCache(self.cache))
        threads = Threads()
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(SECONDS):
                    self.finder = SizeFinder(caches, self.index, threads, nursery)
                    self.remotes = RemoteSet([self.spec] if remote else [], pool, threads, offline=offline)
                    blobs = LocalCache(self.cache.with_name("blobs"))
                    store = ContentStore(
                        caches, blobs, threads, Fetcher(threads, nursery), DiskPace(is_local=True)
                    )
                    yield TreeFiles(
                        self.tree, store, finder=self.finder, remotes=self.remotes, kept=kept_path(self.path)
                    )
                    self.storage.go_on.set()
                nursery.cancel_scope.cancel()
        finally:
            self.storage.go_on.set()


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_survey, "REST_SECONDS", 0.0)
    monkeypatch.setattr(size_finder, "MISSING_SECONDS", LONG)


NewWorld = Callable[..., World]


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[NewWorld]:
    made: list[World] = []

    def make(count: int, *, can_list: bool = True) -> World:
        made.append(World(tmp_path, count, can_list))
        return made[-1]

    yield make
    for world in made:
        world.index.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let others go on until it is so; the daemon's deadline ends what never is."""
    while not condition():
        await trio.sleep(0.005)


def test_many_who_ask_cause_one_question_and_the_next_daemon_asks_none(new_world: NewWorld) -> None:
    world = new_world(3)
    world.fill(world.remote)
    got: list[int] = []

    async def main() -> None:
        async with world.daemon():
            world.storage.go_on.clear()

            async def ask(scope: trio.CancelScope) -> None:
                with scope:
                    got.append(await world.finder.size(world.oid(b"1"), world.remotes))

            async with trio.open_nursery() as asking:
                hasty = trio.CancelScope()
                asking.start_soon(ask, hasty)
                for _ in range(5):
                    asking.start_soon(ask, trio.CancelScope())
                await until(lambda: world.storage.asked["size"] > 0)
                hasty.cancel()
                world.storage.go_on.set()
            await until(lambda: world.index.look_up([world.oid(b"1").raw], MD5) == [len(world.data[b"1"])])
        async with world.daemon(remote=False):
            assert await world.finder.size(world.oid(b"1")) == len(world.data[b"1"])

    trio.run(main)
    assert got == [len(world.data[b"1"])] * 5
    assert world.storage.asked == {"size": 1}


def test_what_nobody_has_is_asked_for_once_in_a_while(new_world: NewWorld) -> None:
    world = new_world(2)
    clock = trio.testing.MockClock(rate=1.0)

    async def main() -> None:
        async with world.daemon() as files:
            for _ in range(3):
                with pytest.raises(ObjectMissing, match=r"'0'.*in none of the remotes far"):
                    await files.size(world.row(b"0"))
            assert world.storage.asked["size"] <= 2  # the other one is asked for ahead
            world.put(world.cache, b"0")
            assert await files.size(world.row(b"0")) == 1  # the cache is always asked

    trio.run(main, clock=clock)


def test_nobody_waits_longer_than_agreed(new_world: NewWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_finder, "QUESTION_SECONDS", 0.1)
    world = new_world(200)
    world.fill(world.remote)

    async def main() -> None:
        async with world.daemon() as files:
            world.storage.go_on.clear()
            row = files.tree.children(0)[0]
            assert await files.learn_around(row) > 200  # a listing waits for no remote
            assert files.sizes_unknown == 200
            with pytest.raises(RemoteSlow):
                await files.size(row)

    trio.run(main)


def test_a_remote_that_fails_is_an_error_unless_something_is_remembered(new_world: NewWorld) -> None:
    world = new_world(2)
    world.index.learn([Learnt(world.oid(b"1").raw, 7, How.STAT, 5, 5)], MD5)

    async def main() -> None:
        async with world.daemon() as files:
            world.storage.error = RemoteDenied("no entry")
            with pytest.raises(RemoteDenied, match="no entry"):
                await files.size(world.row(b"0"))
            assert await files.size(world.row(b"1")) == 7

    trio.run(main)


def test_a_file_goes_before_what_a_remote_said_and_a_hash_before_both(new_world: NewWorld) -> None:
    world = new_world(3)
    world.put(world.cache, b"0", b"four")
    world.put(world.cache, b"1", b"four")
    rows = [(b"0", How.REMOTE), (b"1", How.HASHED), (b"2", How.STAT)]
    world.index.learn([Learnt(world.oid(name).raw, 9, how) for name, how in rows], MD5)

    async def main() -> None:
        async with world.daemon(remote=False):
            digests = [world.oid(name).raw for name, _ in rows]
            found = await world.finder.look(digests, MD5, remember=True)
            assert found == [Size(4, How.STAT), Size(9, How.HASHED), None]
            assert world.index.find(digests, MD5) == [
                Size(4, How.STAT), Size(9, How.HASHED), Size(9, How.STAT)
            ]  # fmt: skip

    trio.run(main)


def test_a_whole_tree_is_learnt_by_listing_and_known_at_the_next_mount(new_world: NewWorld) -> None:
    world = new_world(1500)
    world.fill(world.remote)
    kept = kept_path(world.path)

    async def main() -> None:
        async with world.daemon() as files:
            files.start_learning()
            await until(kept.exists)
            await until(lambda: not files.sizes_unknown)
            assert world.sizes(files) == world.right
        assert world.storage.asked["list"] <= 256
        assert not world.storage.asked["size"]
        world.storage.asked.clear()
        world.index.close()
        async with world.daemon(remote=True) as files:
            await files.learn_around(1)
            assert world.sizes(files) == world.right
            files.start_learning()
            files.stop_learning()

    trio.run(main)
    assert not world.storage.asked


def test_who_looks_at_many_files_in_no_order_has_all_listed_at_once(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No rest is waited for then, nor is anybody's question asked that a listing is about to answer."""
    monkeypatch.setattr(size_survey, "REST_SECONDS", LONG)
    monkeypatch.setattr(size_listing, "PATIENCE", LONG)
    monkeypatch.setattr(size_survey, "QUICK_SECONDS", LONG)
    world = new_world(1500)
    world.fill(world.remote)

    async def main() -> None:
        async with world.daemon() as files, trio.open_nursery() as nursery:

            async def look(row: int) -> None:
                assert await files.size(row) == world.right[files.tree.name(row)]

            files.start_learning()
            rows = files.tree.children(0)[:: size_learner.NEXT + 1]
            for row in rows[: size_learner.HURRYING_ROWS]:
                await look(row)
            asked = world.storage.asked
            assert asked["size"] == size_learner.HURRYING_ROWS
            await until(lambda: files._learner._surveying is None or _lists(files))
            for row in rows[size_learner.HURRYING_ROWS :]:
                nursery.start_soon(look, row)
            await until(lambda: not files.sizes_unknown)
        assert asked["size"] == size_learner.HURRYING_ROWS
        assert asked["list"] <= 256

    trio.run(main)


def _lists(files: TreeFiles) -> bool:
    surveying = files._learner._surveying
    return surveying is not None and surveying._listing is not None


def test_a_large_tree_is_learnt_by_a_process(new_world: NewWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = new_world(1500)
    world.fill(world.cache)
    monkeypatch.setattr(size_learner, "SWEPT_ROWS", 1500)

    async def look(*_: object, **__: object) -> list[Size | None]:
        raise AssertionError("the daemon looks itself")

    async def main() -> None:
        async with world.daemon(remote=False) as files:
            monkeypatch.setattr(SizeFinder, "look", look)
            world.finder.swept_with = world.path.with_name("index")
            files.start_learning()
            await until(kept_path(world.path).exists)
            await files.learn_around(1)
            assert world.sizes(files) == world.right

    trio.run(main)


def test_the_index_serves_other_trees(new_world: NewWorld) -> None:
    world = new_world(1000)
    world.fill(world.remote)

    async def main() -> None:
        async with world.daemon() as files:
            files.start_learning()
            digests = [world.oid(name).raw for name in world.data]
            await until(lambda: UNKNOWN not in world.index.look_up(digests, MD5))
        kept_path(world.path).unlink(missing_ok=True)
        world.storage.asked.clear()
        async with world.daemon() as files:
            await files.learn_around(1)
            assert world.sizes(files) == world.right

    trio.run(main)
    assert not world.storage.asked


def test_a_few_are_asked_one_by_one(new_world: NewWorld) -> None:
    world = new_world(6)
    world.fill(world.remote)
    world.put(world.cache, b"3")

    async def main() -> None:
        async with world.daemon() as files:
            files.start_learning()
            await until(lambda: not files.sizes_unknown)
            assert world.sizes(files) == world.right

    trio.run(main)
    assert world.storage.asked == {"size": 5}


@pytest.mark.parametrize("why", ["cannot", "must not"])
def test_a_remote_without_listings_is_not_asked_for_what_nobody_looks_at(
    new_world: NewWorld, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size_survey, "MOST_QUESTIONS", 500)
    world = new_world(700, can_list=why == "must not")
    world.storage.denies_lists = why == "must not"
    world.fill(world.remote)

    async def main() -> None:
        async with world.daemon() as files:
            learner = files._learner
            scope = trio.CancelScope()
            await learner._learn_all(scope)
            assert set(world.storage.asked) <= {"list"}
            children = files.tree.children(0)
            for row in (children[100], children[400], children[200]):  # in no order: none of the others
                assert await files.size(row) == world.right[files.tree.name(row)]
                assert not learner._ahead
            assert world.storage.asked["size"] == 3
            row = children[102]
            assert await files.size(row) == world.right[files.tree.name(row)]
            await until(lambda: not learner._ahead)
            rows = range(row, row + size_learner.LOOK_AHEAD)
            assert all(files.sizes[near] != UNKNOWN for near in rows)
            assert world.storage.asked["size"] == 3 + size_learner.LOOK_AHEAD

    trio.run(main)


def test_a_remote_that_fails_is_listed_again_and_named_once(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(size_survey, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(size_survey, "LONGEST_PAUSE", 0.01)
    world = new_world(600)
    world.fill(world.remote)
    caplog.set_level(logging.WARNING)

    async def main() -> None:
        async with world.daemon() as files:
            world.storage.error = RemoteUnreachable("it is off")
            files.start_learning()
            await until(lambda: world.storage.asked["list"] > 5)
            world.storage.error = None
            await until(lambda: not files.sizes_unknown)
            assert world.sizes(files) == world.right

    trio.run(main)
    assert sum("it is off" in record.message for record in caplog.records) == 1


def test_nothing_is_asked_while_offline(new_world: NewWorld) -> None:
    world = new_world(30)
    world.fill(world.remote)
    world.put(world.cache, b"3")

    async def main() -> None:
        async with world.daemon(offline=True) as files:
            await files._learner._learn_all(trio.CancelScope())
            assert files.sizes_unknown == 29
            with pytest.raises(StoreError, match="offline"):
                await files.size(world.row(b"4"))

    trio.run(main)
    assert not world.storage.asked


def test_what_is_missing_is_looked_for_less_and_less(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world(50)
    looks = 0
    look = LocalCache.look_at

    def count(self: LocalCache, digests: list[str], algorithm: str) -> object:
        nonlocal looks
        looks += 1
        return look(self, digests, algorithm)

    monkeypatch.setattr(LocalCache, "look_at", count)
    clock = trio.testing.MockClock()

    async def main() -> None:
        with trio.CancelScope():
            async with world.daemon(remote=False) as files:
                for _ in range(25):
                    await files.learn_around(1)
                    clock.jump(1.1)
                assert looks <= 6
                world.fill(world.cache)
                clock.jump(0.1)

    monkeypatch.setitem(globals(), "SECONDS", 1e6)
    trio.run(main, clock=clock)


def test_a_size_that_a_former_file_told_is_corrected_by_the_right_object(new_world: NewWorld) -> None:
    world = new_world(2)
    world.put(world.cache, b"0", b"cut")
    corrected: list[int] = []

    async def main() -> None:
        async with world.daemon(remote=False) as files:

            async def tell(row: int) -> None:
                corrected.append(row)

            files.corrected = tell
            row = world.row(b"0")
            assert await files.size(row) == 3
            world.put(world.cache, b"0")
            opened = await files.open(row)
            assert bytes(await files.read(row, opened, 0, 99)) == world.data[b"0"]
            files.close(opened)
            assert files.sizes[row] == files.bytes_known == len(world.data[b"0"])
            assert corrected == [row]
            world.put(world.cache, b"0", b"cut again")
            with pytest.raises(ObjectCorrupt, match="9 bytes and not 1"):
                await files.open(row)
            oid = world.oid(b"0")
            await until(lambda: world.index.find([oid.raw], MD5) == [Size(1, How.HASHED)])

    trio.run(main)


def test_the_right_object_is_served_though_remotes_that_told_another_size_are_away(
    new_world: NewWorld,
) -> None:
    world = new_world(1)
    world.put(world.remote, b"0", b"cut")

    async def main() -> None:
        async with world.daemon() as files:
            row = world.row(b"0")
            assert await files.size(row) == 3
            world.storage.error = RemoteUnreachable("off")
            world.put(world.cache, b"0")
            opened = await files.open(row)
            assert bytes(await files.read(row, opened, 0, 99)) == world.data[b"0"]
            files.close(opened)
            assert files.sizes[row] == len(world.data[b"0"])

    trio.run(main)


def test_another_wrong_object_is_corrupt(new_world: NewWorld) -> None:
    world = new_world(1)
    world.put(world.cache, b"0", b"cut")

    async def main() -> None:
        async with world.daemon(remote=False) as files:
            row = world.row(b"0")
            assert await files.size(row) == 3
            world.put(world.cache, b"0", b"longer")
            with pytest.raises(ObjectCorrupt, match=r"'0'.*6 bytes that are not its own; remove it"):
                await files.open(row)
            assert files.sizes[row] == 3

    trio.run(main)
    assert set(open_below(world.cache)) <= {str(world.cache)}


def test_what_a_daemon_learnt_is_kept_at_its_end(new_world: NewWorld) -> None:
    world = new_world(5)
    world.fill(world.remote)

    async def main() -> None:
        async with world.daemon() as files:
            await files.size(world.row(b"2"))
            await until(lambda: not files._learner._ahead)
            files.keep_sizes()
        world.index.close()
        world.storage.error = RemoteUnreachable("off")
        async with world.daemon() as files:
            await files.learn_around(1)
            assert files.sizes[world.row(b"2")] == len(world.data[b"2"])

    trio.run(main)
