"""Ordinary users: mounts through fusermount3, private mounts, and what is refused them, in one line each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fusefs import mountinfo
from fusefs.fuse_control import connection_directory
from fusefs.kernel_mount import MAX_BACKGROUND
from tests.conftest import Fusefs, SmallDataset, kill_for_good
from tests.mount.datasets import Cache, filler, md5
from tests.patience import until
from tests.process.conftest import LEAVE_OTHERS, NOBODY, User, list_daemons
from tests.supervisor.conftest import SECONDS, Remote

pytestmark = [pytest.mark.fuse, pytest.mark.root]


def altered(script: str) -> Sequence[str]:
    """Runs `script` as root in a mount namespace of its own, where files can be hidden, and what follows."""
    return [
        "unshare",
        "--mount",
        "--propagation=private",
        "sh",
        "-ec",
        f'{LEAVE_OTHERS}\n{script}\nexec "$@"',
        "sh",
    ]


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("fusefs: ") and done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_a_user_mounts_and_unmounts(user: User) -> None:
    done = user("mount", "--cache", user.dataset.cache, user.dataset.oid, user.mountpoint)
    assert done.returncode == 0, done.stderr
    mount = mountinfo.mount_at(str(user.mountpoint), mountinfo.read_mounts())
    assert mount is not None and mount.source == user.dataset.oid
    shown = user.run(["sh", "-c", 'cat "$0/a/0.txt"; stat -c "%u %g %a" "$0/a/0.txt"', str(user.mountpoint)])
    assert shown.stdout == user.dataset.files["a/0.txt"].decode() + f"{NOBODY} {NOBODY} 644\n"
    (status,) = [
        one for one in json.loads(user("list", "--json").stdout) if one["mountpoint"] == str(user.mountpoint)
    ]
    assert (status["state"], status["mode"]) == ("ok", "fuse")
    assert status["why_fuse"].startswith("only root may mount an overlay")
    done = user("umount", user.mountpoint)
    assert (done.returncode, done.stderr) == (0, "")
    assert list_daemons(user.mountpoint) == []


def test_a_users_mount_outlives_its_daemon(user: User) -> None:
    assert user("mount", "--cache", user.dataset.cache, user.dataset.oid, user.mountpoint).returncode == 0
    (pid,) = list_daemons(user.mountpoint)
    user.run(["kill", "-KILL", str(pid)])
    shown = user.run(["cat", str(user.mountpoint / "a/0.txt")])
    assert shown.stdout == user.dataset.files["a/0.txt"].decode()
    assert list_daemons(user.mountpoint) != [pid]
    done = user("umount", user.mountpoint)
    assert (done.returncode, done.stderr, list_daemons(user.mountpoint)) == (0, "", [])


MISSING = {f"one directory/{number}": filler(5000, number) for number in range(64)}
READ_ALL = """
import pathlib, sys, threading
def read(path):
    with open(f"{sys.argv[1]}/{path}", "rb") as file:
        pathlib.Path(sys.argv[2], path.rpartition("/")[2]).write_bytes(file.read())
readers = [threading.Thread(target=read, args=(path,)) for path in sys.argv[3:]]
for reader in readers:
    reader.start()
for reader in readers:
    reader.join()
"""


@pytest.fixture
def closed(user: User) -> Iterator[Remote]:
    """A remote that has what is missing, and does not answer yet."""
    root = user.mountpoint.with_name("remote")
    root.mkdir()
    with Remote(root) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.open.set()
        server.shutdown()
        thread.join()


def test_a_users_readers_are_answered_at_a_time_and_by_the_next_daemon(user: User, closed: Remote) -> None:
    """As many of one directory as there are; what the daemon that was killed had taken, too."""
    far, cache = Cache(closed.root), Cache(user.dataset.cache)
    oid = cache.put_dataset(MISSING, sizes=True)
    for data in MISSING.values():
        far.put(data)
        cache.remove(md5(data))
    where = ["--cache", cache.root, "--remote", closed.url, "--no-prefetch"]
    for path in cache.root.rglob("*"):
        os.lchown(path, NOBODY, NOBODY)
    done = user("mount", *where, oid, user.mountpoint)
    assert done.returncode == 0, done.stderr
    device = mountinfo.mount_at(str(user.mountpoint), mountinfo.read_mounts())
    assert device is not None
    with connection_directory(device.device.partition(":")[2]) as directory:
        settings = os.open("max_background", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        with open(settings) as file:
            assert int(file.read()) == MAX_BACKGROUND
    copies = Path(user.fusefs.environment["TMPDIR"], "copies")
    copies.mkdir()
    os.chown(copies, NOBODY, NOBODY)
    python = user.fusefs.command()[0]
    words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", python, "-c", READ_ALL]
    with subprocess.Popen([*words, user.mountpoint, copies, *MISSING]) as readers:
        until(
            lambda: len(set(closed.asked)) == len(MISSING), lambda: f"{len(set(closed.asked))} are asked for"
        )
        (pid,) = list_daemons(user.mountpoint)
        os.kill(pid, signal.SIGKILL)
        until(lambda: list_daemons(user.mountpoint) not in ([], [pid]))
        closed.open.set()
        assert readers.wait(SECONDS) == 0
    assert {path: (copies / path.rpartition("/")[2]).read_bytes() for path in MISSING} == MISSING
    assert user("umount", user.mountpoint).returncode == 0
    assert list_daemons(user.mountpoint) == []


def test_a_user_clears_a_dead_mount(user: User) -> None:
    assert user("mount", "--cache", user.dataset.cache, user.dataset.oid, user.mountpoint).returncode == 0
    (pid,) = list_daemons(user.mountpoint)
    kill_for_good(pid)
    assert user("mount", "--cache", user.dataset.cache, user.dataset.oid, user.mountpoint).returncode == 0
    assert user("umount", user.mountpoint).returncode == 0
    assert mountinfo.mount_at(str(user.mountpoint), mountinfo.read_mounts()) is None


IN_A_NAMESPACE = """
place=$1 python=$2
shift
"$@" "$place"
cat "$place/a/0.txt"
"$python" -m fusefs.cli status --json "$place"
"$python" -m fusefs.cli umount "$place"
"""


@pytest.mark.modes("native")
def test_a_user_mounts_as_root_does_in_a_namespace_of_his_own(user: User, mode: str) -> None:
    words = ["mount", "--mode", mode, "--cache", user.dataset.cache, user.dataset.oid]
    script = ["unshare", "-Urm", "sh", "-ec", IN_A_NAMESPACE, "sh", str(user.mountpoint)]
    done = user.run([*script, *user.fusefs.command(*words)])
    assert (done.returncode, done.stderr) == (0, "")
    content = user.dataset.files["a/0.txt"].decode()
    assert done.stdout.startswith(content)
    status = json.loads(done.stdout.removeprefix(content))
    assert (status["mode"], status["state"]) == ("native", "ok")
    assert list_daemons(user.mountpoint) == []


def test_the_helper_gets_no_options_from_a_source(user: User) -> None:
    script = """
