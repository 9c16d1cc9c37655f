"""What happens when the cache does not have an object, or has something else in its place."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.datasets import Cache, filler, md5
from tests.mount.mounts import Mount, Mounter

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

FILES = {"here": b"in the cache", "gone": b"not in the cache", "below/gone too": b"neither"}
GONE = md5(FILES["gone"])
BIG = filler(8 << 20, 3)


@pytest.fixture
def cache(mounter: Mounter) -> Cache:
    return Cache(mounter.home / "objects")


def mount(mounter: Mounter, cache: Cache, *, sizes: bool = False) -> Mount:
    """A mount of which one object is missing."""
    oid = cache.put_dataset(FILES, sizes=sizes)
    cache.remove(GONE)
    return mounter.mount(oid, "--cache", cache.root, "--no-pin")


def errno_of(call: Callable[..., object], *arguments: object) -> int:
    """The errno with which a call fails; 0 where it does not."""
    try:
        call(*arguments)
    except OSError as error:
        assert error.errno
        return error.errno
    return 0


def read(path: Path) -> bytes:
    return path.read_bytes()


def test_a_missing_object_is_an_error_of_its_own(mounter: Mounter, cache: Cache) -> None:
    with_miss = mount(mounter, cache)
    for _ in range(2):
        assert errno_of(read, with_miss.path / "gone") == errno.EIO
    assert (with_miss.path / "here").read_bytes() == FILES["here"]
    status = with_miss.status()
    assert status["misses"] == status["errors"] >= 2
    assert status["hits"] == (1 if mounter.mode == "fuse" else None)


def test_the_log_names_path_oid_and_remedy(mounter: Mounter, cache: Cache) -> None:
    with_miss = mount(mounter, cache)
    cache.remove(md5(FILES["below/gone too"]))
    assert errno_of(read, with_miss.path / "below" / "gone too") == errno.EIO
    lines = [line for line in with_miss.umount().splitlines() if "ERROR" in line]
    assert lines
    for line in lines:
        assert "'below/gone too'" in line
        assert md5(FILES["below/gone too"]) in line
        assert str(cache.root) in line
        assert "dvc fetch" in line
        assert "Traceback" not in line


def test_listing_goes_on(mounter: Mounter, cache: Cache) -> None:
    with_miss = mount(mounter, cache)
    with os.scandir(with_miss.path) as entries:
        assert {entry.name: entry.is_file() for entry in entries} == {
            "below": False,
            "gone": True,
            "here": True,
        }
    found = subprocess.run(["find", "."], cwd=with_miss.path, capture_output=True, timeout=60, check=True)
    assert len(found.stdout.splitlines()) == 5
    listed = subprocess.run(
        ["ls", "-l"], cwd=with_miss.path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Input/output error" in listed.stderr
    assert "here" in listed.stdout and "gone" in listed.stdout


def test_a_size_that_nothing_knows_is_never_made_up(mounter: Mounter, cache: Cache) -> None:
    with_miss = mount(mounter, cache)
    path = with_miss.path / "gone"
    os.listdir(with_miss.path)  # its entry is in the kernel now, without a size
    for _ in range(2):
        assert errno_of(os.stat, path) == errno.EIO
        assert errno_of(os.path.getsize, path) == errno.EIO
    assert with_miss.status()["bytes"] is None


def test_a_size_that_the_manifest_tells_is_shown(mounter: Mounter, cache: Cache) -> None:
    with_miss = mount(mounter, cache, sizes=True)
    assert (with_miss.path / "gone").stat().st_size == len(FILES["gone"])
    assert errno_of(read, with_miss.path / "gone") == errno.EIO
    assert with_miss.status()["bytes"] == sum(map(len, FILES.values()))


def test_a_size_once_seen_is_kept(mounter: Mounter, cache: Cache) -> None:
    with_miss = mount(mounter, cache)
    assert (with_miss.path / "here").stat().st_size == len(FILES["here"])
    cache.remove(md5(FILES["here"]))
    assert (with_miss.path / "here").stat().st_size == len(FILES["here"])
    assert errno_of(read, with_miss.path / "here") == errno.EIO


def test_an_object_that_appears_is_served_by_the_same_mount(mounter: Mounter, cache: Cache) -> None:
    with_miss = mount(mounter, cache)
    path = with_miss.path / "gone"
    assert errno_of(os.stat, path) == errno_of(read, path) == errno.EIO
    cache.put(FILES["gone"])
    assert path.stat().st_size == len(FILES["gone"])
    assert path.read_bytes() == FILES["gone"]
    status = with_miss.status()
    assert errno_of(read, path) == 0
    assert with_miss.status()["misses"] == status["misses"]


def test_an_object_that_is_removed_while_it_is_open_keeps_its_bytes(mounter: Mounter, cache: Cache) -> None:
    root = mounter.mount(cache.put_dataset({"big": BIG}), "--cache", cache.root, "--no-pin").path
    descriptor = os.open(root / "big", os.O_RDONLY)
    try:
        assert os.read(descriptor, 100) == BIG[:100]
        cache.remove(md5(BIG))
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.lseek(descriptor, 0, os.SEEK_SET)
        assert b"".join(iter(lambda: os.read(descriptor, 1 << 20), b"")) == BIG
        if mounter.mode == "fuse":  # in native mode the kernel remembers the object that it had open
            assert errno_of(read, root / "big") == errno.EIO
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("wrong", [b"", b"short", b"much longer than what it should be"])
def test_an_object_of_another_length_is_refused(mounter: Mounter, cache: Cache, wrong: bytes) -> None:
    with_miss = mount(mounter, cache, sizes=True)
    cache.put(wrong, GONE)
    assert errno_of(read, with_miss.path / "gone") == errno.EIO
    assert (with_miss.path / "gone").stat().st_size == len(FILES["gone"])
    log = with_miss.umount()
    assert f"'gone': object {GONE} in the cache has {len(wrong)} bytes and not {len(FILES['gone'])}" in log


@pytest.mark.modes("fuse")  # the kernel reads the object by itself
def test_an_object_that_shrinks_while_it_is_read_gives_no_made_up_bytes(
    mounter: Mounter, cache: Cache
) -> None:
    root = mounter.mount(cache.put_dataset({"big": BIG}), "--cache", cache.root, "--no-pin").path
    descriptor = os.open(root / "big", os.O_RDONLY)
    try:
        assert os.pread(descriptor, 100, 0) == BIG[:100]
        place = cache.place(md5(BIG))
        place.chmod(0o644)
        os.truncate(place, 1000)
        assert errno_of(os.pread, descriptor, 100, 6 << 20) == errno.EIO
    finally:
        os.close(descriptor)


def _fifo(place: Path) -> None:
    os.mkfifo(place)


def _directory(place: Path) -> None:
    place.mkdir()


def _symlink_to_the_bytes(place: Path) -> None:
    elsewhere = place.parent.parent / "elsewhere"
    elsewhere.write_bytes(FILES["gone"])
    place.symlink_to(elsewhere)


def _dangling_symlink(place: Path) -> None:
    place.symlink_to("nothing")


def _symlinked_prefix(place: Path) -> None:
    place.write_bytes(FILES["gone"])
    prefix = place.parent
    prefix.rename(prefix.with_name("moved"))
    prefix.symlink_to("moved")


def _file_for_a_prefix(place: Path) -> None:
    shutil.rmtree(place.parent)
    place.parent.write_bytes(b"")


def _device(place: Path) -> None:
    os.mknod(place, 0o20644, os.makedev(1, 5))  # /dev/zero


def _socket(place: Path) -> None:
    os.mknod(place, 0o140644)


@pytest.mark.parametrize("sizes", [False, True], ids=["size unknown", "size known"])
@pytest.mark.parametrize(
    "put",
    [
        _fifo,
        _directory,
        _symlink_to_the_bytes,
        _dangling_symlink,
        _symlinked_prefix,
        _file_for_a_prefix,
        _socket,
        pytest.param(_device, marks=pytest.mark.root),
    ],
)
def test_what_is_no_regular_file_is_refused(
    mounter: Mounter, cache: Cache, put: Callable[[Path], None], sizes: bool
) -> None:
    with_miss = mount(mounter, cache, sizes=sizes)
    put(cache.place(GONE))
    assert errno_of(read, with_miss.path / "gone") == errno.EIO
    assert errno_of(os.stat, with_miss.path / "gone") == (0 if sizes else errno.EIO)
    assert (with_miss.path / "here").read_bytes() == FILES["here"]
    log = with_miss.umount()
    assert f"'gone': object {GONE}" in log
    assert "Traceback" not in log


def test_a_cache_that_is_not_there_yet(mounter: Mounter, cache: Cache) -> None:
    manifest = cache.place(cache.put_dataset(FILES))
    loose = mounter.home / "loose.dir"
    shutil.copy(manifest, loose)
    later = Cache(mounter.home / "later")
    with_miss = mounter.mount(loose, "--cache", later.root, "--no-pin")
    assert sorted(os.listdir(with_miss.path)) == ["below", "gone", "here"]
    assert errno_of(read, with_miss.path / "here") == errno.EIO
    assert not later.root.exists()
    later.put(FILES["here"])
    assert (with_miss.path / "here").read_bytes() == FILES["here"]


@pytest.mark.modes("fuse")  # the kernel remembers objects that were open
def test_a_cache_that_is_replaced_is_seen(mounter: Mounter, cache: Cache) -> None:
    """A cache directory that is moved away and made anew, as `rm -rf` and `dvc fetch` do."""
    with_miss = mount(mounter, cache)
    assert (with_miss.path / "here").read_bytes() == FILES["here"]
    shutil.rmtree(cache.root)
    assert errno_of(read, with_miss.path / "here") == errno.EIO
    cache.put(FILES["gone"])
    assert (with_miss.path / "gone").read_bytes() == FILES["gone"]
