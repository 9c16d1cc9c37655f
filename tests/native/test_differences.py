"""Where native mode differs from fuse mode, as far as no other test shows it (`fusefs/SEMANTICS.md`)."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusefs.native.mount_api import forget_unused
from fusefs.serving import GRACE_SECONDS
from tests.mount.datasets import Cache, entries_of, filler, md5, tree_of
from tests.mount.mounts import Mounter, unmount
from tests.patience import until
from tests.revisions.projects import Project, new_project
from tests.supervisor.conftest import kill

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.modes("native")]

FILES = {"a": b"first", "sub/b": filler(30_000, 1)}
SECONDS = 60.0


@pytest.fixture
def cache(mounter: Mounter) -> Cache:
    return Cache(mounter.home / "objects")


@pytest.fixture
def versions(mounter: Mounter) -> Project:
    project = new_project(mounter.home / "project", mounter.environment)
    for tag in ("v1", "v2"):
        project.track("data", {"a": tag.encode()})
        project.commit(tag)
    return project


def test_an_object_that_is_cut_short_later_is_read_as_it_is(mounter: Mounter, cache: Cache) -> None:
    mount = mounter.mount(cache.put_dataset(FILES), "--cache", cache.root, "--no-pin").path
    whole = FILES["sub/b"]
    assert (mount / "sub" / "b").read_bytes() == whole
    os.truncate(cache.place(md5(whole)), 1000)
    assert (mount / "sub" / "b").read_bytes() == whole[:1000]
    assert (mount / "sub" / "b").stat().st_size == len(whole)


def test_a_removed_object_is_read_until_the_kernel_forgets_it(mounter: Mounter, cache: Cache) -> None:
    mount = mounter.mount(cache.put_dataset(FILES), "--cache", cache.root, "--no-pin").path
    assert tree_of(mount) == FILES
    held = (mount / "sub" / "b").open("rb", buffering=0)
    for data in FILES.values():
        cache.remove(md5(data))
    assert (mount / "a").read_bytes() == FILES["a"]
    forget_unused(str(mount))
    with held:  # whatever is in its object's place
        cache.put(b"x" * len(FILES["sub/b"]), md5(FILES["sub/b"]))
        assert held.read() == FILES["sub/b"]
    with pytest.raises(OSError) as raised:
        (mount / "a").read_bytes()
    assert raised.value.errno == errno.EIO


def test_names_of_revisions_are_links(mounter: Mounter, versions: Project) -> None:
    mount = mounter.mount("data@v2", cwd=versions.root).path
    shown = mount / ".fusefs" / "revs" / "v1"
    commit = versions.git("rev-parse", "v1").strip()
    assert shown.readlink() == Path(f"../commits/{commit}")
    assert (mount / "a").read_bytes() == b"v2"
    assert (shown / "a").read_bytes() == b"v1"
    nothing = mount / ".fusefs" / "revs" / "nothing"
    assert nothing.is_symlink() and not nothing.exists()


def test_revisions_side_by_side_are_links(mounter: Mounter, versions: Project) -> None:
    """Only for who insists on native mode: links are not what directories are to `find` and `cp`."""
    mount = mounter.mount("data", "--revs", "v*", cwd=versions.root)
    assert mount.status()["mode"] == "native"
    assert (mount.path.stat().st_mode & 0o777, mount.path.stat().st_uid) == (0o700, os.geteuid())
    assert sorted(path.name for path in mount.path.iterdir()) == ["v1", "v2"]
    commit = versions.git("rev-parse", "v1").strip()
    assert (mount.path / "v1").readlink() == Path(f".fusefs/commits/{commit}")
    assert [tree_of(mount.path / name) for name in ("v1", "v2")] == [{"a": b"v1"}, {"a": b"v2"}]
    assert not (mount.path / "main").is_symlink()
    assert tree_of(mount.path / ".fusefs/revs/main") == {"a": b"v2"}
    assert not (mount.path / "v3").exists()
    versions.git("tag", "v3", "v1")
    until((mount.path / "v3" / "a").exists)
    with open(mount.path / "v1" / "a", "rb") as held:
        mount.pid = kill(mount)["pid"]
        assert held.read() == b"v1"
    assert tree_of(mount.path / "v3") == {"a": b"v1"}
    done = mounter.run("switch", mount.path, "v1")
    assert (done.returncode, "side by side" in done.stderr) == (1, True)
    assert "Traceback" not in mount.umount()
    mounter.mode = "auto"
    status = mounter.mount("data", "--revs", "v*", cwd=versions.root).status()
    assert status["why_fuse"] == "revisions side by side are directories there, and links in native mode"


def test_who_records_sees_every_open(mounter: Mounter, cache: Cache) -> None:
    """Native mode sees none where there is nothing to fetch, and never all."""
    oid = cache.put_dataset(FILES)
    why = "--record sees every open, and native mode does not"
    refused = mounter.refuse(oid, "--cache", cache.root, "--record")
    assert refused == f"fusefs: native mode is not possible: {why}\n"
    mounter.mode = "auto"
    assert "--no-prefetch" in mounter.refuse(oid, "--cache", cache.root, "--record", "--no-prefetch")
    mount = mounter.mount(oid, "--cache", cache.root, "--record")
    assert tree_of(mount.path) == FILES
    status = mount.status()
    assert (status["mode"], status["why_fuse"], status["hits"]) == ("fuse", why, len(FILES))


def test_a_mount_for_one_command_is_not_switched(mounter: Mounter, versions: Project) -> None:
    switch = [sys.executable, "-m", "fusefs.cli", "switch", "{}", "v2"]
    done = mounter.run("run", "--mode", "native", "data@v1", "--", *switch, cwd=versions.root)
    assert done.returncode == 1
    assert (
        done.stderr
        == "fusefs: this mount belongs to one command, and is in native mode: it cannot be switched\n"
    )


WATCH = """
import ctypes, errno, os, struct, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
CONTENT, ADD_MOUNT, OPEN_PERM, ALLOW = 0x4, 0x11, 0x10000, 1
group = libc.fanotify_init(CONTENT, os.O_RDONLY)
assert group >= 0
path = sys.argv[1].encode()
assert libc.fanotify_mark(group, ADD_MOUNT, ctypes.c_uint64(OPEN_PERM), -100, path) == 0

