"""An environment that no configuration of this machine reaches."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOREIGN = ("DVC_", "GIT_", "XDG_")
"""How the names of variables begin that lead to the machine's own configuration."""


def isolation(home: Path) -> dict[str, str]:
    """Variables that lead tools into `home`, and nowhere else."""
    return {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CONFIG_DIRS": str(home / "system"),
        "XDG_DATA_HOME": str(home / "data"),
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }


def isolate(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for this process."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        monkeypatch.delenv(name)
    for name, value in isolation(home).items():
        monkeypatch.setenv(name, value)
