"""`fusefs runs`, and targets `run:KEY`: what the real DVC logged, although no commit names it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Command, run_tool
from tests.repositories import initialize


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of one stage: `out/` and `one` from `in`."""
    root = initialize(tmp_path_factory.mktemp("runs") / "project")
    (root / "in").write_text("first\n")
    command = "mkdir -p out/s && cp in out/s/x && cp in one"
    run_tool(
        root, "dvc", "stage", "add", "--quiet", "-n", "copy", "-d", "in", "-o", "out", "-o", "one", command
    )
    for text in ("first\n", "second\n"):
        (root / "in").write_text(text)
        run_tool(root, "dvc", "repro", "--quiet")
    return root


@pytest.fixture
def root(_made: Path, tmp_path: Path, command: Command) -> Path:
    shutil.copytree(_made, tmp_path / "project", symlinks=True)
    return tmp_path / "project"


def test_what_was_run(command: Command, root: Path) -> None:
    told = command("runs", "--json", cwd=root).json
    assert len(told) == 2
    for run in told:
        assert run["command"] == "mkdir -p out/s && cp in out/s/x && cp in one"
        assert [dep["path"] for dep in run["deps"]] == ["in"]
        assert [(out["path"], out["state"]) for out in run["outs"]] == [("one", "here"), ("out", "here")]
        assert run["here"]
    assert {run["deps"][0]["bytes"] for run in told} == {6, 7}


def test_for_people(command: Command, root: Path) -> None:
    done = command("runs", root / "in")
    assert (done.status, done.stderr) == (0, "")
    [key, _, _, *words] = done.lines[0].split()
    assert len(key) == 12
    assert " ".join(words).startswith("mkdir -p")
    assert done.lines[1].split()[:2] == ["dep", "in"]
    assert [line.split()[1] for line in done.lines[2:4]] == ["one", "out"]
    assert done.lines[2].endswith("bytes  here")


def test_what_is_not_here(command: Command, root: Path) -> None:
    objects = root / ".dvc/cache/files/md5"
    [run, other] = command("runs", "--json", cwd=root).json
    one = run["outs"][0]["oid"]
    (objects / one[:2] / one[2:]).unlink()
    manifest = other["outs"][1]["oid"]
    (objects / manifest[:2] / manifest[2:]).unlink()
    states = [[out["state"] for out in run["outs"]] for run in command("runs", "--json", cwd=root).json]
    assert states == [["missing", "partial"], ["here", "missing"]]


def test_a_run_is_a_target(command: Command, root: Path) -> None:
    [run, _] = command("runs", "--json", cwd=root).json
    key = run["key"][:8]
    assert command("ls", f"run:{key}", cwd=root).lines == ["one", "out/"]
    assert command("ls", f"run:{key}:out", cwd=root).lines == ["s/"]
    assert command("ls", f"run:{key}:out/s", cwd=root).lines == ["x"]
    assert command("ls", "-l", f"run:{run['key']}:one", cwd=root).lines[0].split()[-3:] == [
        run["outs"][0]["oid"],
        "cached",
        "one",
    ]
    assert command("ls", "--cache", root / ".dvc/cache", f"run:{key}").lines == ["one", "out/"]
    assert command("ls", "--repo", root, f"run:{key}").lines == ["one", "out/"]


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("run:KEY:nix", "it has 'one', 'out'"),
        ("run:KEY:out/nix", "nothing is called 'nix'"),
        ("run:0", "4 to 64 hex digits"),
        ("run:", "4 to 64 hex digits"),
        ("run:nothex", "4 to 64 hex digits"),
    ],
)
def test_bad_targets_are_one_line(command: Command, root: Path, target: str, told: str) -> None:
    [run, _] = command("runs", "--json", cwd=root).json
    done = command("ls", target.replace("KEY", run["key"][:8]), cwd=root)
    assert (done.status, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert told in done.stderr


def test_a_run_is_in_no_revision(command: Command, root: Path) -> None:
    done = command("ls", "--rev", "HEAD", "run:abcd", cwd=root)
    assert (done.status, done.stderr.count("\n")) == (1, 1)
    assert "no revision" in done.stderr


def test_a_broken_log_is_a_warning(command: Command, root: Path) -> None:
    [run, other] = command("runs", "--json", cwd=root).json
    path = root / ".dvc/cache/runs" / run["key"][:2] / run["key"] / run["value"]
    path.write_text("cmd: [")
    done = command("runs", "--json", cwd=root)
    assert (done.status, done.stderr.count("\n")) == (0, 1)
    assert [run["key"] for run in done.json] == [other["key"]]


def test_no_runs(command: Command, tmp_path: Path) -> None:
    done = command("runs", tmp_path)
    assert (done.status, done.stdout) == (0, "")
    assert "no run is logged" in done.stderr
    assert command("runs", "--json", tmp_path).json == []
