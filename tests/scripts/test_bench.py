"""The benchmark: its arithmetic, and a quick pass of a real case."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
SECONDS = 300.0

pytestmark = pytest.mark.timeout(2 * SECONDS)


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
        timeout=SECONDS,
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


def test_every_system_comes_first_in_turn() -> None:
    from benchmarks.measure import rotate

    assert [rotate("abc", number) for number in range(4)] == [
        list("abc"),
        list("bca"),
        list("cab"),
        list("abc"),
    ]


def test_other_load_is_a_caveat() -> None:
    from benchmarks.calibration import Load

    assert "caveat" not in Load(0.2, 0.01).lines()[0]
    assert Load(0.2, 0.5).lines() == [
        "caveat: load: 50% of the CPUs busy before the first case, load average 0.2: "
        "something else runs; compare ratios only, if anything"
    ]


def test_unknown_case_is_wrong_usage() -> None:
    done = run_bench("no-such-case")
    assert done.returncode == 2
    assert "no such case: no-such-case" in done.stderr


def test_unusable_directory_is_one_line(tmp_path: Path) -> None:
    done = run_bench("--quick", "--directory", tmp_path / "absent")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


@pytest.mark.fuse
def test_quick_revisions_open_switch_and_leave_nothing(tmp_path: Path) -> None:
    done = run_bench("--quick", "--json", tmp_path / "report.json", "--directory", tmp_path, "switch")
    assert done.returncode == 0 and not done.stderr, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["machine"]["calibration"]["md5_mb_a_second"] > 0
    (case,) = report["cases"]
    samples = {m["name"]: m["systems"]["fusefs"]["samples"] for m in case["measures"]}
    assert len(samples) == 5
    assert all(values[0] > 0 for values in samples.values())
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_spinner_sees_a_file_that_goes_away(tmp_path: Path) -> None:
    from benchmarks.workshop import BenchError, Workshop

    file = tmp_path / "file"
    file.write_bytes(b"x")
    with Workshop(tmp_path) as workshop:
        listing = workshop.write_list([file], 0)
        with workshop.spinning(listing) as spinner:
            pass
        assert spinner.times >= 1
        with pytest.raises(BenchError, match=r"could not be read .*No such file"), workshop.spinning(listing):
            file.unlink()


@pytest.mark.fuse
def test_quick_case_measures_and_leaves_nothing(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = run_bench("--quick", "--json", tmp_path / "report.json", "--directory", scratch, "many-entries")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "first mount" in done.stdout
    (case,) = json.loads((tmp_path / "report.json").read_text())["cases"]
    measures = {measure["name"]: measure["systems"]["fusefs"] for measure in case["measures"]}
    assert measures["first mount"]["median"] > 0
    assert {target["measure"] for target in case["targets"]} <= set(measures)
    assert list(scratch.iterdir()) == []
    assert str(scratch) not in Path("/proc/mounts").read_text(errors="surrogateescape")


@pytest.mark.fuse
def test_quick_lazy_cases_measure_and_leave_nothing(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    cases = ("lazy-small", "lazy-large", "lazy-many", "lazy-epochs")
    done = run_bench("--quick", "--json", tmp_path / "report.json", "--directory", scratch, *cases)
    assert done.returncode == 0 and not done.stderr, done.stderr
    small, large, many, _ = json.loads((tmp_path / "report.json").read_text())["cases"]
    for case in (small, large, many):
        for measure in case["measures"]:
            assert measure["systems"]["fusefs"]["median"] > 0
    near = next(measure["systems"] for measure in small["measures"] if measure["name"] == "cold")
    assert {"the server alone", "fusefs", "obstore", "dvc pull"} <= set(near)
    reached = {target["measure"]: target for target in many["targets"]}
    downloads = [target for measure, target in reached.items() if "downloads" in measure]
    # On a busy machine any answer may take so long that it is asked for beside.
    assert len(downloads) == 2 and all(1 <= target["reached"] <= 2 for target in downloads)
    assert list(scratch.iterdir()) == []
    assert str(scratch) not in Path("/proc/mounts").read_text(errors="surrogateescape")


@pytest.mark.fuse
def test_quick_pushes_are_counted_and_leave_nothing(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = run_bench("--quick", "--json", tmp_path / "report.json", "--directory", scratch, "push")
    assert done.returncode == 0 and not done.stderr, done.stderr
    (case,) = json.loads((tmp_path / "report.json").read_text())["cases"]
    reached = {target["measure"]: target for target in case["targets"]}
    assert reached["requests of a push, for 1 000 files"]["reached"] < 1
    assert reached["pushed again"]["reached"] < 0.5
    assert all(target["reached"] > 0 for target in reached.values())
    assert list(scratch.iterdir()) == []


def test_a_longer_way_and_a_busy_server_lose_no_byte(tmp_path: Path) -> None:
    from benchmarks.servers import BUCKET, further_away, moved, own_rate, put_object, serving
    from benchmarks.workshop import BenchError, Workshop

    with Workshop(tmp_path) as workshop:
        root = workshop.directory("server")
        contents = [b"%d" % number * 30_000 for number in range(40)]
        digests = [put_object(root, content) for content in contents]
        paths = [f"/{BUCKET}/files/md5/{digest[:2]}/{digest[2:]}" for digest in digests] * 10
        with serving(workshop, root, logged=True) as near, further_away(workshop, near, 1) as far:
            for server in (near, far):
                server.forget_requests()
                reading = own_rate(workshop, server, paths, connections=16)
                assert (reading.files, reading.bytes) == (400, 10 * sum(map(len, contents)))
                assert moved(server.requests(paths[7])) == 10 * len(contents[7])
            with pytest.raises(BenchError, match="404"):
                own_rate(workshop, far, ["/absent"], connections=1)
    assert list(tmp_path.iterdir()) == []
