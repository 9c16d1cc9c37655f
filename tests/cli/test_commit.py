"""`fusefs commit` as people use it: what it prints, what it returns, what comes next."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pytest

from fusefs.cli.commit import format_size
from tests.patience import until


class Fusefs(Protocol):
    """The fixture `fusefs`, as far as these tests need it."""

    environment: dict[str, str]

    def __call__(self, *arguments: str | Path, cwd: Path | None = None, check: bool = False) -> Done: ...
    def start(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]: ...
    def command(self, *arguments: str | Path) -> list[str]: ...


Done = subprocess.CompletedProcess[str]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two files."""
    path = tmp_path / "photos"
    (path / "summer").mkdir(parents=True)
    (path / "cover.txt").write_text("cover\n")
    (path / "summer/beach.txt").write_text("beach\n")
    return path


def test_the_last_line_says_what_to_do_next(fusefs: Fusefs, photos: Path) -> None:
    done = fusefs("commit", "photos", check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "photos: 2 files, 12 bytes, 3 new in the cache"
    assert lines[-1] == "next: fusefs run photos.dvc -- ls {}"
    assert done.stderr == ""


@pytest.mark.fuse
def test_what_comes_next_works(fusefs: Fusefs, photos: Path, tmp_path: Path) -> None:
    last = fusefs("commit", "--cache", "a cache", "photos", check=True).stdout.splitlines()[-1]
    assert last == "next: fusefs run --cache 'a cache' photos.dvc -- ls {}"
    done = fusefs("run", "--cache", "a cache", "photos.dvc", "--", "ls", "{}", check=True)
    assert done.stdout.split() == ["cover.txt", "summer"]


def test_the_metafile_is_named_from_where_one_stands(fusefs: Fusefs, photos: Path) -> None:
    done = fusefs("commit", ".", cwd=photos, check=True)
    assert done.stdout.splitlines()[-1] == "next: fusefs run ../photos.dvc -- ls {}"


def test_json_is_one_object(fusefs: Fusefs, photos: Path, tmp_path: Path) -> None:
    done = fusefs("commit", "--json", "photos", check=True)
    version = json.loads(done.stdout)
    assert version.pop("seconds") >= 0
    assert version.pop("oid").endswith(".dir")
    assert version == {
        "metafile": str(tmp_path / "photos.dvc"),
        "files": 2,
        "bytes": 12,
        "hashed": 2,
        "stored": 3,
        "gitignored": False,
        "warnings": [],
    }


def test_quiet_says_nothing(fusefs: Fusefs, photos: Path) -> None:
    done = fusefs("commit", "-q", "photos", check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_warnings_are_said_in_any_case(fusefs: Fusefs, photos: Path) -> None:
    (photos / os.fsdecode(b"caf\xe9")).write_text("x")
    done = fusefs("commit", "-q", "photos", check=True)
    assert "not UTF-8" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_mistake_is_one_line_and_status_1(fusefs: Fusefs, photos: Path) -> None:
    os.mkfifo(photos / "pipe")
    done = fusefs("commit", "photos")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("fusefs: ")
    assert "is a FIFO" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [[], ["--jobs", "0", "x"], ["--jobs", "x", "x"], ["--link", "symlink", "x"]]
)
def test_wrong_usage_is_status_2(arguments: list[str], fusefs: Fusefs) -> None:
    assert fusefs("commit", *arguments).returncode == 2


def see_in_terminal(fusefs: Fusefs, command: Sequence[str], directory: Path) -> tuple[bytes, bytes]:
    """What a command that succeeds prints, and what a terminal that is its standard error sees."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env={**fusefs.environment, "TERM": "xterm", "COLUMNS": "120"},
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
    finally:
        os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError as error:  # how Linux says that nobody has the terminal open any more
        assert error.errno == errno.EIO
    finally:
        os.close(ours)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return stdout, shown


def test_a_terminal_sees_progress(fusefs: Fusefs, photos: Path, tmp_path: Path) -> None:
    stdout, shown = see_in_terminal(fusefs, fusefs.command("commit", "photos"), tmp_path)
    assert b"2 files" in stdout
    assert b"2/2 files" in shown


WATCHED = """
import time
from fusefs.cli.commit import TerminalProgress
bar = TerminalProgress()
bar.begin(100, 100 << 20)
for done in range(1, 6):
    bar.update(done, done << 20)
    time.sleep(0.02)  # or there is no rate
bar.end()
"""


def test_progress_has_a_rate_and_the_time_left(fusefs: Fusefs, tmp_path: Path) -> None:
    _, shown = see_in_terminal(fusefs, [sys.executable, "-c", WATCHED], tmp_path)
    plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown)
    assert re.search(rb"5/100 files .* [\d.]+ [kMGT]?B/s \d+:\d\d:\d\d", plain), plain


def has_open(process: subprocess.Popen[str], path: Path) -> bool:
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            if link.readlink() == path:
                return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it(number: signal.Signals, fusefs: Fusefs, photos: Path, tmp_path: Path) -> None:
    """The commit waits for the lock, which the test holds."""
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        process = fusefs.start("commit", "photos")
        until(lambda: process.poll() is not None or has_open(process, tmp_path), "it waits for the lock")
        assert process.poll() is None
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        os.close(directory)
    assert process.returncode == 128 + number
    assert (stdout, stderr) == ("", "")
    assert not (tmp_path / "photos.dvc").exists()
    fusefs("commit", "photos", check=True)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (999_999, "1 MB"), (2_000_000_000, "2 GB")],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text
