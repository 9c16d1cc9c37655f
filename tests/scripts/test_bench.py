"""The benchmark: its arithmetic, and a quick pass of a real case."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def run_bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_ratios_are_of_medians() -> None:
    from benchmarks.measure import Results, Target

    results = Results("case", "disk", (Target("read", 2, than="disk"), Target("wait", 8, at_least=False)))
    for disk, ours in ((10, 21), (11, 25), (50, 20)):
        results.add("read", "files/s", "disk", disk)
        results.add("read", "files/s", "fusefs", ours)
    results.add("wait", "s", "fusefs", 9)
    read, wait = results.verdicts()
    assert (read.reached, read.met) == (21 / 11, False)
    assert (wait.reached, wait.met) == (9, False)
    report = "\n".join(results.lines())
    assert "1.91 x disk" in report
    assert "unsteady: spread 364%" in report
    assert results.as_json()["targets"][0]["met"] is False


def test_targets_of_absent_systems_are_not_judged() -> None:
    from benchmarks.measure import Results, Target

    results = Results("case", "disk", (Target("read", 2, than="rclone mount"), Target("cold", 1)))
    results.add("read", "files/s", "fusefs", 1.0)
    assert list(results.verdicts()) == []


def test_unknown_case_is_wrong_usage() -> None:
    done = run_bench("no-such-case")
    assert done.returncode == 2
    assert "no such case: no-such-case" in done.stderr


def test_unusable_directory_is_one_line(tmp_path: Path) -> None:
    done = run_bench("--quick", "--directory", tmp_path / "absent")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


@pytest.mark.fuse
def test_quick_case_measures_and_leaves_nothing(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = run_bench("--quick", "--json", tmp_path / "report.json", "--directory", scratch, "many-entries")
    assert (done.returncode, done.stderr) == (0, "")
    assert "first mount" in done.stdout
    (case,) = json.loads((tmp_path / "report.json").read_text())["cases"]
    measures = {measure["name"]: measure["systems"]["fusefs"] for measure in case["measures"]}
    assert measures["first mount"]["median"] > 0
    assert {target["measure"] for target in case["targets"]} <= set(measures)
    assert list(scratch.iterdir()) == []
    assert str(scratch) not in Path("/proc/mounts").read_text()
