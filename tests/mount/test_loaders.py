"""Data loaders with worker processes: the reader that a mounted dataset is for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.datasets import filler, md5
from tests.mount.mounts import Mounter

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

SECONDS = 80.0
FILES = {
    **{f"class{number % 7}/{number:04d}.bin": filler(2000 + number * 31, number) for number in range(300)},
    "archive": filler(2 << 20, 9),
}


@pytest.fixture(scope="module")
def root(shared_mounter: Mounter) -> Path:
    return shared_mounter.mount_files(FILES).path


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_every_file_right(root: Path, method: str) -> None:
    program = Path(__file__).with_name("loader.py")
    done = subprocess.run(
        [sys.executable, program, root, method, "17"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {path: md5(data) for path, data in FILES.items()}
