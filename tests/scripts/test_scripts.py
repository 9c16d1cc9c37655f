"""The scripts that README and CI call."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SECONDS = 300.0
SHELL_SCRIPTS = sorted(
    path
    for path in [*(REPOSITORY / "scripts").iterdir(), REPOSITORY / ".ci" / "run"]
    if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env bash")
)


def run(command: list[str | Path], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_strict_and_executable(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    assert run(["bash", "-n", script]).stderr == ""


def test_ci_calls_the_test_script_only() -> None:
    commands = (REPOSITORY / ".ci" / "run").read_text().splitlines()[1:]
    assert commands == ["set -euo pipefail", 'exec "$(dirname "${BASH_SOURCE[0]}")/../scripts/test"']


@pytest.mark.parametrize("name", ["requirements.lock", "torch.lock"])
def test_lock_files_name_no_host_and_hash_everything(name: str) -> None:
    lock = (REPOSITORY / "scripts" / name).read_text()
    assert "://" not in lock
    pins = [block for block in lock.replace("\\\n", " ").splitlines() if block[:1].isalnum()]
    assert pins
    assert all("==" in pin and "--hash=sha256:" in pin for pin in pins)


@pytest.fixture
def bare_checkout(tmp_path: Path) -> Path:
    """A checkout, and a `bin` with so few programs that packages are missing and apt-get, too."""
    checkout = tmp_path / "checkout"
    (checkout / "scripts").mkdir(parents=True)
    for name in ("scripts/setup", "scripts/requirements.lock", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, checkout / name)
    (tmp_path / "bin").mkdir()
    for program in ("bash", "cat", "dirname", "env", "sha256sum"):
        found = shutil.which(program)
        assert found
        (tmp_path / "bin" / program).symlink_to(found)
    return checkout


def test_setup_says_in_one_line_what_to_install(bare_checkout: Path) -> None:
    done = run([bare_checkout / "scripts" / "setup"], PATH=str(bare_checkout.parent / "bin"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "install" in line
    assert {"gcc", "git", "libfuse3-dev", "fuse3"} <= set(line.split())
    assert not (bare_checkout / ".venv").exists()


@pytest.mark.fuse
@pytest.mark.timeout(2 * SECONDS)
def test_demo_works_and_leaves_nothing(tmp_path: Path) -> None:
    done = run([REPOSITORY / "scripts" / "demo"], TMPDIR=str(tmp_path), CI="true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "$ fusefs commit photos" in done.stdout
    assert "Read-only file system" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text(errors="surrogateescape")
