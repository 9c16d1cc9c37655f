"""Mounting what is compared: fusefs, `rclone mount` and others, each on a fresh mountpoint."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.workshop import BenchError, Workshop

READY_SECONDS: Final = 60.0


@contextmanager
def mounted_fusefs(
    workshop: Workshop, target: Path | str, *flags: str | Path, cwd: Path | None = None
) -> Iterator[Path]:
    """A fusefs mount in the background, as users have it."""
    mountpoint = workshop.directory("fusefs")
    log = workshop.root / f"{mountpoint.name}.log"
    exits = workshop.at_exit(lambda: unmount_fusefs(workshop, mountpoint))
    with exits:
        workshop.run("fusefs", "mount", "--log", log, *flags, str(target), mountpoint, cwd=cwd)
        yield mountpoint


def unmount_fusefs(workshop: Workshop, mountpoint: Path) -> None:
    if mountpoint.is_mount():
        workshop.run("fusefs", "umount", mountpoint)
    mountpoint.rmdir()


def daemon_pid(workshop: Workshop, mountpoint: Path) -> int:
    """The process that serves a fusefs mount."""
    for entry in json.loads(workshop.run("fusefs", "list", "--json")):
        if entry["mountpoint"] == str(mountpoint):
            return int(entry["pid"])
    raise BenchError(f"fusefs list does not know {mountpoint}")


@contextmanager
def mounted_rclone(workshop: Workshop, source: Path) -> Iterator[Path]:
    """`rclone mount` of a local directory with its defaults (no VFS cache), read-only."""
    command = ("rclone", "mount", "--read-only", "--config", "/dev/null", str(source))
    with mounted_by(workshop, *command) as mountpoint:
        yield mountpoint


@contextmanager
def mounted_by(workshop: Workshop, *command: str) -> Iterator[Path]:
    """A mount by a program that serves in the foreground; it gets the mountpoint as its last argument."""
    mountpoint = workshop.directory(Path(command[0]).name)
    try:
        daemon = subprocess.Popen(
            [*command, str(mountpoint)],
            env=workshop.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise BenchError(f"{command[0]} is not installed; scripts/setup installs it") from None

    def end() -> None:
        daemon.terminate()  # on which it unmounts
        try:
            daemon.wait(READY_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        if mountpoint.is_mount():
            workshop.run("umount", "-l", mountpoint)
        mountpoint.rmdir()

    with workshop.at_exit(end):
        _wait_for_mount(mountpoint, daemon)
        yield mountpoint


def _wait_for_mount(mountpoint: Path, daemon: subprocess.Popen[bytes]) -> None:
    """The kernel wakes pollers of mountinfo whenever a mount comes or goes."""
    deadline = time.monotonic() + READY_SECONDS
    with open("/proc/self/mountinfo", "rb") as mountinfo:
        poller = select.poll()
        poller.register(mountinfo, select.POLLPRI)
        while b" %s " % os.fsencode(mountpoint) not in mountinfo.read():
            left = deadline - time.monotonic()
            if left <= 0 or daemon.poll() is not None:
                raise BenchError(f"{daemon.args!r} did not mount")
            poller.poll(min(left, 1.0) * 1000)
            mountinfo.seek(0)


def first_access(root: Path, path: str) -> tuple[float, float]:
    """Two moments of the monotonic clock: `root` and the directory of `path` are listed; a byte is read."""
    file = root / path
    if not (list(root.iterdir()) and list(file.parent.iterdir())):
        raise BenchError(f"{root} is empty")
    listed = time.monotonic()
    with file.open("rb", buffering=0) as opened:
        opened.read(1)
    return listed, time.monotonic()


def read_ahead_of(mountpoint: Path) -> Path:
    """The kernel's setting for how far it reads ahead on a mount, in KiB."""
    device = mountpoint.stat().st_dev
    return Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
