"""Where the kernel is sent to look for an object again, and where it is answered by a file of ours."""

from __future__ import annotations

import errno
import math
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import cast

import pyfuse3
import pytest
import trio
from trio.testing import MockClock

from fusefs.native import fetch_layer
from fusefs.native.fetch_layer import RETURN_SECONDS, RETURNS, FetchLayer
from fusefs.native.forgetting import Forgetting
from fusefs.native.fresh import Fresh
from fusefs.native.held_files import HeldFiles
from fusefs.native.seen_opens import SeenOpens
from fusefs.native.stream import Stream
from fusefs.native.tree_layer import TreeLayer
from fusefs.spaces import locate
from store.cache_layers import CacheLayers
from store.digest_index import DigestIndex
from store.engine import Engine
from store.oid import Oid
from store.open_objects import OpenBytes
from store.threads import Threads
from store.tree import Tree
from store.tree_compiler import Leaf, compile_tree, leaf_flags, write_tree
from tests.mount.datasets import Cache, md5

DATA = b"the bytes of one object"
FOUND = 77
"""The inode of the file."""


class File:
    """The one file of a version, whose object is always to be had; `while_it_opens` happens meanwhile."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.files = self
        self.sizes: Sequence[int] = tree.size
        self.while_it_opens: Callable[[], object] = lambda: None
        self.is_coming = False
        """Is the object to come into the cache?"""

    async def open(self, row: int) -> OpenBytes:
        self.while_it_opens()
        return OpenBytes(self.tree.oid(row), DATA, len(DATA), None)

    async def reconcile(self, rows: Sequence[int]) -> None:
        pass

    async def await_kept(self, oid: Oid) -> None:
        pass

    def is_on_its_way(self, oid: Oid) -> bool:
        return self.is_coming

    def close(self, opened: OpenBytes) -> None:
        opened.close()

    def check_size(self, row: int) -> None:
        pass

    def entry(self, row: int, size: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino, entry.st_size = pyfuse3.InodeT(FOUND), size
        return entry


class Looker:
    """The kernel, which looks for the object."""

    def __init__(self, nursery: trio.Nursery, directory: Path) -> None:
        path = directory / "a.tree"
        write_tree(compile_tree([Leaf(b"a", bytes.fromhex(md5(DATA)), len(DATA), leaf_flags())], "it"), path)
        self.cache = Cache(directory / "cache")
        self.cache.root.mkdir()
        self.file = File(Tree.open(path))
        stream = Stream()
        self.memory = Cache(directory / "memory")
        self.memory.root.mkdir()
        fresh = Fresh(os.open(self.memory.root, os.O_PATH | os.O_CLOEXEC))
        fresh.make_directories()
        self._forgetting = Forgetting(trio.lowlevel.checkpoint, lambda: False, stream, None)
        trees = cast(Sequence[TreeLayer], [self.file])
        self._layers = CacheLayers([self.cache.root], fresh.descriptor)
        self._fresh = fresh
        self.layer = FetchLayer(
            lambda: trees,
            self._layers,
            HeldFiles(nursery),
            SeenOpens(cast(Engine, None), lambda files: None),  # which sees nothing
            Threads(),
            stream,
            self._forgetting,
            fresh,
        )

    def close(self) -> None:
        os.close(self._fresh.descriptor)
        self._layers.close()

    @property
    def is_to_forget(self) -> bool:
        """Is the kernel to be told to look anew?"""
        return self._forgetting._late_since < math.inf

    async def look(self) -> int:
        """The inode that is found, or minus the errno."""
        try:
            row = 0
            for name in ("files", "md5", md5(DATA)[:2]):
                _, row = locate((await self.layer.lookup(row, name.encode())).st_ino)
            return (await self.layer.lookup(row, md5(DATA)[2:].encode())).st_ino
        except pyfuse3.FUSEError as error:
            return -error.errno


AGAIN = -errno.ESTALE


def with_looker(directory: Path, test: Callable[[Looker, MockClock], Awaitable[None]]) -> None:
    clock = MockClock()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            looker = Looker(nursery, directory)
            await test(looker, clock)
            looker.close()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)


def test_what_is_in_a_cache_is_looked_for_there_once_more(tmp_path: Path) -> None:
    """The kernel asks twice, and looks there then; when it comes back the next ESTALE is the reader's."""

    async def test(looker: Looker, clock: MockClock) -> None:
        looker.cache.put(DATA)
        assert [await looker.look() for _ in range(RETURNS)] == [AGAIN] * RETURNS
        assert not looker.is_to_forget
        for _ in range(3):
            assert await looker.look() == FOUND
        assert looker.is_to_forget  # so that it does not stay ours
        clock.jump(RETURN_SECONDS + 0.1)
        assert [await looker.look() for _ in range(RETURNS + 1)] == [AGAIN] * RETURNS + [FOUND]

    with_looker(tmp_path, test)


def test_what_is_on_its_way_into_a_cache_is_found_in_memory_until_it_is_there(tmp_path: Path) -> None:
    async def test(looker: Looker, clock: MockClock) -> None:
        shown = looker.memory.place(md5(DATA))
        assert await looker.look() == FOUND
        assert not shown.exists()  # nobody would ever take it back
        looker.file.is_coming = True
        clock.jump(RETURN_SECONDS + 0.1)
        assert await looker.look() == AGAIN
        assert shown.read_bytes() == DATA
        looker.layer.note_settled(Oid(md5(b"another")))
        assert shown.exists()
        for _ in range(2):
            looker.layer.note_settled(Oid(md5(DATA)))
            assert not shown.exists()

    with_looker(tmp_path, test)


def test_what_takes_many_looks_is_found_by_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finders: list[threading.Thread] = []
    find = DigestIndex.find

    def find_and_tell(index: DigestIndex, oid: Oid) -> list[int]:
        finders.append(threading.current_thread())
        return find(index, oid)

    monkeypatch.setattr(DigestIndex, "find", find_and_tell)

    async def test(looker: Looker, clock: MockClock) -> None:
        looker.cache.put(DATA)
        assert await looker.look() == AGAIN
        monkeypatch.setattr(fetch_layer, "MOST_LOOKS", 0)
        assert await looker.look() == AGAIN

    with_looker(tmp_path, test)
    assert [finder is threading.main_thread() for finder in finders] == [True, False]


def test_what_came_and_was_gone_for_a_moment_is_answered(tmp_path: Path) -> None:
    """It came with the first look, the second found it nowhere, and by then it is there again."""

    async def test(looker: Looker, clock: MockClock) -> None:
        looker.file.while_it_opens = lambda: looker.cache.put(DATA)
        assert [await looker.look() for _ in range(RETURNS + 1)] == [AGAIN] * RETURNS + [FOUND]
        clock.jump(RETURN_SECONDS + 0.1)
        looker.cache.remove(md5(DATA))
        assert await looker.look() == AGAIN
        looker.cache.remove(md5(DATA))
        assert await looker.look() == FOUND

    with_looker(tmp_path, test)


def test_what_no_layer_has_is_answered_by_us(tmp_path: Path) -> None:
    async def test(looker: Looker, clock: MockClock) -> None:
        assert [await looker.look() for _ in range(2)] == [FOUND, FOUND]
        looker.cache.put(DATA[:-1], md5(DATA))  # nor one of another length
        assert await looker.look() == FOUND

    with_looker(tmp_path, test)
