"""`fusefs ls`: what a version holds, without a mount."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command, Project


def test_a_directory(command: Command, history: Project) -> None:
    assert command("ls", "data@v1", cwd=history.root).lines == ["a", "b", "s/"]
    assert command("ls", "data@v1", "s", cwd=history.root).lines == ["x"]
    assert command("ls", "--rev", "v1", "data/s", cwd=history.root).lines == ["x"]
    assert command("ls", "data", cwd=history.root).lines == ["aa", "b", "c"]


def test_nothing_is_needed_but_the_manifest(command: Command, history: Project) -> None:
    for path in (history.root / ".dvc/cache/files/md5").rglob("*"):
        if path.is_file() and path.suffix != ".dir":
            path.unlink()
    lines = command("ls", "-l", "data@v1", cwd=history.root).lines
    assert [line.split()[1] for line in lines] == ["-", "-", "-"]
    assert [line.split()[3] for line in lines] == ["missing", "missing", "-"]


def test_long(command: Command, history: Project) -> None:
    assert command("ls", "-l", "data@v1", cwd=history.root).lines == [
        "-rw-r--r--            2 b026324c6904b2a9cb4b88d6d61c81d1 cached  a",
        "-rw-r--r--            3 2fc57d6f63a9ee7e2f21a26fa522e3b6 cached  b",
        "drwxr-xr-x            - -                                -       s/",
    ]


def test_an_object_of_another_length_is_damaged(command: Command, history: Project) -> None:
    command("ls", "-l", "data@v1", cwd=history.root)
    path = history.root / ".dvc/cache/files/md5/b0/26324c6904b2a9cb4b88d6d61c81d1"
    path.chmod(0o644)
    path.write_bytes(b"longer than it was\n")
    [line] = command("ls", "-l", ".@v1", "data/a", cwd=history.root).lines
    assert "cached" in line  # nothing has told how long it should be
    metafile = history.root / "one.dvc"
    metafile.write_text(
        "outs:\n- md5: b026324c6904b2a9cb4b88d6d61c81d1\n  size: 2\n  hash: md5\n  path: one\n"
    )
    [line] = command("ls", "-l", "one.dvc", cwd=history.root).lines
    assert line.split()[1:] == ["2", "b026324c6904b2a9cb4b88d6d61c81d1", "damaged", "one"]


def test_everything_below(command: Command, history: Project) -> None:
    assert command("ls", "-R", "data@v1", cwd=history.root).lines == [".:", "a", "b", "s/", "", "s:", "x"]


def test_patterns(command: Command, history: Project) -> None:
    assert command("ls", "data@v2", "[ab]", cwd=history.root).lines == ["a", "b"]
    assert command("ls", "data@v2", "*", cwd=history.root).lines == ["a", "b", "c", "", "s:", "x"]
    assert command("ls", "data@v2", "?/x", cwd=history.root).lines == ["x"]


def test_a_pattern_does_not_find_hidden_names_unless_it_begins_so(command: Command, project: Project) -> None:
    project.commit_data({".hidden": b"1", "shown": b"2", "[ab]": b"3", "a": b"4"}, "Data")
    assert command("ls", "data", "*n", cwd=project.root).lines == ["shown"]
    assert command("ls", "data", ".h*", cwd=project.root).lines == [".hidden"]
    assert command("ls", "data", "[ab]", cwd=project.root).lines == ["[ab]"]  # as it is, before as a pattern


def test_the_whole_project(command: Command, history: Project) -> None:
    (history.root / "link").symlink_to("note.txt")
    (history.root / "run").write_text("#!/bin/sh\n")
    (history.root / "run").chmod(0o755)
    history.commit("More", "v4")
    lines = command("ls", "-l", ".@v4", cwd=history.root).lines
    modes = {line.split()[-1]: (line.split()[0], line.split()[-2]) for line in lines}
    assert modes["link"] == ("lrwxrwxrwx", "git")
    assert modes["run"] == ("-rwxr-xr-x", "git")
    assert modes["data/"] == ("drwxr-xr-x", "-")
    assert command("ls", ".@v1", cwd=history.root).lines == [".dvc/", ".gitignore", "data/", "data.dvc"]


def test_json(command: Command, history: Project) -> None:
    told = command("ls", "--json", "-R", "data@v1", cwd=history.root).json
    assert [entry["path"] for entry in told] == ["a", "b", "s", "s/x"]
    assert told[0] == {
        "path": "a",
        "type": "file",
        "mode": "0644",
        "bytes": 2,
        "oid": "b026324c6904b2a9cb4b88d6d61c81d1",
        "hash": "md5",
        "state": "cached",
    }
    assert told[2] == {
        "path": "s",
        "type": "directory",
        "mode": "0755",
        "bytes": None,
        "oid": None,
        "hash": None,
        "state": None,
    }


def test_an_oid_and_a_cache(command: Command, history: Project) -> None:
    [version] = command("log", "--json", "-n", "1", "data@v1", cwd=history.root).json
    done = command("ls", "--cache", history.root / ".dvc/cache", version["oid"])
    assert done.lines == ["a", "b", "s/"]


def test_names_that_a_terminal_would_obey(command: Command, project: Project) -> None:
    project.commit_data({"\x1b[2J\n": b"x"}, "Data")
    assert command("ls", "data", cwd=project.root).lines == ["\\x1b[2J\\n"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data@v1", "s/y"], "in 's' there is 'x'"),
        (["data@v1", "a/y"], "'a' is a file"),
        (["data@v1", "*.jpg"], "nothing matches '*.jpg'"),
        (["data@v1", "../x"], "nothing is called"),
        (["data@v9"], "did you mean"),
        (["nothing@v1"], "tracked are 'data'"),
        (["."], "is not as the last commit has it"),
    ],
)
def test_bad_input_is_one_line(command: Command, history: Project, words: list[str], told: str) -> None:
    (history.root / "note.txt").write_text("changed\n")
    done = command("ls", *words, cwd=history.root)
    assert (done.status, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert told in done.stderr
