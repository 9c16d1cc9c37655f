"""Releases of DVC, each in a virtual environment of its own, every dependency pinned.

The two oldest want a Python of their time: 3.8. The pins in `requirements/` are what they ran with.

Callers: `era_fixtures.__main__`. Blocking; one thread.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PYTHONS: Final = {"0.94.1": "3.8", "1.11.16": "3.8", "2.58.2": "3.11", "3.67.1": "3.11", "moto": "3.11"}
"""What is installed (a release of DVC, or the S3 server for versioned remotes) → with which Python."""

_REQUIREMENTS = Path(__file__).parent / "requirements"


class FixtureError(Exception):
    """A fixture cannot be made; the message says why in one line."""


def install(name: str, work: Path) -> Path:
    """The `bin` directory of `name`'s environment below `work`, made if it is not there.

    Raises `FixtureError`.
    """
    pins = _REQUIREMENTS / f"{name}.txt"
    environment = work / name
    stamp = environment / "pins"
    if stamp.exists() and stamp.read_bytes() == pins.read_bytes():
        return environment / "bin"
    print(f"installing {name} for Python {PYTHONS[name]}", flush=True)
    _run(_find_python(PYTHONS[name]), "-m", "venv", "--clear", str(environment))
    pip = (str(environment / "bin/python"), "-m", "pip", "-qq", "--disable-pip-version-check", "--no-input")
    _run(*pip, "install", "--no-deps", "--requirement", str(pins))
    stamp.write_bytes(pins.read_bytes())
    return environment / "bin"


def _find_python(version: str) -> str:
    for candidate in _candidates(version):
        # A version manager's stand-in may be on the path without the version being there.
        asked = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == version:
            return candidate
    raise FixtureError(f"no Python {version} found: install it so that python{version} is on the path")


def _candidates(version: str) -> Iterator[str]:
    on_path = shutil.which(f"python{version}")
    if on_path:
        yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python")))


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise FixtureError(f"{' '.join(command)} failed: {reason}")
