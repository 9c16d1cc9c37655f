"""`--mode auto`: native mode where it works, elsewhere fuse mode and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mount.datasets import Cache, filler, md5, tree_of
from tests.mount.mounts import Mounter
from tests.patience import until

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.modes("native")]

FILES = {"a": b"first", "sub/b": filler(30_000, 1)}
COMMAND = (sys.executable, "-m", "fusefs.cli")
SECONDS = 60.0


@pytest.fixture
def automatic(mounter: Mounter) -> Mounter:
    """Mounts where native mode is possible, and leaves the mode to the command."""
    mounter.mode = "auto"
    return mounter


@pytest.fixture
def cache(automatic: Mounter) -> Cache:
    return Cache(automatic.home / "objects")


def in_own_namespace(script: str, *arguments: str | Path, **environment: str) -> str:
    """What a shell's script prints that may mount what it likes."""
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, "sh", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_native_mode_is_taken_where_it_works(automatic: Mounter, cache: Cache) -> None:
    mount = automatic.mount(cache.put_dataset(FILES), "--cache", cache.root)
    status = mount.status()
    assert (status["mode"], status["why_fuse"]) == ("native", None)
    assert tree_of(mount.path) == FILES
    assert "in fuse mode" not in mount.umount()


ON = """
mount -t tmpfs scratch "$1"
cd "$1"
mkdir lower upper work stacked upper2 work2 twice
cp -r "$2" lower/objects
case $3 in
tmpfs) cache=lower ;;
overlay) mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work it stacked; cache=stacked ;;
twice) mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work it stacked
       mount -t overlay -o lowerdir=stacked,upperdir=upper2,workdir=work2 it twice; cache=twice ;;
esac
shift 3
"$@" --cache "$PWD/$cache/objects" "$OID" -- sh -c 'cat {}/a >&2; cat {}/.fusefs/status' 2> content
if [ $cache = twice ]; then
    ! "$@" --mode native --cache "$PWD/$cache/objects" "$OID" -- true 2>> content
fi
cat content
"""
"""A scratch directory, the cache, and what it is to lie on."""


@pytest.mark.parametrize("below", ["tmpfs", "overlay", "twice"])
def test_what_the_cache_lies_on(automatic: Mounter, cache: Cache, below: str) -> None:
    oid, log = cache.put_dataset(FILES), automatic.home / "log"
    (automatic.home / "scratch").mkdir()
    words: list[str | Path] = [*COMMAND, "run", "--no-pin", "--log", log]
    said = in_own_namespace(
        ON, automatic.home / "scratch", cache.root, below, *words, **automatic.environment, OID=oid
    )
    status, end = json.JSONDecoder().raw_decode(said)
    content, *refusal = said[end:].strip().split("fusefs: ")
    assert content == FILES["a"].decode()
    if below != "twice":
        assert (status["mode"], refusal) == ("native", [])
        return
    # That is more than the kernel stacks.
    place = automatic.home / "scratch" / "twice" / "objects"
    assert status["why_fuse"].startswith(f"the cache {place}, on overlay, cannot be a layer of an overlay: ")
    assert f"in fuse mode: {status['why_fuse']}" in log.read_text()
    assert refusal == [f"native mode is not possible: {status['why_fuse']}"]


TWICE = """
mount -t tmpfs scratch "$1"
cd "$1"
mkdir -p lower/fusefs upper work stacked upper2 work2 twice
mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work it stacked
mount -t overlay -o lowerdir=stacked,upperdir=upper2,workdir=work2 it twice
mkdir -p twice/.dvc/cache
case $2 in
"the user's own") XDG_DATA_HOME=$PWD/twice "$PYTHON" -m fusefs.cli doctor --json ;;
"a project's") cd twice; "$PYTHON" -m fusefs.cli doctor --json ;;
esac
"""


@pytest.mark.parametrize(("whose", "place"), [("the user's own", "fusefs"), ("a project's", ".dvc/cache")])
def test_the_doctor_looks_at_the_cache(automatic: Mounter, whose: str, place: str) -> None:
    said = in_own_namespace(TWICE, automatic.home, whose, **automatic.environment, PYTHON=sys.executable)
    (row,) = [check for check in json.loads(said)["checks"] if check["name"] == "native layers"]
    assert (row["state"], row["detail"].partition(", but not with ")[0]) == ("limited", "as root")
    assert f"/twice/{place}, on overlay: " in row["detail"]


def test_a_cache_on_fuse(automatic: Mounter, cache: Cache) -> None:
    """Of another mount of ours, in fuse mode; nobody can write there."""
    oid = cache.put_dataset(FILES)
    objects = {
        path.relative_to(cache.root).as_posix(): path.read_bytes()
        for path in cache.root.rglob("*")
        if path.is_file()
    }
    below = automatic.mount_files(objects, "--mode", "fuse")
    mount = automatic.mount(oid, "--cache", below.path)
    assert (below.status()["mode"], mount.status()["mode"]) == ("fuse", "native")
    assert tree_of(mount.path) == FILES
    mount.umount()


FROM_THE_START = """
from fusefs.native import mount_api
mount_api._FSOPEN = 9999
"""
IN_THE_END = """
import sys
if "fusefs.native.attach" in sys.orig_argv:
    from fusefs.native import mount_api
    mount_api._MOVE_MOUNT = 9999
"""
"""A number that no system call has gets the same answer as one that an older kernel does not have."""


