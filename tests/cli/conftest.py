"""Commands run in the test's own process, and a small project with a history."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fusefs.cli import main
from store.commit import CommitOptions, commit
from tests.isolation import isolate, isolation
from tests.store.media.videos import Videos

AUTHOR = {
    "GIT_AUTHOR_NAME": "Ada Author",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada Author",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "TZ": "UTC",
}


@dataclass(frozen=True, slots=True)
class Done:
    """What a command gave."""

    status: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


Command = Callable[..., Done]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`command("log", "data")` in this process, with a home of its own; `cwd` is where it runs."""
    home = tmp_path / "home"
    home.mkdir()
    isolate(home, monkeypatch)
    for name, value in AUTHOR.items():
        monkeypatch.setenv(name, value)

    def run(*words: str | Path, cwd: Path | None = None) -> Done:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(cwd or tmp_path)
            status = main([str(word) for word in words])
        printed = capsys.readouterr()
        return Done(status, printed.out, printed.err)

    return run


def run_tool(directory: Path, *words: str, time: int = 0) -> str:
    """The output of `git` or `dvc`, which must succeed; `time` is when a commit is made."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    program = shutil.which(words[0], path=path)
    assert program, f"{words[0]} is not installed; scripts/setup does it"
    home = directory.parent / "tool-home"
    home.mkdir(exist_ok=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_"))}
    env |= isolation(home) | AUTHOR | {"PATH": path}
    if time:
        env |= dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), f"{time} +0000")
    done = subprocess.run(
        [program, *words[1:]], cwd=directory, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@dataclass(slots=True)
class Project:
    """A repository of git's with `.dvc` in it; each commit is made a minute after the one before."""

    root: Path
    time: int = 1_700_000_000

    @classmethod
    def make(cls, root: Path) -> Project:
        (root / ".dvc").mkdir(parents=True)
        (root / ".dvc/.gitignore").write_text("/cache\n/tmp\n/config.local\n")
        (root / ".dvc/config").write_text("")
        project = cls(root)
        project.git("init", "--quiet", "--initial-branch=main")
        return project

    def git(self, *words: str) -> str:
        return run_tool(self.root, "git", *words, time=self.time)

    def commit(self, subject: str, *tags: str) -> str:
        """Commit everything; the commit's oid."""
        self.time += 60
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", subject)
        for tag in tags:
            self.git("tag", tag)
        return self.git("rev-parse", "HEAD")

    def commit_data(self, files: Mapping[str, bytes], subject: str, *tags: str, name: str = "data") -> str:
        """Make `name` hold exactly `files`, record that and commit it."""
        data = self.root / name
        shutil.rmtree(data, ignore_errors=True)
        for path, content in files.items():
            (data / path).parent.mkdir(parents=True, exist_ok=True)
            (data / path).write_bytes(content)
        commit(data, CommitOptions(link="copy", jobs=1, lock_timeout=5.0))
        return self.commit(subject, *tags)

    def forget(self, oid: str) -> None:
        """Take an object out of the cache."""
        path = self.root / ".dvc/cache/files/md5" / oid[:2] / oid[2:]
        path.unlink()


@pytest.fixture
def project(tmp_path: Path, command: Command) -> Project:
    """An empty project. (`command` gives this process an environment of its own.)"""
    return Project.make(tmp_path / "project")


V1 = {"a": b"1\n", "b": b"22\n", "s/x": b"333\n"}
V2 = {"a": b"1\n", "b": b"changed\n", "c": b"new\n", "s/x": b"333\n"}
V3 = {"aa": b"1\n", "b": b"changed\n", "c": b"new\n"}


@pytest.fixture(scope="session")
def _made_history(tmp_path_factory: pytest.TempPathFactory) -> Project:
    directory = tmp_path_factory.mktemp("history")
    (directory / "home").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (isolation(directory / "home") | AUTHOR).items():
            patch.setenv(name, value)
        project = Project.make(directory / "project")
        project.commit_data(V1, "First data", "v1")
        project.commit_data(V2, "Second data")
        (project.root / "note.txt").write_text("note\n")
        project.commit("A note", "v2")
        project.commit_data(V3, "Third data", "v3")
    return project


@pytest.fixture
def history(tmp_path: Path, command: Command, _made_history: Project) -> Project:
    """Three versions of `data`: v1, v2 (tagged one commit later) and v3. A test's own copy."""
    shutil.copytree(_made_history.root, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project", _made_history.time)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Videos:
    return Videos(tmp_path_factory.mktemp("videos"))
