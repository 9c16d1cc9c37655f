"""Fixtures of the process tests: an ordinary user, and what a daemon leaves in `/proc`."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.conftest import (
    SECONDS,
    Fusefs,
    SmallDataset,
    kill_for_good,
    private_fusefs,
    small_dataset,
    unmount_all,
)

NOBODY = 65534
LEAVE_OTHERS = "umount --all --lazy --types fuse.fusefs || true"
"""For a new mount namespace: lets go of the mounts of tests that run at the same time."""
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def status_of(pid: int, field: str) -> str:
    """A field of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(field))


DAEMON = "fusefs-daemon"
"""What it calls itself; its supervisor has the same command line."""


def name_of(process: Path) -> str:
    """The name of a process, empty where it has ended."""
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return ""


def list_daemons(place: Path) -> list[int]:
    """The daemons that serve mounts at or below `place`."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            served = b"fusefs.supervisor" in words and words[-2].startswith(os.fsencode(place))
            if served and name_of(process) == DAEMON:
                found.append(int(process.name))
    return found


def await_end(pid: int) -> bool:
    """Wait until a process has ended; whether it did before the deadline."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], SECONDS)[0])
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class User:
    """An ordinary user who has the dataset, a home and a directory to mount on."""

    fusefs: Fusefs
    dataset: SmallDataset
    mountpoint: Path

    def run(
        self,
        command: Sequence[str],
        *,
        uid: int = NOBODY,
        groups: Sequence[int] = (),
        prefix: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run as the user. `prefix` is a command that is run as root and executes the rest."""
        become = ["setpriv", f"--reuid={uid}", f"--regid={uid}"]
        become += [f"--groups={','.join(map(str, groups))}"] if groups else ["--clear-groups"]
        return subprocess.run(
            [*prefix, *become, *command],
            cwd=self.mountpoint.parent,
            env=self.fusefs.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def __call__(
        self, *arguments: str | Path, prefix: Sequence[str] = (), groups: Sequence[int] = ()
    ) -> subprocess.CompletedProcess[str]:
        return self.run(self.fusefs.command(*arguments), prefix=prefix, groups=groups)


@pytest.fixture
def fusefs(tmp_path: Path, mode: str) -> Fusefs:
    """The command, as root, which mounts in `mode`."""
    return private_fusefs(tmp_path, mode)


@pytest.fixture
def user() -> Iterator[User]:
    """The user `nobody`, in a directory of their own: pytest's are closed to everybody but root."""
    Path("/dev/fuse").chmod(0o666)  # as distributions ship it; some containers have 0600
    with tempfile.TemporaryDirectory(prefix="fusefs-test-") as name:
        directory = Path(name).resolve()
        fusefs = private_fusefs(directory)
        dataset = small_dataset(directory / "cache")
        mountpoint, temporary = directory / "mnt", directory / "tmp"
        mountpoint.mkdir()
        temporary.mkdir()
        for path in [directory, *directory.rglob("*")]:
            os.lchown(path, NOBODY, NOBODY)
        environment = {**fusefs.environment, "TMPDIR": str(temporary), "PATH": PATH}
        yield User(replace(fusefs, environment=environment), dataset, mountpoint)
        unmount_all(mountpoint)
        for pid in list_daemons(directory):  # in a mount namespace that lives as long as it does
            kill_for_good(pid)
            assert await_end(pid)
