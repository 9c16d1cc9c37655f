"""`open_dataset`: what the user named → a compiled tree, and where its bytes are.

Called by the commands, and by `fusefs.resolve` on a daemon's behalf; never in the daemon itself:
everything that can be wrong with a target is found here and raised as one line.
"""

from __future__ import annotations

import os
from pathlib import Path

from fusefs.dataset_model import Dataset, Origin, Request, chosen_cache, compiled_trees
from fusefs.dataset_objects import OID, RUN, open_manifest_file, open_oid, open_run
from fusefs.dataset_paths import open_in_repository, open_revision, open_split, open_tracked
from fusefs.place import current_directory, open_place
from store.errors import InputError, NotTracked
from store.git.clones import Clone, clones_directory
from store.git.repository import Repository
from store.git.urls import parse_location
from store.oid import TREE_SUFFIX

__all__ = [
    "Dataset",
    "Origin",
    "Request",
    "compiled_trees",
    "list_names",
    "open_dataset",
    "open_revisions",
]


def open_dataset(request: Request) -> Dataset:
    """Resolve what the user named. Raises `StoreError`."""
    target = request.target
    if not target:
        raise InputError("an empty target names nothing; give a .dvc file, a tracked path or an oid")
    path = Path(target)
    if target.startswith(RUN) and not os.path.lexists(path):
        return open_run(request)
    if request.repo:
        return open_in_repository(request)
    if request.rev:
        return open_revision(request, target, request.rev)
    if os.path.lexists(path):
        if path.name.endswith(TREE_SUFFIX) and path.is_file():
            return open_manifest_file(request)
        try:
            return open_tracked(request)
        except NotTracked:
            if "@" not in target:
                raise
            # Something stands there that is nobody's, called as a version is.
    elif OID.fullmatch(target):
        return open_oid(request)
    return open_split(request)


def open_revisions(request: Request) -> Dataset:
    """All versions of a path, for a mount that shows them side by side. Raises `StoreError`."""
    if request.rev:
        raise InputError("--rev names one version and --revs many: give one of them")
    with open_place(request.target, request.repo, chosen_cache(request), offline=request.offline) as place:
        return Dataset(request.target, "", "", None, (place.cache,), origin=Origin(place.repo, place.path))


def list_names(repo: str, pattern: str, *, offline: bool = False) -> list[str]:
    """Tags and branches of a repository that match the glob, of a clone as they were seen last."""
    location = parse_location(repo, current_directory())
    if location.local is not None:
        with Repository.open(location.local) as repository:
            return repository.names(pattern)
    with Clone.open(location, clones_directory(os.environ), offline=offline) as clone:
        clone.resolve("HEAD")  # which refreshes what is old
        return clone.repository.names(pattern)