import os, sys
from fusefs import kernel_mount
mounted = kernel_mount.mount_fuse(sys.argv[1], sys.argv[2], allow_other=False)
print(repr(mounted.mount.source))
os.close(mounted.fd)
kernel_mount.unmount(mounted.mount)
"""
    source = "a,allow_other,fd=9\\,b\nc d"
    done = user.run([*user.fusefs.command()[:1], "-c", script, str(user.mountpoint), source])
    assert (done.stdout, done.stderr) == (f"{source!r}\n", "")


def test_no_fusermount(user: User) -> None:
    hide = "mount --bind /dev/null $(command -v fusermount3)"
    done = user(
        "mount", "--cache", user.dataset.cache, user.dataset.oid, user.mountpoint, prefix=altered(hide)
    )
    refused(done, "there is no fusermount3", "fuse3")


def test_no_device(user: User, fusefs: Fusefs, dataset: SmallDataset, mountpoint: Path) -> None:
    hide = "mount -t tmpfs none /dev\nln -s /proc/self/fd /dev/fd\nmknod -m 666 /dev/null c 1 3"
    mount = ["mount", "--cache", user.dataset.cache, user.dataset.oid, user.mountpoint]
    refused(user(*mount, prefix=altered(hide)), "there is no /dev/fuse", "modprobe fuse")
    as_root = subprocess.run(
        [*altered(hide), *fusefs.command("mount", "--cache", dataset.cache, dataset.oid, mountpoint)],
        env=fusefs.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    refused(as_root, "there is no /dev/fuse", "modprobe fuse")


def test_allow_other_needs_roots_permission(user: User) -> None:
    mount = ["mount", "--allow-other", "--cache", user.dataset.cache, user.dataset.oid, user.mountpoint]
    conf = user.mountpoint.with_name("fuse.conf")
    conf.write_text("#user_allow_other\n")
    give = f"mount --bind '{conf}' /etc/fuse.conf"
    refused(user(*mount, prefix=altered(give)), "--allow-other", "user_allow_other", "/etc/fuse.conf")
    conf.write_text("user_allow_other\n")
    script = 'prefix=$1; shift; "$@" && cat "$prefix/a/0.txt"'
    done = user.run(
        ["sh", "-c", script, "sh", str(user.mountpoint), *user.fusefs.command(*mount)], prefix=altered(give)
    )
    assert done.stdout == user.dataset.files["a/0.txt"].decode(), done.stderr


def test_a_directory_of_somebody_else(user: User) -> None:
    theirs = user.mountpoint.with_name("theirs")
    theirs.mkdir(mode=0o755)
    refused(user("mount", "--cache", user.dataset.cache, user.dataset.oid, theirs), "not writable")
    theirs.chmod(0o1777)
    refused(user("mount", "--cache", user.dataset.cache, user.dataset.oid, theirs), "not yours")


def test_somebody_elses_mount(user: User) -> None:
    user.fusefs("mount", "--cache", user.dataset.cache, user.dataset.oid, user.mountpoint, check=True)
    refused(user("umount", user.mountpoint), "cannot unmount")
    (status,) = [
        one for one in json.loads(user("list", "--json").stdout) if one["mountpoint"] == str(user.mountpoint)
    ]
    assert (status["state"], status["pid"]) == ("denied", None)
