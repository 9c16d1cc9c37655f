"""Questions to git about a working tree, asked so that no repository can make git run anything.

A clone's configuration may name programs (file system monitors, hooks, transports). They are turned
off on the command line, which is stronger than the repository's files; objects that a partial clone
lacks are not fetched; the index is not refreshed. Where git refuses, for instance because the
repository belongs to somebody else, there is no answer, and callers do without.

Callers: `store.dvc.discovery`. Blocking, bounded by a deadline; any thread.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

DEADLINE: Final = 60.0
"""Seconds; a million files of a cold index take some ten."""

_SAFETY = (
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.untrackedCache=false"),
    *("-c", "protocol.allow=never"),
    *("-c", "submodule.recurse=false"),
)
_ENVIRONMENT: Final = {
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}


def list_files(directory: Path, pattern: str) -> list[str] | None:
    """Files below `directory` that match and are tracked or not ignored; None if git cannot tell.

    Paths are relative to `directory`, in no particular order; one that was deleted may be among them.
    """
    command = ["git", *_SAFETY, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", pattern]
    # What a hook's environment says about its own repository (GIT_DIR and so on) is not about this one.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=env | _ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    return [os.fsdecode(path) for path in done.stdout.split(b"\0") if path]
