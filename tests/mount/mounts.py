"""The `fusefs` command, run for tests of real mounts, and a watch that no daemon outlives its test.

The daemon is always another process. A test that waits for a daemon that hangs cannot be
interrupted by Python, so `Watch` kills the daemons after a deadline: whoever waits gets ENOTCONN.

Thread rule: everything belongs to the test's thread, but for the watch's timer.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store.erofs.shelf import SUFFIX
from tests.mount.datasets import Cache
from tests.mount.forked import FORKS
from tests.patience import until

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = (sys.executable, "-m", "fusefs.cli")
COMMAND_SECONDS = 60.0
END_SECONDS = 60.0
BUSY_SECONDS = 30.0
STATUS_BYTES = 1 << 16
WAITING = "fusefs: waiting for a manifest from "


class Watch:
    """Kills the daemons that it knows when a test takes longer than its deadline."""

    def __init__(self) -> None:
        self._daemons: dict[int, int] = {}
        self._lock = threading.Lock()

    def add(self, pid: int) -> int:
        """Watch over a supervisor and its daemon; returns a descriptor that is readable when it has ended."""
        descriptor = os.pidfd_open(pid)
        with self._lock:
            self._daemons[descriptor] = pid
        return descriptor

    def remove(self, descriptor: int) -> None:
        with self._lock:
            del self._daemons[descriptor]
            os.close(descriptor)

    def kill(self, descriptor: int) -> None:
        """Kill a supervisor and all that are its own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._daemons[descriptor], signal.SIGKILL)

    def bark(self) -> None:
        with self._lock:
            for descriptor, pid in self._daemons.items():
                sys.__stderr__.write(f"a mount's test takes too long: killing its daemon {pid}\n")
                self.kill(descriptor)


WATCH = Watch()


def read_status(control: Path) -> dict[str, Any]:
    """What the mount says of itself in its control directory."""
    content = b""
    with open(control / "status", "rb", buffering=0) as file:
        while part := file.read(STATUS_BYTES):
            content += part
            assert len(content) < STATUS_BYTES, "the status has no end"
    found: dict[str, Any] = json.loads(content)
    return found


@dataclass
class Mount:
    """A mount that somebody is to unmount."""

    path: Path
    log: Path
    pid: int
    ended: int
    """A descriptor that is readable when the daemon has ended, and its supervisor."""
    is_mounted: bool = True

    def status(self) -> dict[str, Any]:
        """`.fusefs/status`."""
        return read_status(self.path / ".fusefs")

    def await_kept(self) -> None:
        """Wait until all that was fetched is in the cache: until then it is served from memory."""
        metrics = self.path / ".fusefs" / "metrics"
        until(lambda: "\nfusefs_publications 0.0\n" in metrics.read_text(), "what was read is kept")

    def count(self, *names: str) -> int:
        """The sum of these metrics, of all labels."""
        lines = (self.path / ".fusefs" / "metrics").read_text().splitlines()
        found = (line.rpartition(" ") for line in lines if line.partition("{")[0] in names)
        return int(sum(float(value) for _, _, value in found))

    def umount(self) -> str:
        """Unmount, wait for the daemon's end, and return what it has logged."""
        self.is_mounted = False
        try:
            unmount(self.path)
        finally:
            self.await_end()
        return self.log.read_text()

    def await_end(self) -> None:
        """Wait for the daemon's end; it is the last thing to be done with a mount."""
        self.is_mounted = False
        if is_held_elsewhere(self.path):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.ended, signal.SIGTERM)
        ended = select.select([self.ended], [], [], END_SECONDS)[0]
        if not ended:
            WATCH.kill(self.ended)
        WATCH.remove(self.ended)
        assert ended, f"the daemon of {self.path} goes on after the mount was unmounted"


def has_image(mount: Mount) -> bool:
    """Does the kernel have the names from an image? There are several layers of names then."""
    (line,) = [
        one for one in Path("/proc/self/mountinfo").read_text().splitlines() if f" {mount.path} " in one
    ]
    return line.count("lowerdir+=") > 1


def is_held_elsewhere(path: Path) -> bool:
    """Does a mount namespace that was made meanwhile hold the mount? Then its daemon rightly goes on."""
    ours = os.readlink("/proc/self/ns/mnt")
    for process in Path("/proc").iterdir():
        try:
            if not process.name.isdigit() or os.readlink(process / "ns" / "mnt") == ours:
                continue
            if str(path) in (process / "mountinfo").read_text(errors="surrogateescape"):
                return True
        except OSError:
            continue  # it has ended, or is not ours to ask
    return False


