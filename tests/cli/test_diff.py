"""`fusefs diff`: what it prints of two versions, and what it returns."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fusefs.cli.diff import abbreviate_rename
from tests.cli.conftest import V1, Command, Project


def test_for_people(command: Command, history: Project) -> None:
    done = command("diff", "data", "v1", "v3", cwd=history.root)
    assert (done.status, done.stderr) == (0, "")
    assert done.lines == [
        "renamed     2 bytes  {a → aa}",
        "changed     8 bytes  b  (was 3 bytes)",
        "added       4 bytes  c",
        "removed     4 bytes  s/x",
    ]


def test_the_other_way_round(command: Command, history: Project) -> None:
    done = command("diff", "--no-renames", "data", "v3", "v1", cwd=history.root)
    assert [line.split()[0] for line in done.lines] == ["added", "removed", "changed", "removed", "added"]


def test_json(command: Command, history: Project) -> None:
    changes = command("diff", "--json", "data", "v1", "v2", cwd=history.root).json
    assert [(change["change"], change["path"]) for change in changes] == [("changed", "b"), ("added", "c")]
    changed, added = changes
    assert (changed["old"]["bytes"], changed["new"]["bytes"]) == (3, 8)
    assert changed["old"]["oid"] != changed["new"]["oid"]
    assert added["old"] is None
    assert added["new"] == {
        "path": "c",
        "oid": added["new"]["oid"],
        "hash": "md5",
        "bytes": 4,
        "executable": False,
        "symlink": False,
    }


def test_equal_versions(command: Command, history: Project) -> None:
    assert command("diff", "--exit-code", "data", "v1", "v1", cwd=history.root).status == 0
    done = command("diff", "data", "v2", "v2", cwd=history.root)
    assert (done.status, done.stdout, done.stderr) == (0, "", "")
    assert command("diff", "--json", "data", "v2", "v2", cwd=history.root).json == []
    assert command("diff", "--stat", "data", "v2", "v2", cwd=history.root).lines == [" no differences"]


def test_the_exit_code(command: Command, history: Project) -> None:
    assert command("diff", "data", "v1", "v2", cwd=history.root).status == 0
    assert command("diff", "--exit-code", "data", "v1", "v2", cwd=history.root).status == 1
    trouble = command("diff", "--exit-code", "data", "v1", "v9", cwd=history.root)
    assert (trouble.status, trouble.stderr.count("\n")) == (2, 1)


def test_against_the_working_tree(command: Command, history: Project) -> None:
    done = command("diff", "data", "v3", cwd=history.root)
    assert (done.status, done.stdout) == (0, "")
    assert len(command("diff", "data", "v1", cwd=history.root).lines) == 4


def test_a_summary_by_directory(command: Command, history: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert command("diff", "--stat", "data", "v1", "v3", cwd=history.root).lines == [
        " . | 3 +~>",
        " s | 1 -",
        " 1 added (4 bytes), 1 removed (4 bytes), 1 changed (8 bytes), 1 renamed (2 bytes)",
    ]
    told = command("diff", "--stat", "--json", "data", "v1", "v3", cwd=history.root).json
    assert told["renamed"] == {"files": 1, "bytes": 2}
    assert told["directories"][1] == {"path": "s", "added": 0, "removed": 1, "changed": 0, "renamed": 0}


def test_bars_fit_the_terminal(command: Command, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.commit_data(V1, "Small", "v1")
    many = {f"many/{number:03}": b"%d\n" % number for number in range(300)}
    project.commit_data({**V1, **many, "a": b"other\n"}, "Large", "v2")
    monkeypatch.setenv("COLUMNS", "60")
    lines = command("diff", "--stat", "data", "v1", "v2", cwd=project.root).lines
    assert lines[0] == " .    |   1 ~"
    assert lines[1].startswith(" many | 300 ++++++")
    assert max(map(len, lines[:2])) <= 60


def test_sizes_that_nothing_tells(command: Command, history: Project) -> None:
    [_, added] = command("diff", "--json", "data", "v1", "v2", cwd=history.root).json
    history.forget(added["new"]["oid"])
    assert command("diff", "data", "v1", "v2", cwd=history.root).lines[1] == "added             ?  c"
    told = command("diff", "--stat", "--json", "data", "v1", "v2", cwd=history.root).json
    assert told["added"] == {"files": 1, "bytes": None}


def test_the_whole_project_and_modes(command: Command, project: Project) -> None:
    (project.root / "run.sh").write_text("#!/bin/sh\n")
    project.commit_data(V1, "First", "v1")
    (project.root / "run.sh").chmod(0o755)
    (project.root / "link").symlink_to("run.sh")
    project.commit("Second", "v2")
    assert command("diff", ".", "v1", "v2", cwd=project.root).lines == [
        "added       6 bytes  link",
        "changed    10 bytes  run.sh  (now executable)",
    ]


def test_another_repository(command: Command, history: Project, tmp_path: Path) -> None:
    done = command("diff", "--repo", history.root, "data", "v1", "v2", cwd=tmp_path)
    assert (done.status, len(done.lines)) == (0, 2)


def test_names_that_a_terminal_would_obey(command: Command, project: Project) -> None:
    project.commit_data(V1, "First", "v1")
    project.commit_data({**V1, "\x1b[2J\n": b"x", os.fsdecode(b"caf\xe9"): b"y"}, "Second", "v2")
    done = command("diff", "data", "v1", "v2", cwd=project.root)
    assert done.lines == ["added       1 bytes  \\x1b[2J\\n", "added       1 bytes  caf\\udce9"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data", "v1", "v9"], "did you mean v"),
        (["nothing", "v1", "v2"], "tracked are 'data'"),
        (["data/nix", "v1", "v2"], "nothing is called 'nix'"),
        (["data", "--repo", ".", "v1"], "name the second one"),
        (["", "v1", "v2"], "empty target"),
    ],
)
def test_bad_input_is_one_line(command: Command, history: Project, words: list[str], told: str) -> None:
    done = command("diff", *words, cwd=history.root)
    assert (done.status, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert told in done.stderr


def test_a_missing_manifest(command: Command, history: Project) -> None:
    [oid] = {v["oid"] for v in command("log", "--json", "data@v1", cwd=history.root).json}
    history.forget(oid)
    done = command("diff", "data", "v1", "v2", cwd=history.root)
    assert (done.status, done.stderr.count("\n")) == (1, 1)
    assert "dvc fetch" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("a", "b", "{a → b}"),
        ("d/a", "d/b", "d/{a → b}"),
        ("one/x/f", "two/x/f", "{one → two}/x/f"),
        ("p/one/f", "p/two/f", "p/{one → two}/f"),
        ("f", "d/f", "{f → d/f}"),
        ("a/a/f", "a/f", "a/{a/f → f}"),
    ],
)
def test_renames_are_abbreviated(old: str, new: str, told: str) -> None:
    assert abbreviate_rename(old, new) == told