@pytest.mark.parametrize("lacking", [FROM_THE_START, IN_THE_END], ids=["the first", "the last"])
def test_a_kernel_without_the_calls(automatic: Mounter, cache: Cache, lacking: str) -> None:
    older = automatic.home / "older"
    older.mkdir()
    (older / "sitecustomize.py").write_text(lacking)
    oid, place = cache.put_dataset(FILES), automatic.new_mountpoint()

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        environment = automatic.environment
        environment["PYTHONPATH"] = f"{older}:{environment['PYTHONPATH']}"
        return subprocess.run(
            [*COMMAND, *words], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    refused = run("mount", "--mode", "native", "--cache", cache.root, oid, place)
    reason = "Function not implemented"
    assert refused.returncode == 1
    if lacking is FROM_THE_START:
        assert refused.stderr == f"fusefs: native mode is not possible: {reason}\n"
    else:
        reason = f"cannot mount on {place}: {reason}"
        assert refused.stderr.startswith("fusefs: ") and refused.stderr.endswith(f"{reason}\n")
        assert refused.stderr.count("\n") == 1
    assert not os.path.ismount(place)
    assert run("mount", "--cache", cache.root, oid, place).returncode == 0
    try:
        status: dict[str, Any] = json.loads((place / ".fusefs" / "status").read_text())
        reason = status["why_fuse"] if lacking is IN_THE_END else reason
        assert (status["mode"], status["why_fuse"]) == ("fuse", reason)
        assert "Function not implemented" in reason
        assert f"mode fuse ({reason})" in run("status", place).stdout
        assert tree_of(place) == FILES
    finally:
        assert run("umount", place).returncode == 0


BY_NAME = """
import errno, os
from fusefs.native import mount_api
as_now = mount_api._set
def refuse(context, name, value):
    if isinstance(value, int):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    as_now(context, name, value)
mount_api._set = refuse
"""
"""As before Linux 6.13, which takes no descriptor for a layer."""


def test_a_kernel_that_takes_layers_by_name_alone(automatic: Mounter, cache: Cache) -> None:
    older = automatic.home / "older"
    older.mkdir()
    (older / "sitecustomize.py").write_text(BY_NAME)
    remote = Cache(automatic.home / "remote")
    oid, missing = cache.put_dataset(FILES), FILES["sub/b"]
    remote.put(missing)
    cache.remove(md5(missing))
    environment = automatic.environment
    environment["PYTHONPATH"] = f"{older}:{environment['PYTHONPATH']}"
    place = automatic.new_mountpoint()
    words: list[str | Path] = ["mount", "--cache", cache.root, "--remote", remote.root, oid, place]
    done = subprocess.run(
        [*COMMAND, *words], env=environment, capture_output=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    try:
        status: dict[str, Any] = json.loads((place / ".fusefs" / "status").read_text())
        assert (status["mode"], tree_of(place)) == ("native", FILES)
    finally:
        assert automatic.run("umount", place).returncode == 0


SLAVE = """
mount -t tmpfs parent "$1"
mount --make-shared "$1"
mkdir "$1/mnt"
unshare --mount --propagation slave sh -ec "$LOOK" "$1" < $2/in > $2/out &
exec 3> $2/in 4< $2/out
read _ <&4
shift 2
"$@" "$PARENT/mnt"
echo >&3
read content <&4
echo "there: $content"
umount "$PARENT/mnt"
echo >&3
cat <&4
wait
"""
LOOK = 'echo; read _; cat "$0/mnt/a"; echo; read _; ls "$0/mnt"'


def test_a_mount_that_others_get_a_copy_of(automatic: Mounter, cache: Cache) -> None:
    """It goes from there as well when it is unmounted, and the daemon ends."""
    oid, log = cache.put_dataset(FILES), automatic.home / "log"
    parent = automatic.home / "parent"
    parent.mkdir()
    for name in ("in", "out"):
        os.mkfifo(automatic.home / name)
    words: list[str | Path] = [*COMMAND, "mount", "--mode", "native", "--log", log]
    words += ["--cache", cache.root, oid]
    said = in_own_namespace(
        SLAVE, parent, automatic.home, *words, **automatic.environment, PARENT=str(parent), LOOK=LOOK
    )
    assert said == f"there: {FILES['a'].decode()}\n"
    until(lambda: "ended after" in log.read_text())


def test_a_second_mount_over_the_first(automatic: Mounter, cache: Cache) -> None:
    oid = cache.put_dataset(FILES)
    mount = automatic.mount(oid, "--cache", cache.root)
    again = automatic.run("mount", "--cache", cache.root, oid, mount.path)
    assert again.returncode == 1
    assert again.stderr == f"fusefs: {mount.path} is mounted already, with {oid}; `fusefs umount` frees it\n"
    subprocess.run(["mount", "-t", "tmpfs", "above", mount.path], check=True, timeout=SECONDS)
    try:
        assert tree_of(mount.path) == {}
    finally:
        subprocess.run(["umount", mount.path], check=True, timeout=SECONDS)
    assert tree_of(mount.path) == FILES


def test_a_mountpoint_that_is_removed(automatic: Mounter, cache: Cache) -> None:
    """Somebody may who does not see the mount; it is gone then, and the daemon ends."""
    mount = automatic.mount(cache.put_dataset(FILES), "--cache", cache.root)
    in_own_namespace('umount "$1"; rmdir "$1"', mount.path)
    assert not mount.path.exists()
    mount.await_end()
    assert "Traceback" not in mount.log.read_text()
