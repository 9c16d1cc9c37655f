"""An environment that no configuration of this machine reaches, the real `dvc` and `git`, and folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from store.commit import CommitOptions, Committed, commit
from tests.isolation import isolate, isolation

Run = Callable[..., str]
Files = Mapping[str, bytes]


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; the process's environment points into it and nowhere else."""
    directory = tmp_path_factory.mktemp("home")
    isolate(directory, monkeypatch)
    return directory


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`run(directory, "dvc", "add", …)`: the output of a program that must succeed."""
    home = tmp_path_factory.mktemp("tool-home")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for tool in ("dvc", "git"):
        assert shutil.which(tool, path=path), f"{tool} is not installed; scripts/setup does it"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_"))}
    env |= isolation(home) | {"PATH": path}

    def run(directory: Path, *command: str, status: int = 0) -> str:
        done = subprocess.run(
            command, cwd=directory, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="session")
def _empty_repository(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    root = tmp_path_factory.mktemp("empty-repository")
    run(root, "git", "init", "--quiet")
    run(root, "dvc", "init", "--quiet")
    return root


@pytest.fixture
def new_repository(tmp_path: Path, _empty_repository: Path) -> Callable[[str], Path]:
    """Makes fresh repositories of the real DVC."""

    def make(name: str) -> Path:
        root = tmp_path / name
        shutil.copytree(_empty_repository, root)
        return root

    return make


@pytest.fixture
def repository(new_repository: Callable[[str], Path]) -> Path:
    return new_repository("repository")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state" / "hashes.sqlite"


@pytest.fixture
def commit_(state: Path) -> Callable[..., Committed]:
    """`commit` with a state database of the test's own."""

    def run_commit(path: Path, **options: object) -> Committed:
        return commit(path, CommitOptions(**{"state": state, "lock_timeout": 5.0, **options}))  # type: ignore[arg-type]  # keywords of a test

    return run_commit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files in two directories, outside of any repository."""
    return write_files(tmp_path / "photos", {"a.txt": b"one\n", "b/c.txt": b"two\n", "b/d.bin": bytes(5000)})


def write_files(root: Path, files: Files) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@pytest.fixture
def write() -> Callable[[Path, Files], Path]:
    """Writes files below a directory, which it returns."""
    return write_files


@pytest.fixture
def objects() -> Callable[[Path], dict[str, bytes]]:
    """The content of all objects of a cache by their path; fails for anything else that lies there."""

    def read(cache: Path) -> dict[str, bytes]:
        found = {}
        for path in cache.rglob("*"):
            name = path.relative_to(cache).as_posix()
            if path.is_file():
                assert name.startswith("files/md5/"), f"{name} was left in the cache"
                found[name] = path.read_bytes()
            else:
                assert not (name.startswith("fusefs/tmp/")), f"{name} was left in the cache"
        return found

    return read
