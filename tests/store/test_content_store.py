"""Bytes and sizes come right by every path: from the loop, from a thread, around holes in what is known."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import trio

from store import content_store as module
from store.content_store import ContentStore
from store.errors import ObjectCorrupt, ObjectMissing
from store.layouts import object_path
from store.local_cache import LocalCache
from store.oid import Oid
from store.threads import Threads
from store.tree import UNKNOWN, Tree
from store.tree_compiler import Leaf, compile_tree, write_tree

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

    def store(self) -> ContentStore:
        return ContentStore(self.tree, LocalCache(self.root), Threads())


@pytest.fixture(params=[True, False], ids=["sizes known", "sizes unknown"])
def fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Fixture:
    return Fixture(tmp_path, sizes_known=request.param)


async def read(store: ContentStore, row: int, offset: int, length: int) -> bytes:
    opened = await store.open(row)
    try:
        return bytes(await store.read(opened, offset, length))
    finally:
        store.close(opened)


@pytest.mark.parametrize("nowait", ["page cache", "threads only"])
def test_every_range_is_the_objects(fixture: Fixture, nowait: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if nowait == "threads only":
        monkeypatch.setattr(module, "BUFFER_BYTES", 0)

    async def main() -> None:
        store = fixture.store()
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
                got = await read(store, fixture.row(path), max(offset, 0), length)
                assert got == data[max(offset, 0) : max(offset, 0) + length]
        assert store.counters.hits == 18
        assert store.counters.misses == 0

    trio.run(main)


def test_a_miss_names_path_oid_and_remedy_and_is_counted(fixture: Fixture) -> None:
    async def main() -> None:
        store = fixture.store()
        row = fixture.row(b"d/gone")
        with pytest.raises(ObjectMissing, match=f"'d/gone'.*{fixture.tree.oid(row)}.*dvc fetch"):
            await store.open(row)
        assert store.counters.misses == 1
        assert not await store.is_cached(row)

    trio.run(main)


def test_an_object_that_appears_is_served(fixture: Fixture) -> None:
    async def main() -> None:
        store = fixture.store()
        row = fixture.row(b"d/gone")
        with pytest.raises(ObjectMissing):
            await store.open(row)
        data = CONTENTS[b"d/gone"]
        fixture.object(data).parent.mkdir(parents=True, exist_ok=True)
        fixture.object(data).write_bytes(data)
        assert await read(store, row, 0, 99) == data

    trio.run(main)


def test_an_object_of_another_length_is_refused(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, sizes_known=True)
    fixture.object(b"alpha").write_bytes(b"alphabet")

    async def main() -> None:
        store = fixture.store()
        with pytest.raises(ObjectCorrupt, match=r"'a'.*8 bytes and not 5"):
            await store.open(fixture.row(b"a"))
        assert store.counters.hits == 0

    before = len(list(Path("/proc/self/fd").iterdir()))
    trio.run(main)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1  # the cache's root directory


def test_an_object_that_is_cut_while_open_is_an_error_and_never_short(fixture: Fixture) -> None:
    data = CONTENTS[b"d/b"]

    async def main() -> None:
        store = fixture.store()
        opened = await store.open(fixture.row(b"d/b"))
        os.truncate(fixture.object(data), 1000)
        assert bytes(await store.read(opened, 0, 1000)) == data[:1000]
        with pytest.raises(ObjectCorrupt, match="shorter"):
            await store.read(opened, 0, 2000)
        store.close(opened)

    trio.run(main)


def test_an_object_that_is_removed_while_open_keeps_its_bytes(fixture: Fixture) -> None:
    async def main() -> None:
        store = fixture.store()
        opened = await store.open(fixture.row(b"a"))
        fixture.object(b"alpha").unlink()
        assert bytes(await store.read(opened, 0, 9)) == b"alpha"
        store.close(opened)
        with pytest.raises(ObjectMissing):
            await store.open(fixture.row(b"a"))

    trio.run(main)


def test_sizes_are_learnt_once_and_never_guessed(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, sizes_known=False)

    async def main() -> None:
        store = fixture.store()
        rows = range(1, fixture.tree.rows)
        files = [row for row in rows if not fixture.tree.is_directory(row)]
        assert store.sizes_unknown == len(CONTENTS)
        await store.learn_sizes(range(files[0], files[-1] + 1))
        assert store.sizes[fixture.row(b"d/b")] == 200_000
        assert store.sizes[fixture.row(b"d/empty")] == 0
        assert store.sizes[fixture.row(b"d/gone")] == UNKNOWN
        assert store.size_now(fixture.row(b"d/gone")) == UNKNOWN
        with pytest.raises(ObjectMissing):
            await store.size(fixture.row(b"d/gone"))
        assert store.sizes_unknown == 1
        assert store.bytes_known == 200_005
        fixture.object(b"alpha").unlink()
        assert await store.size(fixture.row(b"a")) == 5
        assert await store.measure_cached() == 200_000

    trio.run(main)
