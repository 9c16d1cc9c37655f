"""Bytes and sizes come right by every path: from the loop, from a thread, around holes in what is known."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest
import trio

from store import content_store as module
from store import tree_files
from store.cache_chain import CacheChain
from store.content_store import ContentStore
from store.errors import CacheUnusable, ObjectCorrupt, ObjectMissing, StoreError
from store.fetcher import Fetcher, Source
from store.layouts import object_path
from store.local_cache import LocalCache
from store.oid import Oid
from store.open_objects import OpenFile
from store.pace import QUICK_ONES, QUICK_SECONDS, DiskPace
from store.size_finder import SizeFinder
from store.sizes import SizeIndex
from store.threads import Threads
from store.tree import UNKNOWN, Tree
from store.tree_compiler import Leaf, compile_tree, write_tree
from store.tree_files import TreeFiles
from tests.descriptors import open_below

CONTENTS = {b"a": b"alpha", b"d/b": b"beta" * 50_000, b"d/empty": b"", b"d/gone": b"was never cached"}


class Fixture:
    def __init__(self, tmp_path: Path, *, sizes_known: bool) -> None:
        self.root = tmp_path / "cache"
        leaves = []
        for path, data in CONTENTS.items():
            digest = hashlib.md5(data).digest()
            leaves.append(Leaf(path, digest, len(data) if sizes_known else UNKNOWN))
            if b"gone" not in path:
                self.object(data).parent.mkdir(parents=True, exist_ok=True)
                self.object(data).write_bytes(data)
        write_tree(compile_tree(leaves, "t"), tmp_path / "t.tree")
        self.tree = Tree.open(tmp_path / "t.tree")

    def object(self, data: bytes) -> Path:
        return self.root / object_path(Oid(hashlib.md5(data).hexdigest()))

    def row(self, path: bytes) -> int:
        row = self.tree.find(path)
        assert row is not None
        return row

    @asynccontextmanager
    async def files(self, source: Source | None = None) -> AsyncIterator[TreeFiles]:
        async with trio.open_nursery() as nursery:
            threads = Threads()
            blobs = LocalCache(self.root.with_name("blobs"))
            self.store = ContentStore(
                LocalCache(self.root), blobs, threads, Fetcher(threads, nursery), DiskPace(is_local=True)
            )
            index = SizeIndex(self.root.with_name("index"))
            finder = SizeFinder(CacheChain(LocalCache(self.root)), index, threads, nursery)
            yield TreeFiles(self.tree, self.store, source, finder=finder)
            index.close()


@pytest.fixture(params=[True, False], ids=["sizes known", "sizes unknown"])
def fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Fixture:
    return Fixture(tmp_path, sizes_known=request.param)


async def read(files: TreeFiles, row: int, offset: int, length: int) -> bytes:
    opened = await files.open(row)
    try:
        return bytes(await files.read(row, opened, offset, length))
    finally:
        files.close(opened)


@pytest.mark.parametrize("nowait", ["page cache", "threads only"])
def test_every_range_is_the_objects(fixture: Fixture, nowait: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if nowait == "threads only":
        monkeypatch.setattr(module, "BUFFER_BYTES", 0)

    async def main() -> None:
        async with fixture.files() as files:
            for path, data in CONTENTS.items():
                if b"gone" in path:
                    continue
                for offset, length in (
                    (0, 1),
                    (0, 10**6),
                    (3, 4096),
                    (len(data) - 1, 9),
                    (len(data), 1),
                    (10**12, 5),
                ):
                    got = await read(files, fixture.row(path), max(offset, 0), length)
                    assert got == data[max(offset, 0) : max(offset, 0) + length]
            assert fixture.store.counters.hits == 18
            assert fixture.store.counters.misses == 0

    trio.run(main)


def test_a_miss_names_path_oid_and_remedy_and_is_counted(fixture: Fixture) -> None:
    async def main() -> None:
        async with fixture.files() as files:
            row = fixture.row(b"d/gone")
            with pytest.raises(ObjectMissing, match=f"'d/gone'.*{fixture.tree.oid(row)}.*dvc fetch"):
                await files.open(row)
            assert fixture.store.counters.misses == 1
            assert not await files.is_cached(row)

    trio.run(main)


def test_an_object_that_appears_is_served(fixture: Fixture) -> None:
    async def main() -> None:
        async with fixture.files() as files:
            row = fixture.row(b"d/gone")
            with pytest.raises(ObjectMissing):
                await files.open(row)
            data = CONTENTS[b"d/gone"]
            fixture.object(data).parent.mkdir(parents=True, exist_ok=True)
            fixture.object(data).write_bytes(data)
            assert await read(files, row, 0, 99) == data

    trio.run(main)


def test_an_object_of_another_length_is_refused(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, sizes_known=True)
    fixture.object(b"alpha").write_bytes(b"alphabet")

    async def main() -> None:
        async with fixture.files() as files:
            with pytest.raises(ObjectCorrupt, match=r"'a'.*8 bytes and not 5"):
                await files.open(fixture.row(b"a"))
            assert fixture.store.counters.hits == 0

    trio.run(main)
    assert set(open_below(fixture.root)) <= {str(fixture.root)}


def test_an_object_that_is_cut_while_open_is_an_error_and_never_short(fixture: Fixture) -> None:
    data = CONTENTS[b"d/b"]

    async def main() -> None:
        async with fixture.files() as files:
            opened = await files.open(fixture.row(b"d/b"))
            os.truncate(fixture.object(data), 1000)
            assert bytes(await files.read(fixture.row(b"d/b"), opened, 0, 1000)) == data[:1000]
            with pytest.raises(ObjectCorrupt, match="shorter"):
                await files.read(fixture.row(b"d/b"), opened, 0, 2000)
            files.close(opened)

    trio.run(main)


def test_an_object_that_is_removed_while_open_keeps_its_bytes(fixture: Fixture) -> None:
    async def main() -> None:
        async with fixture.files() as files:
            opened = await files.open(fixture.row(b"a"))
            fixture.object(b"alpha").unlink()
            assert bytes(await files.read(fixture.row(b"a"), opened, 0, 9)) == b"alpha"
            files.close(opened)
            with pytest.raises(ObjectMissing):
                await files.open(fixture.row(b"a"))

    trio.run(main)


def test_sizes_are_learnt_once_and_never_guessed(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, sizes_known=False)

    async def main() -> None:
        async with fixture.files() as files:
            rows = range(1, fixture.tree.rows)
            listed = [row for row in rows if not fixture.tree.is_directory(row)]
            assert files.sizes_unknown == len(CONTENTS)
            await files.learn_around(listed[0])
            assert files.sizes[fixture.row(b"d/b")] == 200_000
            assert files.sizes[fixture.row(b"d/empty")] == 0
            assert files.sizes[fixture.row(b"d/gone")] == UNKNOWN
            assert files.size_now(fixture.row(b"d/gone")) == UNKNOWN
            with pytest.raises(ObjectMissing):
                await files.size(fixture.row(b"d/gone"))
            assert files.sizes_unknown == 1
            assert files.bytes_known == 200_005
            fixture.object(b"alpha").unlink()
            assert await files.size(fixture.row(b"a")) == 5
            assert await files.measure_cached() == 200_000

    trio.run(main)


class SlowSource:
    """Publishes an object once it is let go on."""

    def __init__(self, fixture: Fixture, data: bytes, error: Exception | None = None) -> None:
        self.calls = 0
        self.started = threading.Event()
        self.go_on = threading.Event()
        self._object = fixture.object(data)
        self._data = data
        self._error = error

    def bring(self, oid: Oid) -> None:
        self.calls += 1
        self.started.set()
        assert self.go_on.wait(60)
        if self._error is not None:
            raise self._error
        self._object.parent.mkdir(parents=True, exist_ok=True)
        part = self._object.with_name("part")
        part.write_bytes(self._data)
        part.rename(self._object)  # whole, as whoever brings objects has them appear


def test_many_readers_of_one_miss_cause_one_fetch_and_one_that_leaves_takes_no_other_along(
    fixture: Fixture,
) -> None:
    data = CONTENTS[b"d/gone"]
    source = SlowSource(fixture, data)
    got = []

    async def main() -> None:
        async with fixture.files(source) as files:
            row = fixture.row(b"d/gone")

            async def reader() -> None:
                got.append(await read(files, row, 0, 99))

            async with trio.open_nursery() as readers:
                hasty = trio.CancelScope()

                async def leave() -> None:
                    with hasty:
                        await reader()

                readers.start_soon(leave)
                for _ in range(10):
                    readers.start_soon(reader)
                await trio.to_thread.run_sync(source.started.wait)
                hasty.cancel()
                source.go_on.set()

    trio.run(main)
    assert got == [data] * 10
    assert source.calls == 1


@pytest.mark.parametrize("error", [CacheUnusable("full"), RuntimeError("a bug")], ids=["store error", "bug"])
def test_a_fetch_that_fails_tells_every_reader_and_is_tried_again(fixture: Fixture, error: Exception) -> None:
    source = SlowSource(fixture, CONTENTS[b"d/gone"], error)
    source.go_on.set()
    failures = []

    async def main() -> None:
        async with fixture.files(source) as files:

            async def reader() -> None:
                with pytest.raises(StoreError, match=f"'d/gone'.*{error}") as caught:
                    await files.open(fixture.row(b"d/gone"))
                failures.append(caught.value)

            for _ in range(2):
                async with trio.open_nursery() as readers:
                    for _ in range(5):
                        readers.start_soon(reader)

    trio.run(main)
    assert len(failures) == 10
    assert source.calls >= 2


def test_a_quick_disk_is_read_on_the_loop_and_a_slow_one_by_threads(fixture: Fixture) -> None:
    """Either way the bytes are the same; who has been slow is not waited for."""

    async def main() -> None:
        async with fixture.files() as files:
            row = fixture.row(b"a")
            pace = fixture.store.pace
            for _ in range(QUICK_ONES):
                pace.took(0.0, monotonic())
            for is_quick in (True, False):
                assert pace.is_quick(monotonic()) is is_quick
                opened = await files.open(row)
                assert isinstance(opened, OpenFile)
                os.posix_fadvise(opened.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                assert bytes(await files.read(row, opened, 0, 1 << 20)) == CONTENTS[b"a"]
                files.close(opened)
                pace.took(1.0, monotonic())

    trio.run(main)


def test_a_disk_shows_itself_quick_by_what_it_says_of_missing_objects_too(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def size(_: LocalCache, oid: Oid) -> int:
        asked.append(threading.get_ident())
        raise ObjectMissing(str(oid))

    monkeypatch.setattr(LocalCache, "try_size", _not_at_once)
    monkeypatch.setattr(LocalCache, "size", size)
    monkeypatch.setattr(module, "monotonic", itertools.count(0.0, QUICK_SECONDS / 10).__next__)

    async def main() -> None:
        async with fixture.files():
            oid = fixture.tree.oid(fixture.row(b"d/gone"))
            for _ in range(2 * QUICK_ONES):
                assert await fixture.store.length(oid) == UNKNOWN

    trio.run(main)
    here = threading.get_ident()
    assert [asker == here for asker in asked] == [False] * QUICK_ONES + [True] * QUICK_ONES


def _not_at_once(cache: LocalCache, oid: Oid) -> int:
    """What the kernel says of names that it does not remember."""
    raise BlockingIOError


def test_where_many_are_missing_the_disk_is_asked_only_for_what_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = Fixture(tmp_path, sizes_known=True)
    rows = [fixture.row(b"a"), fixture.row(b"d/b")]

    async def main() -> None:
        async with fixture.files() as files:
            assert [await files.is_here_as_told(row) for row in rows] == [True, True]
            assert not await files.is_here_as_told(fixture.row(b"d/gone"))
            monkeypatch.setattr(LocalCache, "try_size", _not_at_once)
            assert [await files.is_here_as_told(row) for row in rows] == [False, False]
            monkeypatch.setattr(tree_files, "WHOLE_LIMIT", files.sizes[rows[0]])
            assert [await files.is_here_as_told(row) for row in rows] == [False, True]

    trio.run(main)
