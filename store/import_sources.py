"""`ImportSources`: the repositories that imports lead to, each opened once, and all closed together.

Callers: `store.imported`. Blocking, for as long as a clone takes; one thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final, Self

from store.dvc.index import Index, read_index
from store.dvc.project import Kind, default_cache_dir, find_project
from store.errors import MetafileInvalid, RepositoryUnusable, StoreError
from store.git.clones import Clone, clones_directory
from store.git.files import GitFiles
from store.git.repository import Repository
from store.git.urls import Location
from store.local_cache import LocalCache
from store.prefetching import fetch_metafiles

REPOSITORIES: Final = 64
"""Opened at once: each has processes that answer for its objects."""
FOLLOWED: Final = 10_000
"""Imports of one version. A few directories that import each other many times have more than atoms."""


class ImportSources:
    """The `Repositories` of `store.dvc.imports`; to be used in `with`. `env` is the process's environment.

    With `offline` clones are used as they are, and none is made.
    """

    def __init__(self, env: Mapping[str, str], *, offline: bool = False) -> None:
        self._env = env
        self._offline = offline
        self._stack = ExitStack()
        self._opened: dict[str, tuple[Repository, Clone | None] | StoreError] = {}
        self._files: dict[tuple[str, str], GitFiles] = {}
        self._indexes: dict[tuple[str, str, str], Index] = {}
        self._followed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def count(self) -> None:
        """One more import is followed. Raises `MetafileInvalid` for one too many."""
        self._followed += 1
        if self._followed > FOLLOWED:
            raise MetafileInvalid(f"more than {FOLLOWED} imports would be followed; mount a part of it")

    def open(self, location: Location, commit: str) -> GitFiles:
        """The files of a commit, given by its hex name. What failed once fails at once.

        Raises `RepositoryUnusable`, `RevisionUnknown`, `ObjectMissing`, `LockTimeout`, `StoreTimeout`.
        """
        known = self._files.get((location.url, commit))
        if known is not None:
            return known
        repository, clone = self._open(location)
        files = GitFiles(repository, clone.resolve(commit)[0] if clone else repository.resolve(commit))
        if clone is not None:
            fetch_metafiles(files)
        self._files[location.url, commit] = files
        return files

    def read_index(self, location: Location, commit: str, root: str) -> Index:
        """What the DVC repository at `root` of those files tracks. Raises as `open` does."""
        key = (location.url, commit, root)
        if key not in self._indexes:
            self._indexes[key] = read_index(self.open(location, commit), root=root)
        return self._indexes[key]

    def find_cache(self, location: Location, root: str) -> LocalCache:
        """Where the objects of the DVC repository at `root` are on this machine. Raises `ConfigInvalid`."""
        if location.local is not None:
            project = find_project(location.local / root, self._env)
            if project.kind is Kind.DVC:
                return LocalCache(project.cache_dir)
        return LocalCache(default_cache_dir(self._env))

    def _open(self, location: Location) -> tuple[Repository, Clone | None]:
        opened = self._opened.get(location.url)
        if opened is None:
            try:
                opened = self._open_anew(location)
            except StoreError as error:
                opened = error
            self._opened[location.url] = opened
        if isinstance(opened, StoreError):
            raise type(opened)(*opened.args)
        return opened

    def _open_anew(self, location: Location) -> tuple[Repository, Clone | None]:
        if len(self._opened) >= REPOSITORIES:
            raise RepositoryUnusable(f"imports lead to more than {REPOSITORIES} repositories")
        if location.local is None:
            clone = self._stack.enter_context(
                Clone.open(location, clones_directory(self._env), offline=self._offline)
            )
            return clone.repository, clone
        repository = self._stack.enter_context(Repository.open(location.local))
        # git looks upwards: a directory that is no repository any more may lie in another one.
        tops = [top.resolve() for top in (repository.git_dir, repository.work_tree) if top is not None]
        if location.local.resolve() not in tops:
            raise RepositoryUnusable(f"{location.local} is not the root of a git repository")
        return repository, None
