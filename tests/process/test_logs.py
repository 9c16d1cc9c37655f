"""A daemon's log: escaped, counted, rotated, and harmless when it cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fusefs.logs import default_log, escape, name_log
from tests.conftest import ROOT, SECONDS

PREAMBLE = """
import logging, sys
from fusefs import logs
path = sys.argv[1]
def start(verbose=False):
    return logs.start_logging(path, verbose=verbose)
say = logging.getLogger("test")
"""


def log(path: Path | str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a program that logs; logging is a process's own affair, so it gets its own process."""
    return subprocess.run(
        [sys.executable, "-c", PREAMBLE + script, str(path)],
        env={"PYTHONPATH": str(ROOT), "TZ": "UTC"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )


def test_one_record_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log(path, r"l = start(); say.info('name %s', 'a\nb\x1b[31m\udcff'); say.debug('not this'); l.close()")
    (line,) = path.read_text().splitlines()
    assert line.endswith(r" INFO test: name a\nb\x1b[31m\udcff")
    assert path.stat().st_mode & 0o777 == 0o600


def test_repeats_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log(path, "l = start(); [say.warning('again') for _ in range(100)]; say.info('other'); l.close()")
    lines = [line.split(" ", 1)[1] for line in path.read_text().splitlines()]
    assert lines == [
        "WARNING test: again",
        "INFO fusefs.logs: the line above repeated 99 times",
        "INFO test: other",
    ]


def test_repeats_at_the_end_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log(path, "l = start(); [say.warning('again') for _ in range(3)]; l.close()")
    assert path.read_text().splitlines()[-1].endswith("repeated 2 times")


def test_files_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "log"
    script = """
logs.MAX_BYTES = 10_000
l = start()
for i in range(900):
    say.info("line %d %s", i, "x" * 100)
l.close()
"""
    log(path, script)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["log", "log.1", "log.2"]
    assert all(file.stat().st_size <= 10_000 and file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert "line 899 " in path.read_text()


@pytest.mark.parametrize("target", ["/dev/full", "/proc/nowhere/log"])
def test_a_log_that_cannot_be_written_costs_only_lines(target: str) -> None:
    done = log(target, "l = start(); say.error('lost'); say.error('too'); l.close(); print('alive')")
    assert (done.stdout, done.stderr) == ("alive\n", "")


def test_nobody_waits_for_a_log_that_is_stuck() -> None:
    """Standard error is a pipe that nobody reads: what does not fit is dropped, the caller goes on."""
    script = """
l = start(True)
for i in range(5000):
    say.debug("line %d %s", i, "x" * 1000)
print("alive", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + script, ""],
        env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "alive\n"
        process.kill()


def test_names_do_not_collide() -> None:
    assert name_log("/mnt/a-b") != name_log("/mnt/a/b") != name_log("/mnt-a/b")
    assert name_log("/") == "root"
    assert len(name_log("/" + "x" * 4000)) <= 240
    assert name_log("/" + "x" * 4000) != name_log("/y/" + "x" * 4000)


@pytest.mark.parametrize(
    ("uid", "state", "log"),
    [
        (0, "", "/var/log/fusefs/a.log"),
        (0, "/s", "/s/fusefs/a.log"),
        (1000, "/s", "/s/fusefs/a.log"),
        (1000, "", "/h/.local/state/fusefs/a.log"),
        (1000, "relative", "/h/.local/state/fusefs/a.log"),  # to be ignored, by the rules of XDG
    ],
)
def test_where_logs_are(uid: int, state: str, log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("XDG_STATE_HOME", state)
    monkeypatch.setenv("HOME", "/h")
    assert default_log("a") == log


def test_escape_keeps_what_is_printable() -> None:
    assert escape("grün ✓ \\ \t") == "grün ✓ \\ \\t"
