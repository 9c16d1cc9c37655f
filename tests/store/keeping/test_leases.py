"""Who holds what: trees that are mapped, clones that are open, and what is let go of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from store.keeping.deleting import Fate, delete_file, fate_of, open_root
from store.keeping.kinds import Clones, Item
from store.keeping.leases import Lease, hold
from store.manifest import Entry
from store.oid import Oid
from store.tree import Tree
from store.tree_cache import TreeCache
from store.version import keep_tree


def fate(path: Path) -> Fate:
    root = open_root(path.parent)
    try:
        return fate_of(root, path.name, None)
    finally:
        os.close(root)


def test_a_tree_is_held_while_it_is_mapped_and_its_use_is_noted(tmp_path: Path) -> None:
    path = keep_tree(Oid("0" * 32, is_tree=True), [Entry("a", "1" * 32, 1)], TreeCache(tmp_path))
    os.utime(path, (1000, 2000))
    tree = Tree.open(path)
    assert fate(path) is Fate.OPEN
    assert path.stat().st_mtime == 2000
    assert path.stat().st_atime > 2000
    del tree
    assert fate(path) is Fate.FREE


def test_a_holder_that_dies_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data")
    script = (
        "import os, sys; from store.keeping.leases import hold; hold(os.open(sys.argv[1], os.O_RDONLY));"
        "print(flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert holder.stdout is not None
    with holder:
        holder.stdout.readline()
        assert fate(path) is Fate.OPEN
        holder.kill()
        holder.wait()
        assert fate(path) is Fate.FREE


def test_a_descriptor_goes_on_after_its_file_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data")
    descriptor = os.open(path, os.O_RDONLY)  # by somebody who takes no lease
    root = open_root(tmp_path)
    assert delete_file(root, "file", 4) is Fate.FREE
    os.close(root)
    hold(descriptor)
    assert os.pread(descriptor, 10, 0) == b"data"
    os.close(descriptor)


@pytest.fixture
def clones(tmp_path: Path) -> Path:
    clone = tmp_path / "clones/some-0123"
    (clone / "objects").mkdir(parents=True)
    (clone / "objects/pack").write_bytes(b"p" * 5000)
    (tmp_path / "clones/some-0123.lock").touch()
    return tmp_path / "clones"


def test_a_clone_goes_whole(clones: Path) -> None:
    kind = Clones(clones)
    [item] = kind.items()
    assert (item.name, item.on_disk) == ("some-0123", 8192)
    assert kind.drop(item) is Fate.FREE
    assert [path.name for path in clones.iterdir()] == ["some-0123.lock"]
    assert kind.drop(item) is Fate.GONE


def test_a_clone_in_use_stays(clones: Path) -> None:
    kind = Clones(clones)
    [item] = kind.items()
    lease = Lease(clones / "some-0123")
    assert kind.fate_of(item) is Fate.OPEN
    assert kind.drop(item) is Fate.OPEN
    lease.close()
    assert kind.fate_of(item) is Fate.FREE
    assert (clones / "some-0123/objects/pack").exists()


def test_no_clone_is_looked_for_behind_a_link(clones: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    (clones / "link").symlink_to(tmp_path / "precious")
    kind = Clones(clones)
    assert [item.name for item in kind.items()] == ["some-0123"]
    assert kind.drop(Item("link", 0, 0.0)) is not Fate.FREE
    assert (tmp_path / "precious/file").exists()
