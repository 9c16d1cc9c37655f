"""Manifests that cannot be mounted: one line that says why, status 1, nothing left behind."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mount.datasets import Cache, entries_of, manifest_bytes, md5
from tests.mount.mounts import Mounter

pytestmark = pytest.mark.fuse

EMPTY = md5(b"")
GOOD = manifest_bytes(entries_of({"a": b"1", "b/c": b"2"}))


@pytest.fixture
def cache(mounter: Mounter) -> Cache:
    return Cache(mounter.home / "objects")


def put(cache: Cache, data: bytes) -> str:
    return cache.put(data, md5(data) + ".dir")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 64,
        b"not json",
        b"\xff\xfe[",
        GOOD[:-1],
        GOOD[: len(GOOD) // 2],
        GOOD + GOOD,
        b"{}",
        b'{"md5": "x", "relpath": "y"}',
        b"null",
        b"42",
        b'"text"',
        b"[" * 100_000,
        b"[[]]",
        b"[null]",
        b"[{}]",
        b'[{"relpath": "a"}]',
        b'[{"md5": "d41d8cd98f00b204e9800998ecf8427e"}]',
        b'[{"md5": "d41d8cd98f00b204e9800998ecf8427e", "relpath": 7}]',
        b'[{"md5": "d41d8cd98f00b204e9800998ecf8427e", "relpath": null}]',
        b'[{"md5": 12345678901234567890123456789012, "relpath": "a"}]',
        b'[{"md5": "../../../../etc/passwd", "relpath": "a"}]',
        b'[{"md5": "d41d8cd98f00b204e9800998ecf8427", "relpath": "a"}]',
        b'[{"md5": "d41d8cd98f00b204e9800998ecf8427e", "relpath": "a", "size": -1}]',
        b'[{"md5": "d41d8cd98f00b204e9800998ecf8427e", "relpath": "a", "size": "big"}]',
        b'[{"md5": "d41d8cd98f00b204e9800998ecf8427e", "relpath": "a", "size": 9223372036854775808}]',
        b'[{"md5": "d41d8cd98f00b204e9800998ecf8427e", "relpath": "a", "size": 99999999999999999999999}]',
    ],
    ids=lambda data: ascii(data)[2:40],
)
def test_what_is_no_manifest_is_refused(mounter: Mounter, cache: Cache, data: bytes) -> None:
    oid = put(cache, data)
    line = mounter.refuse(oid, "--cache", cache.root)
    assert oid in line


@pytest.mark.parametrize(
    ("paths", "named"),
    [
        (["ok", "../outside"], "../outside"),
        (["ok", "below/../../outside"], "below/../../outside"),
        ([".."], ".."),
        (["a/.."], "a/.."),
        (["."], "."),
        (["./a"], "./a"),
        (["a/./b"], "a/./b"),
        (["/etc/passwd"], "/etc/passwd"),
        (["//a"], "//a"),
        (["a//b"], "a//b"),
        (["a/"], "a/"),
        ([""], "''"),
        (["a\0b"], r"a\x00b"),
        (["ok", "ok"], "'ok' is there twice"),
        (["below/ok", "below/ok"], "'below/ok' is there twice"),
        (["a", "a/b"], "'a' is both a file and a directory"),
        (["x/y/z", "x/y"], "'x/y' is both a file and a directory"),
        (["a", "a-b", "a/b/c"], "'a' is both a file and a directory"),
        (["y" * 256], "256 bytes"),
        (["below/" + "y" * 256 + "/file"], "256 bytes"),
        (["\u00e9" * 128], "256 bytes"),
        (["/".join(["z" * 200] * 21)], "4220 bytes"),
        (["\ud800"], r"\ud800"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_hostile_paths_are_refused_and_named(
    mounter: Mounter, cache: Cache, paths: Sequence[str], named: str
) -> None:
    oid = cache.put_manifest([{"md5": EMPTY, "relpath": path} for path in paths])
    line = mounter.refuse(oid, "--cache", cache.root)
    assert oid in line
    assert named in line


def test_sizes_that_no_file_system_can_have_together(mounter: Mounter, cache: Cache) -> None:
    most = (1 << 63) - 1
    oid = cache.put_manifest([{"md5": EMPTY, "relpath": name, "size": most} for name in "abc"])
    assert oid in mounter.refuse(oid, "--cache", cache.root)
    oid = cache.put_manifest([{"md5": EMPTY, "relpath": "a", "size": most}])
    root = mounter.mount(oid, "--cache", cache.root).path
    assert (root / "a").stat().st_size == most
    assert os.statvfs(root).f_blocks * os.statvfs(root).f_frsize >= most


def test_the_entry_that_is_wrong_is_counted(mounter: Mounter, cache: Cache) -> None:
    entries = [{"md5": EMPTY, "relpath": f"{number:03d}"} for number in range(41)]
    data = json.dumps([*entries, {"md5": EMPTY, "relpath": "a/../b"}, *entries]).encode()
    line = mounter.refuse(put(cache, data), "--cache", cache.root)
    assert "entry 42" in line


def test_a_path_cannot_write_to_the_terminal(mounter: Mounter, cache: Cache) -> None:
    oid = cache.put_manifest([{"md5": EMPTY, "relpath": "\x1b[2J\n\r/../\u202e"}])
    line = mounter.refuse(oid, "--cache", cache.root)
    assert line.rstrip("\n").isprintable()


def test_bytes_that_do_not_match_the_oid(mounter: Mounter, cache: Cache) -> None:
    oid = cache.put(GOOD, "ab" * 16 + ".dir")
    line = mounter.refuse(oid, "--cache", cache.root)
    assert oid in line
    assert "content" in line
    by_file = mounter.refuse(cache.place(oid))
    assert "content" in by_file


def test_a_missing_manifest(mounter: Mounter, cache: Cache) -> None:
    oid = "ab" * 16 + ".dir"
    line = mounter.refuse(oid, "--cache", cache.root)
    assert oid in line
    assert "dvc fetch" in line


@pytest.mark.parametrize("kind", ["fifo", "directory", "symlink"])
def test_a_manifest_that_is_no_regular_file(mounter: Mounter, cache: Cache, kind: str) -> None:
    oid = put(cache, GOOD)
    place = cache.place(oid)
    place.unlink()
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "directory":
        place.mkdir()
    else:
        (mounter.home / "manifest").write_bytes(GOOD)
        place.symlink_to(mounter.home / "manifest")
    assert oid in mounter.refuse(oid, "--cache", cache.root)


@pytest.mark.parametrize(
    "target", ["", "nowhere", "nowhere.dvc", "z" * 32 + ".dir", "ab" * 15 + ".dir", "x" * 5000]
)
def test_a_target_that_is_nothing(mounter: Mounter, target: str) -> None:
    mounter.refuse(target)


def test_a_target_that_is_not_tracked(mounter: Mounter) -> None:
    (mounter.home / "plain").mkdir()
    (mounter.home / "plain" / "file").write_bytes(b"1")
    (mounter.home / "empty.dvc").write_bytes(b"")
    (mounter.home / "broken.dvc").write_bytes(b"outs: [")
    for target in ("plain", "plain/file", "empty.dvc", "broken.dvc", "/dev/null", "/"):
        assert target in mounter.refuse(target)


def test_an_oid_without_a_cache(mounter: Mounter, tmp_path: Path) -> None:
    mounter.refuse("ab" * 16 + ".dir", cwd=tmp_path)
    mounter.refuse("ab" * 16, cwd=tmp_path)


def test_a_damaged_tree_is_compiled_anew(mounter: Mounter, cache: Cache) -> None:
    """What is kept between mounts is never believed without its checksums."""
    oid = put(cache, GOOD)
    cache.put(b"1"), cache.put(b"2")
    assert mounter.mount(oid, "--cache", cache.root).status()["files"] == 2
    (kept,) = (mounter.home / "cache").rglob("*.tree")
    whole = kept.read_bytes()
    for damaged in (b"", whole[:100], whole[:-8], whole[:-1] + bytes([whole[-1] ^ 1]), b"\0" * len(whole)):
        kept.unlink()
        kept.write_bytes(damaged)
        root = mounter.mount(oid, "--cache", cache.root).path
        assert ((root / "a").read_bytes(), (root / "b" / "c").read_bytes()) == (b"1", b"2")