def unmount(path: Path) -> None:
    """Unmount with the system's own tools; one that stays busy is detached and is an error all the same.

    Anybody on the machine may look into a mount for a moment, `df` and `fusefs list` among them.
    """
    command = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        done = subprocess.run([*command, path], capture_output=True, timeout=END_SECONDS, check=False)
        if done.returncode == 0:
            return
        if b"busy" not in done.stderr or time.monotonic() > deadline:
            break
    lazily = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
    subprocess.run([*lazily, path], capture_output=True, timeout=END_SECONDS, check=False)
    raise AssertionError(f"{path} could not be unmounted: {os.fsdecode(done.stderr)}")


@dataclass
class Mounter:
    """Runs `fusefs` with directories of its own, in one mode, and unmounts what is left at the end."""

    home: Path
    mode: str
    mounts: list[Mount] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """This process's, without what would let a test reach the user's own files and settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_"))}
        names = ("CACHE", "CONFIG", "DATA", "STATE")
        private = {f"XDG_{name}_HOME": str(self.home / name.lower()) for name in names}
        ours = {"HOME": str(self.home), "GIT_CONFIG_SYSTEM": os.devnull, "PYTHONPATH": str(ROOT)}
        return {**kept, **private, **ours}

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run `fusefs` with these arguments and return how that ended, whatever it was.

        Without what it says of waiting: on a busy machine any remote takes long to bring a manifest.
        """
        done = FORKS.run(arguments, cwd or self.home, self.environment, COMMAND_SECONDS)
        if done is None:
            done = subprocess.run(
                [*COMMAND, *arguments],
                cwd=cwd or self.home,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="surrogateescape",
                timeout=COMMAND_SECONDS,
                check=False,
            )
        lines = done.stderr.splitlines(True)
        done.stderr = "".join(line for line in lines if not line.startswith(WAITING))
        return done

    def new_mountpoint(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="mount-", dir=self.home))

    def mount(
        self, target: str | Path, *flags: str | Path, cwd: Path | None = None, control: str = ".fusefs"
    ) -> Mount:
        """Mount `target` on a directory of its own; `control` is where the data lets the status be."""
        place = self.new_mountpoint()
        log = self.home / f"{place.name}.log"
        done = self.run("mount", "--mode", self.mode, "--log", log, *flags, "--", target, place, cwd=cwd)
        assert done.returncode == 0, done.stderr
        status = read_status(place / control)
        mount = Mount(place, log, status["pid"], WATCH.add(status["supervisor"]))
        self.mounts.append(mount)
        return mount

    def mount_files(self, files: Mapping[str, bytes], *flags: str | Path, control: str = ".fusefs") -> Mount:
        """Put the files into a cache of their own and mount them."""
        cache = Cache(Path(tempfile.mkdtemp(prefix="cache-", dir=self.home)))
        return self.mount(cache.put_dataset(files), "--cache", cache.root, *flags, control=control)

    def refuse(self, target: str | Path, *flags: str | Path, cwd: Path | None = None) -> str:
        """The one line with which a mount is refused."""
        place = self.new_mountpoint()
        done = self.run("mount", "--mode", self.mode, *flags, "--", target, place, cwd=cwd)
        if done.returncode == 0:
            unmount(place)
        assert done.returncode == 1, done
        assert done.stdout == ""
        said = done.stderr.splitlines(True)
        assert len(said) == 1 and said[0].endswith("\n"), done.stderr
        assert "Traceback" not in said[0]
        assert not os.path.ismount(place)
        assert not any(place.iterdir())
        return said[0]

    def close(self) -> None:
        """Unmount what is still mounted; every image that was made must be one to others as well."""
        faults = []
        for mount in self.mounts:
            if mount.is_mounted:
                try:
                    mount.umount()
                except AssertionError as error:
                    faults.append(str(error))
        for image in (self.home / "cache" / "fusefs" / "trees").glob(f"*{SUFFIX}"):
            done = subprocess.run(["fsck.erofs", image], capture_output=True, text=True, check=False)
            if done.returncode:
                faults.append(f"{image}: {done.stdout}{done.stderr}")
        assert not faults, faults
