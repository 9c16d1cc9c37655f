"""`Project`: what a path belongs to: a DVC repository, a plain git work tree, or neither.

Callers: `store.dvc.target`, commit. Blocking; frozen results, any thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from store.dvc.config import Config, home_directory, load_config
from store.dvc.discovery import PATTERNS, Broken, ListedFiles, Metafile, discover
from store.dvc.files import WorkingFiles, is_directory
from store.git import work_tree


class Kind(Enum):
    """What a project's root is the root of."""

    DVC = "dvc"
    GIT = "git"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Project:
    """A root directory (absolute) and what configures it. For `Kind.NONE` any directory is a root."""

    root: Path
    kind: Kind
    config: Config
    cache_dir: Path
    """Absolute; it need not exist. In a DVC repository `cache.dir`, else its `.dvc/cache`; for what is
    none `default_cache_dir`, because the cache that a user may share with DVC is DVC's to clean."""

    def metafiles(self) -> Iterator[Metafile | Broken]:
        """Every metafile of the working tree, and what could not be read, outer directories first.

        Files that git ignores do not count, where git can be asked. Outside of any repository only
        the root itself is looked into: what lies below may be a whole disk.
        """
        files = WorkingFiles(self.root)
        if self.kind is Kind.NONE:
            return discover(files, below=False)
        listed = None if self.config.no_scm else work_tree.list_files(self.root, *PATTERNS)
        return discover(files if listed is None else ListedFiles(files, listed))


def find_project(path: Path, env: Mapping[str, str] | None = None) -> Project:
    """The project that `path` lies in, by walking up from it; `path` need not exist.

    The nearest directory that holds `.dvc` wins over any `.git`, as for DVC. `env` is the process's
    environment if not given. Raises `ConfigInvalid`.
    """
    environment = os.environ if env is None else env
    start = path.absolute()
    above = [directory for directory in (start, *start.parents) if is_directory(directory)]
    for directory in above:
        if is_directory(directory / ".dvc"):
            config = load_config(directory / ".dvc", environment)
            return Project(directory, Kind.DVC, config, config.cache_dir or directory / ".dvc/cache")
    config = load_config(None, environment)
    cache = default_cache_dir(environment)
    for directory in above:
        # A file in submodules and in linked work trees.
        if os.path.lexists(directory / ".git"):
            return Project(directory, Kind.GIT, config, cache)
    return Project(above[0], Kind.NONE, config, cache)


def default_cache_dir(env: Mapping[str, str]) -> Path:
    """The cache for what no DVC repository holds: `$XDG_DATA_HOME/fusefs`, `~/.local/share/fusefs`."""
    data = Path(env.get("XDG_DATA_HOME", ""))
    # The XDG specification wants relative paths to be ignored.
    return (data if data.is_absolute() else home_directory(env) / ".local/share") / "fusefs"
