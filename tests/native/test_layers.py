"""What is particular to native mode: the kernel reads by itself, and what it cannot know it is kept from."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fusefs import mountinfo
from fusefs.native.forgetting import IDLE_SECONDS
from tests.conftest import kill_for_good
from tests.mount.datasets import Cache, entries_of, filler, md5, tree_of
from tests.mount.mounts import Mounter
from tests.patience import until
from tests.revisions.projects import new_project

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.modes("native")]

FILES = {"a": b"first", "sub/b": filler(30_000, 1), "sub/c": filler(5_000_000, 2), "empty": b""}
NOBODY = 65534
SECONDS = 60.0
LONG_ENOUGH = IDLE_SECONDS + 1.5
"""For the kernel to be told to look again."""


@pytest.fixture
def cache(mounter: Mounter) -> Cache:
    return Cache(mounter.home / "objects")


def errno_of(path: Path) -> int:
    """The errno with which reading fails; 0 where it does not."""
    try:
        path.read_bytes()
    except OSError as error:
        assert error.errno
        return error.errno
    return 0


def remote_with(mounter: Mounter, files: dict[str, bytes]) -> Cache:
    """A directory that can be fetched from."""
    remote = Cache(mounter.home / "remote")
    for data in files.values():
        remote.put(data)
    return remote


def test_only_the_mountpoint_is_to_be_seen(mounter: Mounter, cache: Cache) -> None:
    before = mountinfo.read_mounts()
    mount = mounter.mount(cache.put_dataset(FILES), "--cache", cache.root)
    (new,) = [one for one in mountinfo.read_mounts() if one.mountpoint.startswith(str(mounter.home))]
    assert (new.mountpoint, new.fstype) == (str(mount.path), "overlay")
    assert new not in before
    assert tree_of(mount.path) == FILES
    status = mount.status()
    assert (status["mode"], status["hits"], status["bytes_cache"], status["misses"]) == (
        "native",
        None,
        None,
        0,
    )


def test_the_daemon_does_not_see_what_is_cached(mounter: Mounter, cache: Cache) -> None:
    mount = mounter.mount(cache.put_dataset(FILES), "--cache", cache.root)
    assert tree_of(mount.path) == FILES
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        assert (mount.path / "sub" / "b").read_bytes() == FILES["sub/b"]
    finally:
        os.kill(mount.pid, signal.SIGCONT)


def test_what_was_read_is_read_on_when_the_daemon_has_died(mounter: Mounter, cache: Cache) -> None:
    oid = cache.put_dataset(FILES)
    cache.remove(md5(FILES["a"]))
    mount = mounter.mount(oid, "--cache", cache.root)
    assert (mount.path / "sub" / "b").read_bytes() == FILES["sub/b"]
    with open(mount.path / "sub" / "c", "rb") as held:
        kill_for_good(mount.pid)
        mount.await_end()
        assert held.read() == FILES["sub/c"]
    assert (mount.path / "sub" / "b").read_bytes() == FILES["sub/b"]
    assert errno_of(mount.path / "a") == errno.ENOTCONN
    assert mounter.run("umount", mount.path).returncode == 0
    assert not os.path.ismount(mount.path)


def identity(status: os.stat_result) -> tuple[int, ...]:
    """What a file keeps, wherever its bytes are."""
    return status.st_dev, status.st_ino, status.st_nlink, status.st_size, status.st_blocks, status.st_mtime_ns


def test_only_open_fetches(mounter: Mounter, cache: Cache) -> None:
    """Small objects come into the cache with the first open, large ones as they are read."""
    remote = remote_with(mounter, FILES)
    oid = cache.put_dataset(FILES)
    for data in FILES.values():
        cache.remove(md5(data))
    mount = mounter.mount(oid, "--cache", cache.root, "--remote", remote.root)
    subprocess.run(["ls", "-lR", mount.path], check=True, capture_output=True, timeout=SECONDS)
    subprocess.run(["du", "-s", mount.path], check=True, capture_output=True, timeout=SECONDS)
    for path in FILES:
        os.getxattr(mount.path / path, "user.fusefs.cached")
    assert not any(cache.place(md5(data)).exists() for data in FILES.values())
    with open(mount.path / "sub" / "b", "rb"):
        until(cache.place(md5(FILES["sub/b"])).exists, "it is kept")
    assert cache.place(md5(FILES["sub/b"])).read_bytes() == FILES["sub/b"]
    before = (mount.path / "sub" / "c").stat()
    with open(mount.path / "sub" / "c", "rb") as large:
        assert large.read(100) == FILES["sub/c"][:100]
        assert identity(os.fstat(large.fileno())) == identity(before)
    assert tree_of(mount.path) == FILES
    assert identity((mount.path / "sub" / "c").stat()) == identity(before)


def test_a_large_object_becomes_the_kernels_to_read(mounter: Mounter, cache: Cache) -> None:
    """Read through the daemon while it comes; by the kernel alone when it is whole and nobody reads it."""
    remote = remote_with(mounter, FILES)
    oid = cache.put_dataset(FILES, sizes=True)
    large = FILES["sub/c"]
    cache.remove(md5(large))
    mount = mounter.mount(oid, "--cache", cache.root, "--remote", remote.root)
    path = mount.path / "sub" / "c"
    assert path.read_bytes() == large
    for _ in range(int(SECONDS / LONG_ENOUGH)):
        time.sleep(LONG_ENOUGH)  # while we look, the name is in use, and is not forgotten
        path.stat()  # the name, which the kernel forgets, too
        os.kill(mount.pid, signal.SIGSTOP)
        try:
            read = subprocess.run(["timeout", "1", "cat", path], capture_output=True, check=False)
        finally:
            os.kill(mount.pid, signal.SIGCONT)
        if read.returncode == 0:
            break
    assert read.stdout == large


def test_a_miss_is_asked_for_again_by_the_next_open(mounter: Mounter, cache: Cache) -> None:
    oid = cache.put_dataset(FILES, sizes=True)
    cache.remove(md5(FILES["a"]))
    mount = mounter.mount(oid, "--cache", cache.root, "--no-pin")
    assert [errno_of(mount.path / "a") for _ in range(3)] == [errno.EIO] * 3
    cache.put(FILES["a"])
    assert (mount.path / "a").read_bytes() == FILES["a"]


@pytest.mark.parametrize("wrong", [b"", FILES["sub/b"][:-1], FILES["sub/b"] + b"!"])
def test_an_object_of_another_length_is_never_read(mounter: Mounter, cache: Cache, wrong: bytes) -> None:
    """Fetched again where there is a remote; `cp` would fill up what is too short."""
    remote = remote_with(mounter, FILES)
    oid = cache.put_dataset(FILES, sizes=True)
    cache.remove(md5(FILES["sub/b"]))
    cache.put(wrong, md5(FILES["sub/b"]))
    alone = mounter.mount(oid, "--cache", cache.root).path
    assert errno_of(alone / "sub" / "b") == errno.EIO
    mount = mounter.mount(oid, "--cache", cache.root, "--remote", remote.root).path
    copied = mounter.home / "copied"
    subprocess.run(["cp", mount / "sub" / "b", copied], check=True, timeout=SECONDS)
    assert copied.read_bytes() == FILES["sub/b"]
    until(lambda: cache.place(md5(FILES["sub/b"])).read_bytes() == FILES["sub/b"])


@pytest.mark.modes("fuse", "native")
@pytest.mark.parametrize("told", [29_999, 30_001, 400_000])
def test_an_object_of_another_length_than_the_manifests_is_not_kept(
    mounter: Mounter, cache: Cache, told: int
) -> None:
    """Though it has its hash: the kernel would find it, and cut it short or fill it up."""
    remote = remote_with(mounter, FILES)
    entries = entries_of(FILES, sizes=True)
    next(entry for entry in entries if entry["relpath"] == "sub/b")["size"] = told
    oid = cache.put_manifest(entries)
    mount = mounter.mount(oid, "--cache", cache.root, "--remote", remote.root, "--no-prefetch")
    path = mount.path / "sub" / "b"
    assert path.stat().st_size == told
    assert errno_of(path) == errno.EIO
    assert (mount.path / "a").read_bytes() == FILES["a"]
    until(cache.place(md5(FILES["a"])).exists)  # and all that came before it
    assert errno_of(path) == errno.EIO
    assert not cache.place(md5(FILES["sub/b"])).exists()
    assert f"'sub/b': object {md5(FILES['sub/b'])}" in mount.umount()


@pytest.mark.modes("fuse", "native")
def test_a_size_that_was_wrong_is_corrected_wherever_it_was_told(mounter: Mounter) -> None:
    """For all paths of one content, in all versions that are shown."""
    data = FILES["sub/b"]
    remote = remote_with(mounter, FILES)
    project = new_project(mounter.home / "project", mounter.environment)
    for tag in ("v1", "v2"):
        project.track("data", {"a": data, "twin": data, "tag": tag.encode()})
        project.commit(tag)
    wrong = project.cache.place(md5(data))
    wrong.unlink()
    project.cache.put(data + b"more" * 1000, md5(data))
    mount = mounter.mount("data@v1", "--remote", remote.root, "--no-pin", "--no-prefetch", cwd=project.root)
    other = mount.path / ".fusefs/revs/v2"
    paths = [mount.path / "a", mount.path / "twin", other / "a", other / "twin"]
    assert {path.stat().st_size for path in paths} == {len(data) + 4000}
    wrong.unlink()
    copied = mounter.home / "copied"
    for path in (*paths, *paths):
        subprocess.run(["cp", path, copied], check=True, timeout=SECONDS)
        assert copied.read_bytes() == data, path
        assert path.stat().st_size == len(data)
    until(wrong.exists)
    assert [path.read_bytes() == data for path in paths] == [True] * 4


@pytest.mark.parametrize("told", [(30_000, 400_000), (400_000, 30_000), (None, 29_999)])
def test_a_manifest_that_contradicts_itself_pads_nothing(
    mounter: Mounter, cache: Cache, told: tuple[int | None, int]
) -> None:
    """One content under two paths, of two lengths: an error is what the kernel gets for either."""
    data = FILES["sub/b"]
    remote = remote_with(mounter, FILES)
    entries = [
        {"md5": md5(data), "relpath": name, **({"size": size} if size else {})}
        for name, size in zip("ab", told, strict=True)
    ]
    mount = mounter.mount(
        cache.put_manifest(entries), "--cache", cache.root, "--remote", remote.root, "--no-prefetch"
    )
    subprocess.run(["ls", "-lR", mount.path], check=True, capture_output=True, timeout=SECONDS)
    for name in ("a", "b", "a", "b"):
        assert errno_of(mount.path / name) == errno.EIO
    assert not cache.place(md5(data)).exists()
    assert f"object {md5(data)} is said to have" in mount.umount()


def test_a_cache_that_was_replaced_is_not_looked_for_in_circles(mounter: Mounter, cache: Cache) -> None:
    """The kernel holds on to the directory that it was given; what is in another one is read through us."""
    oid = cache.put_dataset(FILES)
    mount = mounter.mount(oid, "--cache", cache.root, "--no-pin").path
    cache.root.rename(mounter.home / "moved")
    for data in FILES.values():
        cache.put(data)
    shutil.rmtree(mounter.home / "moved")
    assert tree_of(mount) == FILES


def test_odd_names_of_caches_and_mountpoints(mounter: Mounter) -> None:
    name = "colon:comma,space new\nline back\\slash two::colons"
    odd = Cache(mounter.home / name)
    place = mounter.home / f"{name} too"
    place.mkdir()
    oid = odd.put_dataset(FILES)
    done = mounter.run("mount", "--mode", "native", "--cache", odd.root, oid, place)
    try:
        assert done.returncode == 0, done.stderr
        assert tree_of(place) == FILES
    finally:
        assert mounter.run("umount", place).returncode == 0


@pytest.mark.modes("fuse", "native")
@pytest.mark.parametrize("others", [False, True])
def test_who_else_may_enter(mounter: Mounter, cache: Cache, others: bool) -> None:
    for above in [mounter.home, *mounter.home.parents]:
        if above.stat().st_mode & 0o777 == 0o700:  # pytest's own
            above.chmod(0o755)
    flags = ["--allow-other"] if others else []
    mount = mounter.mount(cache.put_dataset(FILES), "--cache", cache.root, *flags).path
    if mounter.mode == "native":
        assert stat.S_IMODE(mount.stat().st_mode) == (0o755 if others else 0o700)
    read = subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", "--clear-groups", "cat", mount / "a"],
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert read.stdout == (FILES["a"] if others else b"")


WHY_NO_VIEW = "a view at the root is shown in fuse mode"


def test_a_view_at_the_root_is_not_in_native_mode(mounter: Mounter, cache: Cache) -> None:
    oid = cache.put_dataset(FILES)
    line = mounter.refuse(oid, "--cache", cache.root, "--view", "shards:10")
    assert line == f"fusefs: native mode is not possible: {WHY_NO_VIEW}\n"
    mounter.mode = "auto"
    mount = mounter.mount(oid, "--cache", cache.root, "--view", "shards:10")
    assert (mount.status()["mode"], mount.status()["why_fuse"]) == ("fuse", WHY_NO_VIEW)
    assert f"in fuse mode: {WHY_NO_VIEW}" in mount.umount()


SHARED = """
set -e
mount -t tmpfs parent "$1"
mount --make-shared "$1"
mkdir "$1/mnt"
cd "$2"
shift 2
"$@" mount --mode native data@v1 "$PARENT/mnt"
"$@" switch "$PARENT/mnt" v2 > /dev/null
cat "$PARENT/mnt/a"
grep -c "$PARENT/mnt " /proc/self/mountinfo
"$@" umount "$PARENT/mnt"
"""


def test_a_switch_where_mounts_are_shared(mounter: Mounter) -> None:
    root = mounter.home / "project"
    (root / ".dvc").mkdir(parents=True)
    names = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b"}
    names |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    environment = {**mounter.environment, **names, "PARENT": str(mounter.home / "parent")}
    subprocess.run(["git", "init", "-q"], cwd=root, env=environment, check=True, timeout=SECONDS)
    for tag in ("v1", "v2"):
        oid = Cache(root / ".dvc" / "cache").put_dataset({"a": tag.encode()})
        (root / "data.dvc").write_text(f"outs:\n- md5: {oid}\n  path: data\n  hash: md5\n")
        for words in (["add", "data.dvc"], ["commit", "-q", "-m", tag], ["tag", tag]):
            subprocess.run(["git", *words], cwd=root, env=environment, check=True, timeout=SECONDS)
    (mounter.home / "parent").mkdir()
    command = [sys.executable, "-m", "fusefs.cli"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", SHARED, "sh", mounter.home / "parent", root, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "v21\n"), done.stderr


def test_the_status_of_a_foreign_overlay_is_not_ours() -> None:
    line = "36 35 0:9 / /mnt ro - overlay data ro,lowerdir=/a:/b"
    (mount,) = mountinfo.parse_mountinfo(line.encode())
    assert not mount.is_ours
    (mount,) = mountinfo.parse_mountinfo(line.replace("overlay data", "overlay fusefs:data@v1").encode())
    assert (mount.is_ours, mount.target) == (True, "data@v1")
    assert json.dumps(mount.target) == '"data@v1"'
