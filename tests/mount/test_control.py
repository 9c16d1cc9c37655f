"""`.fusefs`: never listed, reached by name, and out of the way of data that has its name."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

from tests.mount.datasets import Cache, md5, tree_of
from tests.mount.mounts import Mounter, unmount

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

FIELDS = [
    *("mountpoint", "target", "oid", "rev", "mode", "pid", "since", "files", "bytes", "hits", "misses"),
    *("errors", "bytes_cache", "bytes_remote", "cache_bytes", "rss_bytes", "log", "control", "pins"),
    *("remotes", "offline", "verify", "metrics", "limits", "prefetch", "making"),
    *("why_fuse", "supervisor", "restarts", "view"),
]
FILES = {"one": b"1", "two": b"22" * 5000, "below/three": b"333"}
WAIT_SECONDS = 60.0


def test_it_is_reached_by_name_and_never_listed(mounter: Mounter) -> None:
    root = mounter.mount_files(FILES).path
    (root / ".fusefs" / "status").read_bytes()  # now the kernel knows of it
    assert sorted(os.listdir(root)) == ["below", "one", "two"]
    assert sorted(os.listdir(root / ".fusefs")) == ["chunks", "frames", "metrics", "revs", "shards", "status"]
    assert root.stat().st_nlink == 3
    with os.scandir(root / ".fusefs") as entries:
        kinds = {entry.name: entry.is_file() for entry in entries if entry.inode() == entry.stat().st_ino}
    directories = dict.fromkeys(["chunks", "frames", "revs", "shards"], False)
    assert kinds == {"status": True, "metrics": True, **directories}
    assert stat.S_ISDIR((root / ".fusefs").stat().st_mode)
    assert os.path.samefile(root / ".fusefs" / "..", root)
    with pytest.raises(FileNotFoundError):
        (root / "below" / ".fusefs").stat()
    with pytest.raises(FileNotFoundError):
        (root / ".fusefs" / "missing").stat()
    with pytest.raises(IsADirectoryError):
        (root / ".fusefs").read_bytes()


def test_the_status_has_every_field(mounter: Mounter) -> None:
    before = time.time()
    cache = Cache(mounter.home / "objects")
    oid = cache.put_dataset(FILES)
    mount = mounter.mount(oid, "--cache", cache.root)
    status = mount.status()
    assert list(status) == FIELDS
    assert status["mountpoint"] == str(mount.path)
    assert (status["target"], status["oid"], status["rev"]) == (oid, oid, None)
    assert status["mode"] in ("fuse", "native")
    assert (status["remotes"], status["offline"], status["verify"]) == ([], False, "blocks")
    assert status["files"] == 3
    assert before <= status["since"] <= time.time()
    assert status["log"] == str(mount.log)
    assert status["rss_bytes"] > 1 << 20
    assert Path(f"/proc/{status['pid']}/stat").exists()


@pytest.mark.modes("fuse")  # the kernel answers hits by itself
def test_the_status_counts(mounter: Mounter) -> None:
    cache = Cache(mounter.home / "objects")
    oid = cache.put_dataset(FILES)
    cache.remove(md5(b"1"))
    mount = mounter.mount(oid, "--cache", cache.root, "--no-pin")
    assert mount.status()["bytes"] is None  # a manifest has no sizes
    for _ in range(3):
        (mount.path / "two").read_bytes()
    (mount.path / "below" / "three").read_bytes()
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            (mount.path / "one").read_bytes()
    status = mount.status()
    assert status["hits"] == 4
    assert status["misses"] >= 2  # one for every open, and for every size that was asked for
    assert status["errors"] == status["misses"]
    assert status["bytes_cache"] == 10_003  # what is read again comes from the kernel
    assert status["bytes_remote"] == 0
    cache.put(b"1")
    (mount.path / "one").read_bytes()
    status = mount.status()
    assert status["hits"] == 5
    assert status["bytes"] == 10_004


def test_the_status_measures_the_cache(mounter: Mounter) -> None:
    mount = mounter.mount_files(FILES)
    deadline = time.monotonic() + WAIT_SECONDS
    while (measured := mount.status()["cache_bytes"]) is None:  # measured when it is asked for
        assert time.monotonic() < deadline
    assert measured == 10_004


def test_a_reader_in_small_steps_sees_one_moment(mounter: Mounter) -> None:
    root = mounter.mount_files(FILES).path
    with open(root / ".fusefs" / "status", "rb", buffering=0) as file:
        first = file.read(10)
        (root / "two").read_bytes()
        rest = b"".join(iter(lambda: file.read(7), b""))
    assert json.loads(first + rest)["misses"] == 0


def test_tools_read_it_although_it_shows_no_size(mounter: Mounter) -> None:
    root = mounter.mount_files(FILES).path
    assert (root / ".fusefs" / "status").stat().st_size == 0
    with open(root / ".fusefs" / "status") as file:
        assert json.load(file)["files"] == 3


@pytest.mark.parametrize("taken", [".fusefs", ".fusefs/status"])
def test_data_of_that_name_wins(mounter: Mounter, taken: str) -> None:
    root = mounter.mount_files({taken: b"mine", "two": b"22"}, control=".fusefs-control").path
    assert (root / taken).read_bytes() == b"mine"
    assert sorted(os.listdir(root)) == [".fusefs", "two"]
    status = json.loads((root / ".fusefs-control" / "status").read_bytes())
    assert status["files"] == 2


def test_data_that_takes_both_names_is_served_all_the_same(mounter: Mounter) -> None:
    files = {".fusefs": b"mine", ".fusefs-control": b"too"}
    cache = Cache(mounter.home / "objects")
    place = mounter.new_mountpoint()
    done = mounter.run(
        "mount", "--mode", mounter.mode, "--cache", cache.root, cache.put_dataset(files), place
    )
    assert done.returncode == 0, done.stderr
    try:
        assert tree_of(place) == files
    finally:
        unmount(place)
