"""What git knows of the files of a working tree.

Where git refuses, for instance because the repository belongs to somebody else, there is no answer,
and callers do without.

Callers: `store.dvc.project`. Blocking, bounded by a deadline; any thread.
"""

from __future__ import annotations

import os
from pathlib import Path

from store.errors import RepositoryUnusable, StoreTimeout
from store.git import command


def list_files(directory: Path, *patterns: str) -> list[str] | None:
    """Files below `directory` that match a pattern and are tracked or not ignored; None if git cannot tell.

    Paths are relative to `directory`, in no particular order; one that was deleted may be among them.
    """
    listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = command.run(listing, directory=directory, paths=patterns, globs=True)
    except (RepositoryUnusable, StoreTimeout):
        return None
    if done.status != 0:
        return None
    return [os.fsdecode(path) for path in done.output.split(b"\0") if path]


def may_be_tracked(file: Path) -> bool:
    """Whether git has a file, or cannot tell; False outside of any repository."""
    listing = ["ls-files", "-z", "--cached"]
    try:
        done = command.run(listing, directory=file.parent, paths=[file.name])
    except (RepositoryUnusable, StoreTimeout):
        return True
    return done.status == 0 and bool(done.output)
