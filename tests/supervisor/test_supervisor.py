"""A mount outlives its daemon: whoever waits is answered by the next one, or gets an error in the end."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import kill_for_good
from tests.mount.datasets import Cache, filler, md5
from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.process.conftest import list_daemons
from tests.supervisor.conftest import SECONDS, Remote, kill

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

FILES = {"here": filler(300_000, 1), "sub/here": b"also", "sub/missing": filler(50_000, 2), "other": b"too"}
MISSING = ("sub/missing", "other")
GONE = {errno.ENOTCONN, errno.ECONNABORTED}


@pytest.fixture
def mount(mounter: Mounter, remote: Remote) -> Mount:
    """Two files of it are missing, and the remote that has them does not answer yet."""
    cache, far = Cache(mounter.home / "objects"), Cache(remote.root)
    oid = cache.put_dataset(FILES, sizes=True)
    for path in MISSING:
        far.put(FILES[path])
        cache.remove(md5(FILES[path]))
    return mounter.mount(oid, "--cache", cache.root, "--remote", remote.url, "--no-prefetch")


def read(path: Path) -> bytes | int:
    """A file's bytes, or the errno of who wanted them."""
    try:
        return path.read_bytes()
    except OSError as error:
        return error.errno or 0


def kill_daemons(place: Path) -> None:
    for pid in list_daemons(place):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def test_readers_are_answered_by_the_next_daemon(mounter: Mounter, mount: Mount, remote: Remote) -> None:
    """One whose request the dead one had taken, one that came later, and those who have something open."""
    with (
        open(mount.path / "here", "rb", buffering=0) as held,
        os.scandir(mount.path / "sub") as listed,
        ThreadPoolExecutor(2) as readers,
    ):
        first = held.read(1000)
        names = {next(listed).name}
        waiting = readers.submit(read, mount.path / "sub/missing")
        until(lambda: remote.asked)
        os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.kill(mount.pid, signal.SIGKILL)
        later = readers.submit(read, mount.path / "other")
        assert first + held.readall() == FILES["here"]
        status = mount.status()
        assert not waiting.done()
        remote.open.set()
        assert waiting.result(SECONDS) == FILES["sub/missing"]
        assert later.result(SECONDS) == FILES["other"]
        assert names | {entry.name for entry in listed} == {"here", "missing"}
        assert (mount.path / "sub/here").read_bytes() == FILES["sub/here"]
    assert (status["restarts"], status["pid"] != mount.pid) == (1, True)
    assert "in the place of 1 that died" in mounter.run("status", mount.path).stdout
    done = mounter.run("umount", mount.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert ended(status["pid"]) and ended(status["supervisor"])
    mount.await_end()
    log = mount.log.read_text()
    assert "the daemon was ended by SIGKILL: another one goes on, restart 1" in log
    assert "Traceback" not in log and "ended after" in log


def test_readers_get_an_error_when_daemon_after_daemon_dies(
    mounter: Mounter, mount: Mount, remote: Remote
) -> None:
    with ThreadPoolExecutor(1) as readers:
        waiting = readers.submit(read, mount.path / "sub/missing")
        until(lambda: remote.asked)
        for _ in range(3):
            status = kill(mount)
            assert not waiting.done()
        # On a very slow machine the first death is too long ago by now, and one more is borne.
        until(lambda: waiting.done() or kill_daemons(mount.path))
        assert waiting.result() in GONE
    until(lambda: ended(status["supervisor"]))
    assert read(mount.path / "other") in GONE
    assert "ERROR fusefs.supervisor: the daemon was ended by SIGKILL: the mount ends" in mount.log.read_text()
    assert mounter.run("umount", mount.path).returncode == 0
    assert not os.path.ismount(mount.path)
    mount.await_end()


def test_pins_are_taken_over(mounter: Mounter) -> None:
    """What is gone from the cache and held by pins alone is read on, with the next daemon, too."""
    cache = Cache(mounter.home / "objects")
    mount = mounter.mount(cache.put_dataset(FILES), "--cache", cache.root)
    until(lambda: mount.status()["pins"]["state"] == "complete")
    pins = mount.status()["pins"]
    for data in FILES.values():
        cache.remove(md5(data))
    kill(mount)
    until(lambda: mount.status()["pins"]["state"] == "complete")
    assert mount.status()["pins"] == pins
    assert {path: read(mount.path / path) for path in FILES} == FILES
    mount.umount()
    assert not (cache.root / "fusefs/pins").exists()


def test_without_its_supervisor_a_daemon_goes_on(mounter: Mounter, mount: Mount) -> None:
    os.kill(mount.status()["supervisor"], signal.SIGKILL)
    until(lambda: mount.status()["supervisor"] is None)
    assert (mount.path / "here").read_bytes() == FILES["here"]
    until(lambda: "the supervisor is gone" in mount.log.read_text())
    kill_for_good(mount.pid)
    until(lambda: ended(mount.pid))
    assert read(mount.path / "other") in GONE
    assert mounter.run("umount", mount.path).returncode == 0
    mount.await_end()


def test_a_mount_that_is_let_go_of_while_nobody_serves_it_ends(mounter: Mounter, mount: Mount) -> None:
    """Unmounted before the next daemon has come so far."""
    status = mount.status()
    os.kill(status["pid"], signal.SIGKILL)
    assert mounter.run("umount", "--lazy", mount.path).returncode == 0
    until(lambda: ended(status["supervisor"]))
    assert not os.path.ismount(mount.path)
    mount.await_end()
