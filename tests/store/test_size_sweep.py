"""A process that looks for a large tree's sizes finds what is here, no more, and may fail at any time."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from store import size_sweep
from store.layouts import object_path
from store.learnt_sizes import LearntSizes
from store.oid import GIT_SHA1, MD5, MD5_DOS2UNIX, Oid
from store.size_sweep import SizeSweep
from store.size_sweep_process import SWEPT_AT_ONCE
from store.sizes import How, Learnt, SizeIndex
from store.threads import Threads
from store.tree import UNKNOWN, Tree
from store.tree_compiler import Leaf, compile_tree, leaf_flags, write_tree

SECONDS = 60.0
OBJECTS = 300
FILES = SWEPT_AT_ONCE + 5000


class World:
    """A tree of more rows than are swept at once, and a cache that lacks a tenth of its objects."""

    def __init__(self, root: Path) -> None:
        self.cache, own = root / "cache", root / "own"
        own.mkdir(0o700)
        self.own = own
        self.index = SizeIndex(own)
        contents = [b"%d" % number * (number % 7) for number in range(OBJECTS)]
        self.digests = [hashlib.md5(content).digest() for content in contents]
        self.lengths: dict[tuple[str, bytes], int] = {}
        for algorithm in (MD5, MD5_DOS2UNIX):
            for digest, content in zip(self.digests, contents, strict=True):
                if digest[0] % 10:
                    self.put(algorithm, digest, content)
        self.tree = self.write(root / "t.tree", 0)

    def put(self, algorithm: str, digest: bytes, content: bytes) -> None:
        path = self.cache / object_path(Oid.from_bytes(digest, algorithm))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.lengths[algorithm, digest] = len(content)

    def write(self, path: Path, seed: int) -> Tree:
        choice = random.Random(seed)
        leaves = []
        for number in range(FILES):
            algorithm = MD5_DOS2UNIX if number % 50 == 0 else MD5
            size = 5 if number % 1000 == 7 else UNKNOWN
            digest = choice.choice(self.digests)
            leaves.append(
                Leaf(b"%02d/%d" % (number % 40, number), digest, size, leaf_flags(algorithm=algorithm))
            )
        leaves.append(Leaf(b"git", bytes(20), 3, leaf_flags(algorithm=GIT_SHA1)))
        write_tree(compile_tree(leaves, "t"), path)
        return Tree.open(path)

    def sweep(self, tree: Tree) -> tuple[bool, LearntSizes]:
        sizes = LearntSizes(tree)
        sizes.begin(None)

        async def main() -> bool:
            with trio.fail_after(SECONDS):
                return await SizeSweep(tree, sizes, Threads()).run(self.own, [self.cache])

        return trio.run(main), sizes

    def right(self, row: int) -> int:
        if self.tree.size[row] != UNKNOWN:
            return self.tree.size[row]
        return self.lengths.get((self.tree.algorithm(row), self.tree.digest_of(row)), UNKNOWN)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.index.close()


def test_all_that_is_here_is_found_and_remembered(world: World) -> None:
    present = [digest for digest in world.digests if digest[0] % 10]
    absent = [digest for digest in world.digests if not digest[0] % 10]
    world.index.learn([Learnt(present[0], 77, How.HASHED), Learnt(present[1], 78, How.REMOTE)], MD5)
    world.index.learn([Learnt(absent[0], 79, How.REMOTE), Learnt(absent[1], 80, How.STAT)], MD5)
    world.lengths[MD5, present[0]] = 77
    world.lengths[MD5, absent[0]] = 79
    told, sizes = world.sweep(world.tree)
    assert told
    right = [world.right(row) for row in range(world.tree.rows)]
    assert list(sizes.column) == right
    files = [row for row in range(world.tree.rows) if not world.tree.is_directory(row)]
    assert sizes.unknown == right.count(UNKNOWN) > 0
    assert sizes.bytes_known == sum(right[row] for row in files if right[row] != UNKNOWN)
    certain = {world.tree.digest_of(row) for row in files if sizes.is_certain(row)} - {bytes(20)}
    hashed = {row for row in files if sizes.is_certain(row) and world.tree.size[row] == UNKNOWN}
    assert {world.tree.digest_of(row) for row in hashed} == {present[0]} < certain
    assert {world.tree.algorithm(row) for row in hashed} == {MD5}
    assert world.index.look_up(present[2:], MD5) == [world.lengths[MD5, digest] for digest in present[2:]]


@pytest.mark.parametrize("last_words", ["", "; os.write(1, b'.')", "; os.kill(os.getpid(), 9)"])
def test_a_process_that_fails_costs_no_more_than_what_it_did_not_say(
    world: World, last_words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size_sweep, "COMMAND", (sys.executable, "-c", f"import os{last_words}"))
    told, sizes = world.sweep(world.tree)
    assert not told
    assert sizes.unknown == world.tree.sizes_unknown
    assert list(sizes.column) == list(world.tree.size)


def test_another_tree_in_its_place_tells_nothing(world: World) -> None:
    tree = world.tree
    world.write(tree.file, 1)
    told, sizes = world.sweep(tree)
    assert not told
    assert list(sizes.column) == list(tree.size)


def test_there_may_be_no_process(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_sweep, "COMMAND", (str(world.own / "nothing"),))
    told, _ = world.sweep(world.tree)
    assert not told


def test_who_gives_up_leaves_no_process(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = world.own / "begun"
    program = f"import time; open({str(mark)!r}, 'w').close(); time.sleep(1000)"
    monkeypatch.setattr(size_sweep, "COMMAND", (sys.executable, "-c", program))
    ended: list[int | None] = []
    reap = SizeSweep._reap

    async def watched(self: SizeSweep, process: subprocess.Popen[bytes]) -> None:
        await reap(self, process)
        ended.append(process.returncode)

    monkeypatch.setattr(SizeSweep, "_reap", watched)

    async def main() -> None:
        sizes = LearntSizes(world.tree)
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(SizeSweep(world.tree, sizes, Threads()).run, world.own, [world.cache])
                while not mark.exists():
                    await trio.sleep(0.005)
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert ended == [-9]
