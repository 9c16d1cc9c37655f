"""Where fusefs keeps what is its own, by the XDG base directory rules."""

from __future__ import annotations

import os
from pathlib import Path


def _directory(variable: str, default: str) -> Path:
    """The rules say that a relative path in the variable is to be ignored."""
    named = os.environ.get(variable, "")
    return (Path(named) if named.startswith("/") else Path.home() / default) / "fusefs"


def cache_directory() -> Path:
    """What can be made again: compiled trees."""
    return _directory("XDG_CACHE_HOME", ".cache")


def blob_directory() -> Path:
    """Git's objects that were shown: private, because what lies there is trusted."""
    return cache_directory() / "blobs"


def state_directory() -> Path:
    """What should outlive a reboot and is of this machine: logs, the commit state."""
    return _directory("XDG_STATE_HOME", ".local/state")
