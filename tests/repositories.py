"""Fresh repositories as the real git and DVC make them, made once and copied: `dvc init` takes half a second.

Callers: tests, on any thread. What is copied names no place, so copies share nothing.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.isolation import FOREIGN, isolation

TOOL_SECONDS = 60.0


def initialize(root: Path) -> Path:
    """What `git init` and `dvc init` leave in `root`, which is made if it is not there; returns `root`."""
    root.mkdir(exist_ok=True)
    for name, mode, content in _initialized():
        place = root / name
        if content is None:
            place.mkdir()
        else:
            place.write_bytes(content)
        place.chmod(mode)
    return root


@cache
def _initialized() -> tuple[tuple[str, int, bytes | None], ...]:
    """Such a repository: path, mode and content, None for a directory; parents come first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory, "repository")
        root.mkdir()
        for tool in ("git", "dvc"):
            program = shutil.which(tool, path=path)
            assert program, f"{tool} is not installed; scripts/setup does it"
            done = subprocess.run(
                [program, "init", "--quiet"],
                cwd=root,
                env=kept | isolation(Path(directory, "home")) | {"PATH": path},
                capture_output=True,
                text=True,
                timeout=TOOL_SECONDS,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        return tuple(
            (
                str(place.relative_to(root)),
                stat.S_IMODE(place.stat().st_mode),
                None if place.is_dir() else place.read_bytes(),
            )
            for place in sorted(root.rglob("*"))
        )
