"""Fixtures for tests that run the real command on real mounts."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from fusefs import kernel_mount, mountinfo
from fusefs.kernel_mount import MountFailed
from fusefs.namespaces import enter_private_namespace
from fusefs.native.layers import try_layers

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell starts what it puts in the background; what the tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more of what else the machine does than of us.
settings.register_profile("any machine", settings.default, deadline=None)
settings.load_profile("any machine")

SECONDS = 60.0
OTHER_MODE = os.environ.get("FUSEFS_TEST_MODE", "fuse")
"""In which the tests mount that do not name a mode: the suite has no time for all of them in both, so
`scripts/soak` runs them in native mode."""
ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Give each of several processes that run tests at a time mounts of its own, where that may be.

    Else `fusefs list` in one of them has the mounts of all open for a moment, in which nobody can unmount
    them; and every mount namespace that is made there keeps a copy of them, and so their daemons.
    """
    if "PYTEST_XDIST_WORKER" in os.environ and kernel_mount.has_capability(kernel_mount.CAP_SYS_ADMIN):
        with contextlib.suppress(OSError, MountFailed):  # a container may forbid it; then all share theirs
            enter_private_namespace()
            for mount in mountinfo.visible_mounts(mountinfo.read_mounts()):
                kernel_mount.unmount(mount, lazy=True)


@dataclass(frozen=True, slots=True)
class Fusefs:
    """The command `fusefs`, with directories of its own for state, caches and data."""

    environment: Mapping[str, str]
    directory: Path
    mode: str = ""
    """How to mount where the words do not say it; empty: as the command does by itself."""

    def __call__(
        self, *arguments: str | Path, cwd: Path | None = None, check: bool = False, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run to its end; `check` fails the test, with what it printed, for a status other than 0."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=cwd or self.directory,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"fusefs {arguments} gave {done.returncode}: {done.stderr}"
        return done

    def start(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
        """Start and go on; the caller waits for it."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=cwd or self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def command(self, *arguments: str | Path) -> Sequence[str]:
        words = [str(argument) for argument in arguments]
        if self.mode and words and words[0] in ("mount", "run"):
            words[1:1] = [f"--mode={self.mode}"]  # one that the words give comes later, and holds
        return [sys.executable, "-m", "fusefs.cli", *words]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that mount do so in the modes that their marker `modes` names, or else in `OTHER_MODE`."""
    own = " ".join(str(marker.args[:1]) for marker in metafunc.definition.iter_markers("parametrize"))
    if "mode" in metafunc.fixturenames and "mode" not in re.findall(r"\w+", own):
        marker = metafunc.definition.get_closest_marker("modes")
        metafunc.parametrize("mode", marker.args if marker else [OTHER_MODE], indirect=True, scope="session")


@pytest.fixture(scope="session")
def mode(request: pytest.FixtureRequest) -> str:
    """How to mount. A test is skipped in a mode that this machine does not have."""
    wanted = str(request.param)
    if wanted == "native":
        try:
            try_layers([])
        except MountFailed as error:
            pytest.skip(f"no native mode here: {error}")
    return wanted


def private_fusefs(directory: Path, mode: str = "") -> Fusefs:
    """The command with home and XDG directories below `directory`; `mode` as in `Fusefs`."""
    home = directory / "home"
    home.mkdir()
    xdg = {f"XDG_{name}_HOME": str(home / name.lower()) for name in ("STATE", "CACHE", "DATA", "CONFIG")}
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ}
    return Fusefs({**kept, **xdg, "HOME": str(home), "PYTHONPATH": str(ROOT)}, directory, mode)


@pytest.fixture
def fusefs(tmp_path: Path) -> Fusefs:
    """The command, run so that no test touches the user's own files."""
    return private_fusefs(tmp_path)


def kill_for_good(pid: int) -> None:
    """Kill a daemon, and before it its supervisor, so that none takes its place; wait until both have ended:
    each of them holds the connection to the kernel."""
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    ended = [os.pidfd_open(pid)]
    if b"fusefs.supervisor" in Path(f"/proc/{parent}/cmdline").read_bytes():
        ended.insert(0, os.pidfd_open(parent))
    for process in ended:
        signal.pidfd_send_signal(process, signal.SIGKILL)
    for process in ended:
        assert select.select([process], [], [], SECONDS)[0]
        os.close(process)


def unmount_all(path: Path) -> None:
    """Take away whatever is mounted on `path`."""
    for _ in range(10):  # mounts may be stacked
        mount = mountinfo.mount_at(str(path), mountinfo.read_mounts())
        if mount is None:
            break
        kernel_mount.unmount(mount, lazy=True)


@pytest.fixture
def new_mountpoint(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes directories to mount on; whatever is mounted on them at the end is taken away."""
    made: list[Path] = []

    def make(name: str) -> Path:
        path = tmp_path / name
        path.mkdir(parents=True)
        made.append(path)
        return path

    yield make
    for path in made:
        unmount_all(path)


@pytest.fixture
def mountpoint(new_mountpoint: Callable[[str], Path]) -> Path:
    """An empty directory to mount on."""
    return new_mountpoint("mnt")


@dataclass(frozen=True, slots=True)
class SmallDataset:
    """A version in a cache, without any repository."""

    cache: Path
    oid: str
    files: Mapping[str, bytes]


SMALL_FILES = {f"{'ab'[i % 2]}/{i}.txt": f"line {i}\n".encode() * 5000 for i in range(5)}
"""Five files in two directories."""


def small_dataset(cache: Path, files: Mapping[str, bytes] = SMALL_FILES) -> SmallDataset:
    """A version of `files` by path, all of them in the cache."""

    def put(data: bytes, suffix: str = "") -> str:
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        path = cache / "files" / "md5" / digest[:2] / (digest[2:] + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o444)
        return digest + suffix

    entries = [{"md5": put(data), "relpath": path} for path, data in sorted(files.items())]
    return SmallDataset(cache, put(json.dumps(entries).encode(), ".dir"), files)


@pytest.fixture
def dataset(tmp_path: Path) -> SmallDataset:
    """A small version whose objects are all in the cache."""
    return small_dataset(tmp_path / "cache")
