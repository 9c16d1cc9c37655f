"""Where a target lies: a path in a git repository, of this machine or cloned, and the cache beside it.

Callers: `fusefs.dataset`, and the commands that tell of several revisions of one path. Blocking.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from store.dvc.files import is_directory
from store.dvc.project import Kind, default_cache_dir, find_project
from store.errors import InputError
from store.git.clones import Clone, clones_directory
from store.git.commit import Commit
from store.git.repository import Repository
from store.git.urls import parse_location


@dataclass(frozen=True, slots=True)
class Place:
    """A path of an opened repository. It need not be tracked."""

    repository: Repository
    path: str
    """`/`-separated, from the repository's root; empty for all of it."""
    cache: Path
    """Where the objects are."""
    repo: str
    """How the repository is named: absolute path or URL, without secrets."""
    clone: Clone | None = None

    def resolve(self, rev: str) -> tuple[Commit, str | None]:
        """The commit that `rev` names, and a line to show if it may not be the newest.

        Raises `RevisionUnknown`, `ObjectMissing`, `ObjectCorrupt`, `RepositoryUnusable`, `StoreTimeout`.
        """
        if self.clone is not None:
            return self.clone.resolve(rev)
        return self.repository.resolve(rev), None

    def cache_of(self, root: str) -> Path | None:
        """The cache of a DVC repository within this one, as its working tree has it; None for the outermost.

        Raises `ConfigInvalid`.
        """
        work_tree = self.repository.work_tree
        if not root or work_tree is None or not is_directory(work_tree / root / ".dvc"):
            return None
        return find_project(work_tree / root).cache_dir


@contextmanager
def open_place(
    target: str, repo: str = "", cache: Path | None = None, *, offline: bool = False
) -> Iterator[Place]:
    """Open the repository that the path `target` lies in, or `repo`, from whose root it then counts.

    With `offline` a clone is used as it is.

    Raises `InputError`, `ConfigInvalid`, `RepositoryUnusable`, `LockTimeout`, `StoreTimeout`.
    """
    if not repo:
        path = Path(target)
        with Repository.open(path) as repository:
            found = cache or find_project(path.absolute()).cache_dir
            yield Place(repository, path_below(repository, path), found, name_repository(repository))
        return
    inner = normalize(target)
    location = parse_location(repo, current_directory())
    if location.local is not None:
        with Repository.open(location.local) as repository:
            found = cache or _own_cache(location.local)
            yield Place(repository, inner, found, name_repository(repository))
    else:
        with Clone.open(location, clones_directory(os.environ), offline=offline) as clone:
            found = cache or default_cache_dir(os.environ)
            yield Place(clone.repository, inner, found, location.url, clone)


def _own_cache(directory: Path) -> Path:
    """The cache of a repository on this machine; one without DVC has the default one."""
    project = find_project(directory)
    return project.cache_dir if project.kind is Kind.DVC else default_cache_dir(os.environ)


def split_target(text: str) -> Iterator[tuple[str, str]]:
    """Every way to read `path@rev`, the shortest path first. An empty path is the current directory."""
    place = text.find("@")
    while place >= 0:
        if text[place + 1 :]:
            yield text[:place] or ".", text[place + 1 :]
        place = text.find("@", place + 1)


def normalize(path: str) -> str:
    """A path from the root of a repository, normalised; empty for the root. Raises `InputError`."""
    inner = os.path.normpath(path)
    if inner == ".." or inner.startswith(("/", "../")):
        raise InputError(f"{path!r} is not a path from the root of the repository")
    return "" if inner == "." else inner


def path_below(repository: Repository, path: Path) -> str:
    """A path of the working tree from the repository's root. Raises `InputError`."""
    if repository.work_tree is None:
        raise InputError(f"{path} lies in a repository without a working tree; use --repo")
    absolute = Path(os.path.normpath(path.absolute()))
    resolved = Path(os.path.realpath(absolute.parent)) / absolute.name
    for candidate in (absolute, resolved, Path(os.path.realpath(absolute))):
        if candidate == repository.work_tree:
            return ""
        if candidate.is_relative_to(repository.work_tree):
            return candidate.relative_to(repository.work_tree).as_posix()
    raise InputError(f"{path} does not lie in the working tree {repository.work_tree}")


def name_repository(repository: Repository) -> str:
    """How a repository of this machine is named: by the root of its working tree, if it has one."""
    return str(repository.work_tree or repository.git_dir)


def is_in_git(path: Path) -> bool:
    """Whether there is a repository around `path`, as far as its directories tell."""
    absolute = path.absolute()
    return any(os.path.lexists(directory / ".git") for directory in (absolute, *absolute.parents))


def current_directory() -> Path:
    """The directory that we are in. Raises `InputError` if it has been removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise InputError("the current directory has been removed; change to another one") from None
