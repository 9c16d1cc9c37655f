"""The place of a benchmark: one temporary directory, the compiled reader, and commands run in it.

Everything that the cases start or mount is registered on one exit stack, so that any exit, also
by a signal, unmounts, ends and removes it.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEADLINE: Final = 1800.0
"""Seconds that any one command may take."""
SPIN_SECONDS: Final = 60.0
MEMORY_FILE_SYSTEMS: Final = ("tmpfs", "ramfs")
BLOCK: Final = 1 << 17
"""Bytes that the reader asks for at once, as `cp` and most libraries do."""


class BenchError(Exception):
    """The benchmark cannot go on: one line."""


@dataclass(frozen=True, slots=True)
class Reading:
    seconds: float
    bytes: int
    files: int


@dataclass(slots=True)
class Spinner:
    """What the program that opens a file again and again saw, once it has ended."""

    longest: float = 0.0
    """Seconds: the longest that one time took."""
    times: int = 0


def file_system(path: Path) -> tuple[str, str]:
    """The type and source of the file system that holds `path`, as mountinfo tells."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            kind, source = after.split()[:2]
            return kind, source
    return "unknown", "unknown"


class Workshop:
    """A temporary directory below `parent`, with what all cases need. A context manager."""

    def __init__(self, parent: Path) -> None:
        self._exits = ExitStack()
        self.root = Path(tempfile.mkdtemp(prefix="fusefs-bench-", dir=parent))
        self._exits.callback(self._remove)
        self._reader = Path()
        self._names = 0

    def __enter__(self) -> Workshop:
        try:
            self._reader = self.compile("reader.c")
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._exits.close()

    def _remove(self) -> None:
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        if f" {self.root}/" in mounts:
            return  # what could not be unmounted has been told; nothing below it is ours to remove
        # A manifest's objects are read-only files in directories that are not, so this removes all.
        shutil.rmtree(self.root)

    def at_exit(self, callback: Callable[[], object]) -> ExitStack:
        """Register `callback`; closing the returned stack runs it earlier (and only once)."""
        stack = ExitStack()
        stack.callback(callback)
        self._exits.callback(stack.close)
        return stack

    def compile(self, source: str) -> Path:
        """The program of a C file of ours."""
        program = self.root / source.removesuffix(".c")
        if not program.exists():
            self.run("cc", "-O2", "-o", program, Path(__file__).with_name(source))
        return program

    def directory(self, name: str) -> Path:
        """A new directory with `name` in its name."""
        self._names += 1
        path = self.root / f"{name}-{self._names}"
        path.mkdir()
        return path

    @property
    def environment(self) -> dict[str, str]:
        """What commands get: our own homes, so that nobody's state is used or changed."""
        homes = {
            f"XDG_{kind}_HOME": str(self.root / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA", "STATE")
        }
        git = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        git |= {f"GIT_{who}_{what}": "bench" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        own = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.dvc_state),
        }
        # Nobody's storage either, nor the way to it: servers are on this machine.
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "DVC_")) and not name.lower().endswith("_proxy")
        }
        return {**kept, **homes, **git, **own}

    @property
    def dvc_state(self) -> Path:
        """What DVC remembers outside of repositories."""
        return self.root / "dvc-state"

    @property
    def compiled_trees(self) -> Path:
        """What fusefs remembers of the names in a version: without it, a mount is a first one."""
        return self.root / "cache" / "fusefs" / "trees"

    def run(
        self, *command: str | Path, cwd: Path | None = None, stdin: str | None = None, **environment: str
    ) -> str:
        """Run a command to its end and return its standard output. Raises `BenchError` if it fails."""
        try:
            done = subprocess.run(
                command,
                cwd=cwd or self.root,
                env={**self.environment, **environment},
                input=stdin or "",
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                check=False,
            )
        except FileNotFoundError:
            raise BenchError(f"{command[0]} is not installed; scripts/setup installs it") from None
        except subprocess.TimeoutExpired:
            raise BenchError(f"{command[0]} took more than {DEADLINE:.0f} s") from None
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
            raise BenchError(f"{' '.join(map(str, command[:3]))} failed ({done.returncode}): {said}")
        return done.stdout

    def clock(self, *command: str | Path, cwd: Path | None = None, **environment: str) -> float:
        """Seconds that a command takes from its start to its end."""
        start = time.monotonic()
        self.run(*command, cwd=cwd, **environment)
        return time.monotonic() - start

    def write_list(self, paths: Sequence[Path], seed: int | None) -> Path:
        """A file with these paths, in the order in which the reader takes them: shuffled with a seed."""
        shuffled = [os.fsencode(path) for path in paths]
        if seed is not None:
            random.Random(seed).shuffle(shuffled)
        descriptor, name = tempfile.mkstemp(prefix="list-", dir=self.root)
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"".join(path + b"\0" for path in shuffled))
        return Path(name)

    def read(
        self, listing: Path, mode: str = "whole", readers: int = 1, block: int = BLOCK, count: int = 0
    ) -> Reading:
        """Read the listed files with the C program; `count` blocks of the first one if `random`."""
        said = self.run(self._reader, mode, str(readers), str(block), listing, str(count))
        nanoseconds, size, files = map(int, said.split())
        return Reading(nanoseconds / 1e9, size, files)

    @contextmanager
    def spinning(self, listing: Path) -> Iterator[Spinner]:
        """The C program opens the listed file again and again meanwhile; then the spinner knows its waits.

        Raises `BenchError` if it once could not be read.
        """
        command = [str(self._reader), "spin", "1", str(BLOCK), str(listing)]
        spinner = Spinner()
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None  # it was made with a pipe
            process.stdout.readline()
            try:
                yield spinner
                said, complaint = process.communicate(timeout=SPIN_SECONDS)
            finally:
                process.kill()
        if process.returncode:
            raise BenchError(f"the file could not be read all the time: {complaint.strip()}")
        longest, _, times = map(int, said.split())
        spinner.longest, spinner.times = longest / 1e9, times


def can_drop_caches() -> bool:
    return os.access("/proc/sys/vm/drop_caches", os.W_OK)


def drop_caches() -> None:
    """Make the kernel forget clean pages, names and inodes of the whole machine. Root only."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def memory_of(pid: int) -> dict[str, int]:
    """`VmRSS`, `RssAnon` and so on of a process, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return {
        name: int(value) * 1024
        for name, value in re.findall(r"^(VmRSS|VmHWM|RssAnon):\s+(\d+) kB", status, re.M)
    }
