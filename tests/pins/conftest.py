"""Mounts, and repositories of the real DVC beside which they live."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import mounter, pytest_runtest_protocol
from tests.mount.datasets import write_folder
from tests.mount.mounts import Mounter
from tests.repositories import initialize

__all__ = ["mounter", "pytest_runtest_protocol"]

TOOL_SECONDS = 60.0

Run = Callable[..., str]
Files = dict[str, bytes]


@pytest.fixture
def run(mounter: Mounter) -> Run:
    """`run(directory, "dvc", "add", …)`: the output of a program that must succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for tool in ("dvc", "git"):
        assert shutil.which(tool, path=path), f"{tool} is not installed; scripts/setup does it"
    site = {"DVC_SITE_CACHE_DIR": str(mounter.home / "site"), "DVC_NO_ANALYTICS": "1"}
    names = {
        f"GIT_{who}_{what}": "somebody@here" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    env = mounter.environment | site | names | {"PATH": path}

    def run(directory: Path, *command: str | Path) -> str:
        done = subprocess.run(
            command, cwd=directory, env=env, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def repository(mounter: Mounter, run: Run) -> Path:
    """A repository of git and DVC, without data."""
    return initialize(mounter.home / "repository")


@pytest.fixture
def commit(run: Run) -> Callable[[Path, Files, str], None]:
    """`commit(root, files, tag)`: make the folder `data` of the files, track and commit it."""

    def commit(root: Path, files: Files, tag: str) -> None:
        shutil.rmtree(root / "data", ignore_errors=True)
        write_folder(root / "data", files)
        run(root, "dvc", "add", "--quiet", "data")
        run(root, "git", "add", ".")
        run(root, "git", "commit", "--quiet", "--message", tag)
        run(root, "git", "tag", tag)

    return commit
