"""Objects are opened beneath the cache, through no link, regular files only."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from store import openat2
from store.errors import CacheUnusable, ObjectCorrupt, ObjectMissing
from store.local_cache import LocalCache
from store.oid import Oid
from store.tree import UNKNOWN
from tests.descriptors import open_below
from tests.patience import until

OID = Oid("ab" + "c" * 30)


@pytest.fixture(params=["openat2", "steps"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalCache:
    if request.param == "steps":  # as on a kernel or under a filter that lacks the call
        monkeypatch.setattr(openat2, "HAS_OPENAT2", False)
        monkeypatch.setattr(openat2, "HAS_CACHED", False)
    (tmp_path / "files/md5/ab").mkdir(parents=True)
    return LocalCache(tmp_path)


def place(cache: LocalCache) -> Path:
    return cache.root / "files/md5/ab" / ("c" * 30)


def test_an_object_is_opened_with_its_length(cache: LocalCache) -> None:
    place(cache).write_bytes(b"hello")
    descriptor, size = cache.open(OID)
    assert (os.read(descriptor, 9), size) == (b"hello", 5)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    assert cache.size(OID) == 5
    assert cache.has(OID)
    assert cache.read(OID) == b"hello"


def test_what_is_not_there_is_missing(cache: LocalCache) -> None:
    for oid in (OID, Oid("ff" + "c" * 30)):
        with pytest.raises(ObjectMissing, match=str(oid)):
            cache.open(oid)
        assert not cache.has(oid)


def test_what_is_there_is_found_without_an_error_for_what_is_not(cache: LocalCache) -> None:
    assert cache.find(OID) is None
    place(cache).write_bytes(b"hello")
    found = cache.find(OID)
    assert found is not None
    descriptor, size = found
    assert (os.read(descriptor, 9), size) == (b"hello", 5)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    place(cache).unlink()
    place(cache).symlink_to("/etc/passwd")
    assert cache.find(OID) is None
    place(cache).unlink()
    place(cache).mkdir()
    assert cache.find(OID) is None


def test_a_cache_that_was_made_anew_is_followed(cache: LocalCache) -> None:
    assert cache.find(OID) is None
    cache.root.rename(f"{cache.root}-away")
    cache.follow()  # there is nothing to be followed yet
    place(cache).parent.mkdir(parents=True)
    place(cache).write_bytes(b"new")
    assert cache.find(OID) is None
    cache.follow()
    found = cache.find(OID)
    assert found is not None and found[1] == 3
    os.close(found[0])


def test_a_cache_may_come_into_being_later(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "later")
    with pytest.raises(ObjectMissing):
        cache.open(OID)
    path = tmp_path / "later/files/md5/ab"
    path.mkdir(parents=True)
    (path / ("c" * 30)).write_bytes(b"x")
    assert cache.size(OID) == 1


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo", "socket"])
def test_only_regular_files_are_objects(cache: LocalCache, kind: str, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_bytes(b"secret")
    if kind == "symlink":
        place(cache).symlink_to(target)
    elif kind == "directory":
        place(cache).mkdir()
    elif kind == "fifo":
        os.mkfifo(place(cache))
    else:
        os.mknod(place(cache), 0o140600)
    with pytest.raises((ObjectCorrupt, CacheUnusable)):
        cache.open(OID)
    assert not cache.has(OID)


def test_a_linked_prefix_directory_is_refused(cache: LocalCache, tmp_path: Path) -> None:
    place(cache).parent.rmdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / ("c" * 30)).write_bytes(b"secret")
    place(cache).parent.symlink_to(tmp_path / "outside")
    with pytest.raises(ObjectCorrupt, match="symlink"):
        cache.open(OID)
    assert cache.lengths([OID.digest], OID.algorithm) == [UNKNOWN]


def test_lengths_are_told_in_bulk(cache: LocalCache) -> None:
    place(cache).write_bytes(b"hello")
    elsewhere = Oid("ff" + "c" * 30)
    assert cache.lengths([OID.digest, elsewhere.digest, OID.digest], OID.algorithm) == [5, UNKNOWN, 5]


def test_the_root_itself_may_be_a_link(cache: LocalCache, tmp_path: Path) -> None:
    place(cache).write_bytes(b"x")
    link = tmp_path / "link"
    link.symlink_to(cache.root)
    assert LocalCache(link).size(OID) == 1


@pytest.mark.skipif(not openat2.HAS_CACHED, reason="the kernel is older than 5.12")
def test_names_that_were_seen_are_opened_without_waiting(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path)
    (tmp_path / "files/md5/ab").mkdir(parents=True)
    place(cache).write_bytes(b"hello")
    sizes: list[int] = []

    def opens() -> bool:
        """Not while something is mounted anywhere, or names are forgotten for want of memory."""
        cache.size(OID)
        with contextlib.suppress(BlockingIOError):
            descriptor, size = cache.try_open(OID)
            os.close(descriptor)
            sizes[:] = [size, cache.try_size(OID)]
        return bool(sizes)

    until(opens)
    assert sizes == [5, 5]


def test_without_the_flag_the_loop_is_never_made_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openat2, "HAS_CACHED", False)
    with pytest.raises(BlockingIOError):
        LocalCache(tmp_path).try_open(OID)


def test_no_descriptor_is_lost(cache: LocalCache) -> None:
    os.mkfifo(place(cache))
    cache.has(OID)
    before = open_below(cache.root)
    for _ in range(20):
        cache.has(OID)
    assert open_below(cache.root) == before


def test_a_cache_that_is_made_anew_is_found(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "cache")
    for content in (b"first", b"in another directory", b"and another"):
        place(cache).parent.mkdir(parents=True)
        place(cache).write_bytes(content)
        assert cache.size(OID) == len(content)
        assert cache.lengths([OID.digest], OID.algorithm) == [len(content)]
        shutil.rmtree(cache.root)
        with pytest.raises(ObjectMissing):
            cache.size(OID)
    assert open_below(tmp_path)
    cache.close()
    assert not open_below(tmp_path)
