"""The clones of repositories that are not on this machine."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from store.errors import StoreError
from store.git.clones import clone_directory, clones_directory, hold_clone
from store.keeping.leases import Lease

log = logging.getLogger(__name__)


def repository_directory(repo: str) -> Path:
    """Where the repository `repo` is on this machine: itself, or its clone."""
    return Path(repo) if repo.startswith("/") else clone_directory(repo, clones_directory(os.environ))


def hold_repository(repo: str) -> Lease | None:
    """Keep the clone that versions come from; None where they come from a directory of this machine."""
    if not repo or repo.startswith("/"):
        return None
    try:
        return hold_clone(repository_directory(repo))
    except StoreError as error:
        log.warning("%s", error)
        return None
