"""`fusefs doctor` for root and for an ordinary user: honest rows, the right exit status, no traces."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fusefs import capabilities
from fusefs.capabilities import Check, State, can_mount, check_machine
from fusefs.cli import doctor

REPOSITORY = Path(__file__).parents[2]
NOBODY = 65534
DOCTOR = """
import argparse, sys
from fusefs.cli import doctor
parser = argparse.ArgumentParser()
doctor.add_parser(parser.add_subparsers())
options = parser.parse_args(["doctor", *sys.argv[1:]])
sys.exit(options.run(options))
"""


def run_doctor(*arguments: str, uid: int, home: Path) -> subprocess.CompletedProcess[str]:
    ids = {} if uid == os.geteuid() else {"user": uid, "group": uid, "extra_groups": []}
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home), "TMPDIR": str(home)}
    return subprocess.run(
        [sys.executable, "-c", DOCTOR, *arguments],
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        **ids,
    )


@pytest.fixture(params=["current user", "ordinary user"])
def uid(request: pytest.FixtureRequest) -> int:
    return NOBODY if request.param == "ordinary user" and os.geteuid() == 0 else os.geteuid()


@pytest.fixture
def home(tmp_path: Path, uid: int) -> Path:
    """A directory that `uid` can reach and write."""
    directory = tmp_path / "home"
    directory.mkdir()
    os.chown(directory, uid, uid)
    # pytest makes its own directories private to the user that runs it.
    for path in [tmp_path, *tmp_path.parents]:
        if path.stat().st_uid == os.geteuid():
            path.chmod(path.stat().st_mode | 0o011)
    return directory


def test_rows_and_exit_status(uid: int, home: Path) -> None:
    done = run_doctor("--json", uid=uid, home=home)
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert set(report) == {"ok", "checks"}
    rows = {check["name"]: check for check in report["checks"]}
    assert len(rows) == len(report["checks"])
    asked_for = {"fuse device", "mount", "allow_other", "native layers", "user namespaces", "git", "decoders"}
    assert asked_for <= set(rows)
    for row in rows.values():
        assert set(row) == {"name", "state", "detail", "remedy"}
        assert row["state"] in {"ok", "limited", "no"}
        assert row["detail"]
        assert "\n" not in row["detail"] + row["remedy"]
    assert report["ok"] is (done.returncode == 0)
    assert report["ok"] is ("ok" in {rows["mount"]["state"], rows["private mount"]["state"]})
    if uid == 0:
        assert rows["allow_other"]["state"] == "ok"
    assert str(home) not in Path("/proc/mounts").read_text(errors="surrogateescape")
    assert list(home.iterdir()) == []


def test_table_is_plain_text_in_a_pipe(uid: int, home: Path) -> None:
    done = run_doctor(uid=uid, home=home)
    assert done.stderr == ""
    assert "\033" not in done.stdout
    states = {line[17:24].strip() for line in done.stdout.splitlines()[:-1] if line[0] != " "}
    assert states <= {"ok", "limited", "no"}
    assert done.stdout.splitlines()[-1].startswith("No dataset" if done.returncode else "A dataset")


def test_a_failing_check_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> capabilities.Finding:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(capabilities, "_CHECKS", {"mount": fail})
    (check,) = check_machine()
    assert check.state is State.NO
    assert "Input/output error" in check.detail
    assert not can_mount([check])


def test_a_probe_that_hangs_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hanging = tmp_path / "probe.py"
    hanging.write_text("import signal; signal.pause()")
    monkeypatch.setattr(capabilities, "_PROBES", hanging)
    monkeypatch.setattr(capabilities, "DEADLINE", 0.2)
    monkeypatch.setattr(capabilities, "_CHECKS", {"native layers": capabilities._check_native_layers})
    (check,) = check_machine()
    assert (check.state, check.detail) == (State.NO, "no answer in 0.2 s")


def test_no_mount_is_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    denied = Check("mount", State.NO, "/dev/fuse is not there", "modprobe fuse")
    monkeypatch.setattr(doctor, "check_machine", lambda: iter([denied]))
    assert doctor.run(argparse.Namespace(json=False)) == 1
    out = capsys.readouterr().out
    assert "remedy: modprobe fuse" in out
    assert "No dataset can be mounted here" in out


def test_a_private_mount_is_enough() -> None:
    denied = Check("mount", State.NO, "fusermount3 is not installed")
    assert can_mount([denied, Check("private mount", State.OK, "in a user namespace")])


def test_colour_marks_the_state() -> None:
    row = doctor.format_check(Check("git", State.OK, "2.39.5"), coloured=True)
    assert "\033[32mok     \033[0m" in row
