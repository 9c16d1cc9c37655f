"""An environment that no configuration of this machine reaches, and the real `dvc` and `git` in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.isolation import isolate, isolation
from tests.repositories import initialize

Run = Callable[..., str]


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; the process's environment points into it and nowhere else."""
    directory = tmp_path_factory.mktemp("home")
    isolate(directory, monkeypatch)
    return directory


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """`run(directory, "dvc", "add", …)`: the output of a program that must succeed."""
    home = tmp_path_factory.mktemp("tool-home")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for tool in ("dvc", "git"):
        assert shutil.which(tool, path=path), f"{tool} is not installed; scripts/setup does it"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_"))}
    env |= isolation(home) | {"PATH": path}

    def run(directory: Path, *command: str, status: int = 0) -> str:
        done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    yield run


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A repository of the real DVC; tests only read it.

    `data/` (a, sub/b), `tools/run.sh` (executable), `tools/deep/er/` tracked by `deep.dvc` in `tools`
    through `wdir`, `link` → `tools`, and a metafile that git ignores.
    """
    root = tmp_path_factory.mktemp("repository")
    for name, content in {"data/a": "1", "data/sub/b": "22", "tools/deep/er/x": "333"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "tools/run.sh").write_text("#!/bin/sh\n")
    (root / "tools/run.sh").chmod(0o755)
    initialize(root)
    run(root, "dvc", "add", "--quiet", "data", "tools/run.sh", "tools/deep/er")
    text = (root / "tools/deep/er.dvc").read_text()
    (root / "tools/deep.dvc").write_text(text + "wdir: deep\n")
    (root / "tools/deep/er.dvc").unlink()
    (root / "link").symlink_to("tools")
    (root / "scratch").mkdir()
    (root / "scratch/x.dvc").write_text(text)
    (root / ".gitignore").write_text((root / ".gitignore").read_text() + "/scratch\n")
    return root
