"""Targets that name a path: of the working tree, of a revision, of another repository.

Callers: `fusefs.dataset`. Blocking.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from fusefs.dataset_model import Dataset, Origin, Request, chosen_cache
from fusefs.dataset_remotes import DatasetRemotes
from fusefs.dataset_tree import compile_dataset
from fusefs.place import Place, is_in_git, name_repository, open_place, path_below, split_target
from store.dvc.discovery import SUFFIX
from store.dvc.files import join
from store.dvc.project import Project
from store.dvc.target import find_target
from store.dvc.versioned import Wanted
from store.errors import InputError, NotTracked, RepositoryUnusable, RevisionUnknown
from store.git.changes import find_change
from store.git.files import GitFiles
from store.git.repository import Repository
from store.import_sources import ImportSources
from store.imported import ImportFinder
from store.local_cache import LocalCache
from store.prefetching import fetch_below, fetch_metafiles
from store.revision import compose_outputs, locate
from store.version import GitPart


def open_tracked(request: Request) -> Dataset:
    """A path of the working tree; the root of a clean one is its last commit."""
    path = Path(request.target)
    try:
        found = find_target(path)
    except NotTracked:
        if path.is_dir() and is_in_git(path):
            return _open_clean_directory(request)
        raise
    local = LocalCache(chosen_cache(request) or found.project.cache_dir)
    metafile = os.path.relpath(found.metafile, found.project.root)
    directory = metafile.rpartition("/")[0]
    with (
        DatasetRemotes(request, local.root) as remotes,
        ImportSources(os.environ, offline=request.offline) as sources,
    ):
        remotes.of_project(found.project)
        finder = ImportFinder(sources, (local,), found.project.root, remotes)
        located = compose_outputs(
            found.outputs, request.target, lambda output: finder.find(output, "", metafile), found.inside
        )
        wanted = tuple(
            Wanted("", os.path.normpath(join(directory, output.path)), output) for output in found.outputs
        )
        origin = _origin(found.project, path)
        return compile_dataset(request, replace(located, wanted=wanted), local, remotes, origin=origin)


def _open_clean_directory(request: Request) -> Dataset:
    """A directory that is no output, without a revision: what is committed, if that is what is there."""
    path = Path(request.target)
    with Repository.open(path) as repository:
        below = path_below(repository, path)
        files = GitFiles(repository, repository.resolve("HEAD"))
        changed = find_change(files, repository.work_tree or path, below)
    if changed:
        raise InputError(
            f"{request.target}: {changed!r} is not as the last commit has it; "
            f"name a revision, for instance {request.target}@HEAD"
        )
    return open_revision(request, request.target, "HEAD")


def open_split(request: Request) -> Dataset:
    """`TARGET@REV`, split at the first `@` whose left side is tracked."""
    failure: NotTracked | RevisionUnknown | None = None
    for path, rev in split_target(request.target):
        if not is_in_git(Path(path)):
            continue
        try:
            return open_revision(request, path, rev)
        except NotTracked as error:
            failure = failure or error
        except RevisionUnknown as error:
            # Where there is something before the sign, and no such revision, that is what is wrong.
            if _is_named(path) or not isinstance(failure, RevisionUnknown):
                failure = error
    try:
        return open_tracked(request)
    except NotTracked:
        if failure is not None:
            raise failure from None
        raise


def _is_named(path: str) -> bool:
    """Whether there is such a path, or an output that is called so."""
    return os.path.lexists(path) or os.path.lexists(path.rstrip("/") + SUFFIX)


def open_revision(request: Request, path: str, rev: str) -> Dataset:
    """A path of the repository around it, at a revision."""
    with open_place(path, cache=chosen_cache(request), offline=request.offline) as place:
        return _open_at(request, place, rev)


def open_in_repository(request: Request) -> Dataset:
    """`--repo`: the target is a path from the root of another repository."""
    path, rev = request.target, request.rev
    if not rev and "@" in path:
        path, _, rev = path.rpartition("@")
    with open_place(path, request.repo, chosen_cache(request), offline=request.offline) as place:
        return _open_at(request, place, rev or "HEAD")


def _open_at(request: Request, place: Place, rev: str) -> Dataset:
    commit, notice = place.resolve(rev)
    local = LocalCache(place.cache)
    files = GitFiles(place.repository, commit)
    if place.clone is not None:
        fetch_metafiles(files)
    home = None if place.clone is not None else Path(place.repo)
    with (
        DatasetRemotes(request, local.root) as remotes,
        ImportSources(os.environ, offline=request.offline) as sources,
    ):
        remotes.of_revision(place, files, rev)
        find = ImportFinder(sources, (local,), home, remotes).find
        located = locate(
            place.repository, commit, place.path, request.target, remotes.bring, find, place.cache_of
        )
        if place.clone is not None:
            for part in located.version.parts:
                if isinstance(part, GitPart) and part.git_dir == place.repository.git_dir:
                    fetch_below(files, part.source)
        if notice is not None:
            located = replace(located, warnings=(*located.warnings, notice))
        return compile_dataset(
            request,
            located,
            local,
            remotes,
            repository=place.repository,
            rev=commit.oid,
            origin=Origin(place.repo, place.path),
        )


def _origin(project: Project, path: Path) -> Origin | None:
    """How the versions of a path of the working tree are named, where git has any."""
    if not is_in_git(path):
        return None
    try:
        with Repository.open(path) as repository:
            return Origin(name_repository(repository), path_below(repository, path))
    except (RepositoryUnusable, InputError):
        return None  # the working tree can be mounted without git's leave