def answer():
    while True:
        try:
            events = os.read(group, 4096)
        except OSError as error:
            os.write(2, f"watcher {errno.errorcode[error.errno]}\\n".encode())
            continue
        while events:
            length, _, _, _, _, file, _ = struct.unpack_from("=IBBHQii", events)
            os.write(group, struct.pack("=iI", file, ALLOW))
            os.close(file)
            events = events[length:]

threading.Thread(target=answer, daemon=True).start()
for name in ("sub/b", "a", "a"):
    try:
        with open(f"{sys.argv[1]}/{name}", "rb") as file:
            print("read", len(file.read()), flush=True)
    except OSError as error:
        print("open", errno.errorcode[error.errno], flush=True)
sys.stdout.flush()
os._exit(0)
"""


def test_who_watches_every_open_spoils_the_first_of_what_is_missing(mounter: Mounter, cache: Cache) -> None:
    remote = Cache(mounter.home / "remote")
    remote.put(FILES["a"])
    oid = cache.put_dataset(FILES)
    cache.remove(md5(FILES["a"]))
    mount = mounter.mount(oid, "--cache", cache.root, "--remote", remote.root, "--no-pin").path
    done = subprocess.run(
        [sys.executable, "-c", WATCH, mount], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.stdout.split("\n")[:-1] == ["read 30000", "open EPERM", "read 5"]
    assert done.stderr == "watcher ESTALE\n"


@pytest.mark.modes("fuse", "native")
def test_reading_without_waiting_is_refused(mounter: Mounter, cache: Cache) -> None:
    """Unlike on the disk; whoever asks for it has another way."""
    mount = mounter.mount(cache.put_dataset(FILES), "--cache", cache.root).path
    with open(mount / "a", "rb") as file, pytest.raises(OSError) as raised:
        os.preadv(file.fileno(), [bytearray(10)], 0, os.RWF_NOWAIT)
    assert raised.value.errno == errno.EOPNOTSUPP


@pytest.fixture
def small_disk(mounter: Mounter) -> Iterator[Path]:
    disk = mounter.home / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "disk", disk], check=True, timeout=SECONDS)
    yield disk
    mounter.close()
    unmount(disk)


def test_room_of_what_was_evicted_is_the_disks_again(mounter: Mounter, small_disk: Path) -> None:
    """Though the kernel's names would hold on to every object that was read."""
    first, then = ({f"{first}": filler(1 << 20, first) for first in range(at, at + 18)} for at in (0, 18))
    files = {**first, **then}
    remote, cache = Cache(mounter.home / "remote"), Cache(small_disk / "cache")
    for data in files.values():
        remote.put(data)
    oid = cache.put_manifest(entries_of(files, sizes=True))
    where = ("--cache", cache.root, "--remote", remote.root, "--no-pin", "--no-prefetch")
    mount = mounter.mount(oid, *where, "--cache-size", "20M").path
    for path, data in first.items():
        assert (mount / path).read_bytes() == data
    until(lambda: all(cache.place(md5(data)).exists() for data in first.values()), "what was read is kept")
    time.sleep(GRACE_SECONDS)  # nothing is evicted before, and nobody tells when it is over
    for path, data in then.items():
        assert (mount / path).read_bytes() == data
    until(lambda: not all(cache.place(md5(data)).exists() for data in first.values()), "eviction")

    def used() -> int:
        disk = os.statvfs(small_disk)
        return (disk.f_blocks - disk.f_bfree) * disk.f_frsize

    until(lambda: used() < 24 << 20, lambda: f"{used()} bytes are used")
    assert tree_of(mount) == files
