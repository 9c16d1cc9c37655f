"""What a service manager does to what it starts, as far as it can be done without one: its messages, its
signals, its mount namespaces, and rights that it takes away. Quoted are settings of systemd's units."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fusefs import mountinfo
from tests.conftest import SECONDS, Fusefs, SmallDataset
from tests.process.conftest import User, await_end, list_daemons

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.modes("fuse", "native")]

CREDENTIALS = struct.Struct("3i")
FILE = "a/0.txt"
LAYERS = "native layers"
"""The check of the doctor's."""


def children_of(pid: int) -> list[int]:
    """A process, and all that it and its children have started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            with contextlib.suppress(OSError):  # it has ended
                found += children_of(int(child))
    return found


@contextlib.contextmanager
def service(
    fusefs: Fusefs, *words: str | Path, prefix: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """`Type=notify`: a mount in the foreground that has said that it is ready, by its main process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        address = f"fusefs-unit-{os.getpid()}-{fusefs.directory.name}"
        manager.bind(f"\0{address}")
        manager.settimeout(SECONDS)
        with subprocess.Popen(
            [*prefix, *fusefs.command("mount", "--foreground", *words)],
            cwd="/",
            env={**fusefs.environment, "NOTIFY_SOCKET": f"@{address}"},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            message, ancillary, _, _ = manager.recvmsg(4096, socket.CMSG_SPACE(CREDENTIALS.size))
            assert message.startswith(b"READY=1\n")
            ((_, _, data),) = ancillary
            assert CREDENTIALS.unpack(data)[0] == process.pid  # systemd listens to nobody else
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    process.wait(SECONDS)


@pytest.fixture
def words(dataset: SmallDataset, mountpoint: Path) -> list[str | Path]:
    return ["--cache", dataset.cache, dataset.oid, mountpoint]


@pytest.mark.parametrize("to_all", [False, True], ids=["KillMode=mixed", "KillMode=control-group"])
def test_a_service_is_stopped(
    fusefs: Fusefs, dataset: SmallDataset, mountpoint: Path, words: list[str | Path], to_all: bool
) -> None:
    """Whether the supervisor alone is told to end, or everybody, and again and again: nobody starts another
    daemon, and nobody is ended half-way."""
    with service(fusefs, *words) as process:
        assert (mountpoint / FILE).read_bytes() == dataset.files[FILE]
        (daemon,) = list_daemons(mountpoint)
        process.send_signal(signal.SIGTERM)
        while to_all and process.poll() is None:
            with contextlib.suppress(OSError):  # it ends
                for pid in children_of(process.pid):
                    os.kill(pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.001)
        _, log = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, log
        assert "Traceback" not in log and "ended after" in log
        assert await_end(daemon)
    assert mountinfo.mount_at(str(mountpoint), mountinfo.read_mounts()) is None
    assert list_daemons(mountpoint) == []


def in_unit(*propagation: str) -> list[str]:
    """What gives a command a mount namespace of its own, as systemd does."""
    return ["unshare", "--mount", *propagation, "sh", "-ec", 'exec "$@"', "sh"]


def read_there(pid: int, path: Path) -> bytes:
    """What a file is in the mount namespace of a process."""
    command = ["nsenter", f"--mount=/proc/{pid}/ns/mnt", "cat", path]
    return subprocess.run(command, capture_output=True, timeout=SECONDS, check=False).stdout


@pytest.fixture
def shared_parent(tmp_path: Path) -> Iterator[Path]:
    """A directory whose mounts others get, as all are where systemd has started."""
    parent = tmp_path / "shared"
    parent.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "shared", parent], check=True, timeout=SECONDS)
    subprocess.run(["mount", "--make-shared", parent], check=True, timeout=SECONDS)
    (parent / "mnt").mkdir()
    yield parent
    subprocess.run(["umount", "--lazy", parent], check=True, timeout=SECONDS)


@pytest.mark.parametrize("setting", ["slave", "private"])
def test_a_unit_with_a_file_system_of_its_own_keeps_the_mount(
    fusefs: Fusefs, dataset: SmallDataset, shared_parent: Path, setting: str
) -> None:
    """`PrivateMounts=`, `ProtectSystem=` and the like: nobody else sees it, and it ends with the unit."""
    place = shared_parent / "mnt"
    unit = in_unit(f"--propagation={setting}")
    with service(fusefs, "--cache", dataset.cache, dataset.oid, place, prefix=unit) as process:
        assert read_there(process.pid, place / FILE) == dataset.files[FILE]
        assert list(place.iterdir()) == []
        assert "is not a mount" in fusefs("umount", place).stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    assert list_daemons(place) == []


def test_a_unit_that_shares_its_mounts(fusefs: Fusefs, dataset: SmallDataset, shared_parent: Path) -> None:
    """`MountFlags=shared`: it is there for everybody, and whoever unmounts it ends the service."""
    place = shared_parent / "mnt"
    unit = in_unit("--propagation=unchanged")
    with service(fusefs, "--cache", dataset.cache, dataset.oid, place, prefix=unit) as process:
        assert (place / FILE).read_bytes() == dataset.files[FILE]
        assert read_there(process.pid, place / FILE) == dataset.files[FILE]
        subprocess.run(["umount", place], check=True, timeout=SECONDS)
        assert process.wait(SECONDS) == 0
    assert list(place.iterdir()) == []
    assert list_daemons(place) == []


def test_rights_that_a_unit_lacks(fusefs: Fusefs, words: list[str | Path]) -> None:
    """`CapabilityBoundingSet=` without the right to mount: one line, also from root."""
    without = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*without, *fusefs.command(*words)],
            env=fusefs.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    done = run("mount", *words)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    expected = "cannot mount on" if fusefs.mode == "fuse" else "only root may mount an overlay"
    assert expected in done.stderr
    (row,) = [one for one in json.loads(run("doctor", "--json").stdout)["checks"] if one["name"] == LAYERS]
    assert (row["state"], "not permitted" in row["detail"]) == ("no", True)


@pytest.mark.modes("fuse")  # nobody but root mounts in native mode, except for one command
def test_a_user_who_may_get_no_privileges(user: User) -> None:
    """`NoNewPrivileges=yes` keeps fusermount3 from mounting; a mount for one command needs none."""
    target = ["--cache", user.dataset.cache, user.dataset.oid]
    without = ["setpriv", "--no-new-privs"]
    done = user("mount", *target, user.mountpoint, prefix=without)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"fusefs: cannot mount on {user.mountpoint}: ")
    done = user("run", *target, "--", "cat", f"{{}}/{FILE}", prefix=without)
    assert (done.returncode, done.stdout) == (0, user.dataset.files[FILE].decode())
