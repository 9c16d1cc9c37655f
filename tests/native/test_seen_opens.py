"""In native mode the daemon sees what is opened of what is cached, where it can learn from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mount.datasets import Cache, entries_of, filler, md5
from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.revisions.projects import new_project

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.modes("native")]

FILES = {f"{number % 2}/sub/{number}": filler(1000 + number, number) for number in range(10)}
SECONDS = 60.0
BLOCK = 4096
"""What each of them takes on the disk."""


@pytest.fixture
def cache(mounter: Mounter) -> Cache:
    return Cache(mounter.home / "objects")


@pytest.fixture
def remote(mounter: Mounter) -> Cache:
    there = Cache(mounter.home / "remote")
    for data in FILES.values():
        there.put(data)
    return there


def read(mount: Mount, paths: Sequence[str]) -> None:
    for path in paths:
        assert (mount.path / path).read_bytes() == FILES[path]


def test_hits_are_counted_and_misses_are_not_among_them(
    mounter: Mounter, cache: Cache, remote: Cache
) -> None:
    oid = cache.put_dataset(FILES)
    first, *others = FILES
    cache.remove(md5(FILES[first]))
    mount = mounter.mount(oid, "--cache", cache.root, "--remote", remote.root, "--no-pin")
    assert mount.status()["hits"] == 0
    read(mount, [first, *others])
    subprocess.run(["ls", "-lR", mount.path], check=True, capture_output=True, timeout=SECONDS)
    until(lambda: mount.status()["hits"] >= len(others))
    status = mount.status()
    assert (status["hits"], status["misses"], status["bytes_cache"]) == (len(others), 1, None)


def test_what_is_seen_keeps_nobody_from_unmounting(mounter: Mounter, cache: Cache, remote: Cache) -> None:
    """A mark of fanotify would: its events hold what was opened."""
    mount = mounter.mount(cache.put_dataset(FILES), "--cache", cache.root, "--remote", remote.root)
    read(mount, list(FILES))
    subprocess.run(["umount", mount.path], check=True, timeout=SECONDS)
    mount.await_end()


def test_objects_that_the_kernel_reads_are_evicted_last(
    mounter: Mounter, cache: Cache, remote: Cache
) -> None:
    """What was opened again stays, though it came first."""
    oid = cache.put_manifest(entries_of(FILES))
    mount = mounter.mount(oid, "--cache", cache.root, "--remote", remote.root, "--no-pin")
    paths = list(FILES)
    again = paths[:2]
    read(mount, paths)
    until(lambda: all(cache.place(md5(data)).exists() for data in FILES.values()))  # the disk has them
    read(mount, again)
    until(lambda: mount.status()["hits"] >= len(again))
    mount.umount()
    where = ("--cache", cache.root, "--remote", remote.root)
    done = mounter.run("cache", "trim", "--cache-size", str((len(FILES) - 2) * BLOCK), *where)
    assert done.returncode == 0, done.stderr
    kept = [path for path in paths if cache.place(md5(FILES[path])).exists()]
    assert kept[: len(again)] == again
    assert len(kept) < len(FILES) - 2


def test_opens_are_seen_after_a_switch_and_by_another_daemon(mounter: Mounter, remote: Cache) -> None:
    project = new_project(mounter.home / "project", mounter.environment)
    versions = {
        tag: {f"{tag}/{number}": f"{tag} {number}".encode() for number in range(3)} for tag in ("v1", "v2")
    }
    for tag, files in versions.items():
        project.track("data", files)
        project.commit(tag)
    mount = mounter.mount("data@v1", "--remote", remote.root, cwd=project.root)

    def are_seen(tag: str) -> bool:
        """Are as many hits counted as files are read?"""
        before = mount.status()["hits"]
        if before is None:
            return False  # another daemon does not see them at once
        for path, data in versions[tag].items():
            assert (mount.path / path).read_bytes() == data
        until(lambda: mount.status()["hits"] >= before + 3)
        return True

    assert are_seen("v1")
    assert mounter.run("switch", mount.path, "v2").returncode == 0
    assert are_seen("v2")
    os.kill(mount.status()["pid"], signal.SIGKILL)
    until(lambda: are_seen("v2"))


READ_AHEAD = """
import json, pathlib, sys, time
root, paths = pathlib.Path(sys.argv[1]), sys.argv[2:]
def status():
    return json.loads((root / ".fusefs/status").read_text())
def until(is_so):
    end = time.monotonic() + 60
    while not is_so() and time.monotonic() < end:
        time.sleep(0.01)
until(lambda: status()["prefetch"]["ahead"] == len(paths))
for path in paths:
    (root / path).read_bytes()
until(lambda: not status()["prefetch"]["ahead"])
now = status()
print(now["mode"], now["prefetch"]["order"], now["prefetch"]["hits"], now["hits"])
"""


@pytest.mark.parametrize("private", [[], ["unshare", "-Ur"]], ids=["root", "user namespace"])
def test_opens_are_seen_in_a_mount_for_one_command(
    mounter: Mounter, cache: Cache, remote: Cache, private: list[str]
) -> None:
    """The daemon does not see that mount, but its watches; so an order can be followed."""
    oid = cache.put_manifest(entries_of(FILES))
    order = mounter.home / "order"
    order.write_text("".join(f"{path}\n" for path in FILES))
    words: list[str | Path] = [*private, sys.executable, "-m", "fusefs.cli", "run", "--mode", "native"]
    words += ["--no-pin", "--cache", cache.root, "--remote", remote.root, "--order", order, oid, "--"]
    done = subprocess.run(
        [*words, sys.executable, "-c", READ_AHEAD, "{}", *FILES],
        env=mounter.environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"native file {len(FILES)} {len(FILES)}\n", "")


MANY = """
set -e
echo 3 > /proc/sys/user/max_inotify_watches
"$@" "$MOUNTPOINT"
cat "$MOUNTPOINT/0/sub/0" > read
grep -m 1 hits "$MOUNTPOINT/.fusefs/status"
umount "$MOUNTPOINT"
"""
"""In a user namespace, which has a limit of its own."""


def test_more_directories_than_the_kernel_watches(mounter: Mounter, cache: Cache, remote: Cache) -> None:
    """Nothing is counted then, and the log says why."""
    oid, log = cache.put_dataset(FILES), mounter.home / "log"
    words: list[str | Path] = ["mount", "--mode", "native", "--log", log, "--cache", cache.root]
    words += ["--remote", remote.root, oid]
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", MANY, "sh", sys.executable, "-m", "fusefs.cli", *words],
        cwd=mounter.home,
        env={**mounter.environment, "MOUNTPOINT": str(mounter.new_mountpoint())},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, '"hits": null,'), done.stderr
    assert (mounter.home / "read").read_bytes() == FILES["0/sub/0"]
    until(lambda: "ended after" in log.read_text())
    assert (
        "opens of what is cached are not seen: there are more directories than fs.inotify" in log.read_text()
    )
