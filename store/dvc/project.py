"""`Project`: what a path belongs to: a DVC repository, a plain git work tree, or neither.

Callers: `store.dvc.target`, commit. Blocking; frozen results, any thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from store.dvc.config import Config, Level, home_directory, load_config
from store.dvc.discovery import PATTERNS, Broken, ListedFiles, Metafile, discover
from store.dvc.files import WorkingFiles, absolute_path, is_directory
from store.dvc.trust import COMMAND_FILES, COMMANDS
from store.errors import ConfigInvalid
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
    home_cache: Path
    """Where the cache is unless something is configured: of a DVC repository its `.dvc/cache`, else
    `default_cache_dir`, because the cache that a user may share with DVC is DVC's to clean."""

    @property
    def cache_dir(self) -> Path:
        """Absolute; it need not exist. `cache.dir` in a DVC repository, else `home_cache`.

        Raises `ConfigInvalid` for a directory that a repository of another user names outside of itself:
        root, who may go anywhere, must not be sent there. One's own configuration may name any.
        """
        if self.kind is not Kind.DVC:
            return self.home_cache
        setting = self.config.cache_setting
        directory = self.config.cache_dir or self.home_cache
        if setting and setting.level in (Level.GLOBAL, Level.SYSTEM):
            return directory
        judged = [setting.file if setting else self.root, self.root / ".dvc"]
        if not _lies_in(directory, self.root) and not are_own(judged):
            raise ConfigInvalid(
                f"{self.root} belongs to another user, and its cache {str(directory)!r} lies outside of it; "
                f"if you want that one, say so with `dvc config --global cache.dir` or --cache"
            )
        return directory

    @property
    def is_own(self) -> bool:
        """Whether a DVC repository is this user's: then its configuration is trusted as DVC trusts it."""
        files = [self.root / ".dvc" / name for name in ("config", "config.local")]
        return self.kind is Kind.DVC and are_own([self.root / ".dvc", *filter(os.path.lexists, files)])

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


def are_own(paths: Iterable[Path]) -> bool:
    """Whether all of these are this user's to write, or root's, who may do everything anyway."""
    try:
        owners = {path.lstat().st_uid for path in paths}
    except OSError:
        return False
    return owners <= {os.geteuid(), 0}


def shares_local(root: Path, configs: Iterable[Config]) -> bool:
    """Whether the `config.local` of the DVC repository at `root` may have commands run and is in git.

    Then it came with the repository, and is not what the user wrote.
    """
    told = any(
        setting.level is Level.LOCAL and option in COMMANDS | COMMAND_FILES
        for config in configs
        for section in config.remotes.values()
        for option, setting in section.items()
    )
    return told and work_tree.may_be_tracked(root / ".dvc" / "config.local")


def find_project(path: Path, env: Mapping[str, str] | None = None) -> Project:
    """The project that `path` lies in, by walking up from it; `path` need not exist.

    The nearest directory that holds `.dvc` wins over any `.git`, as for DVC. `env` is the process's
    environment if not given. Raises `ConfigInvalid`, and `InputError` as `absolute_path` does.
    """
    environment = os.environ if env is None else env
    start = absolute_path(path)
    above = [directory for directory in (start, *start.parents) if is_directory(directory)]
    for directory in above:
        if is_directory(directory / ".dvc"):
            config = load_config(directory / ".dvc", environment)
            return Project(directory, Kind.DVC, config, directory / ".dvc/cache")
    config = load_config(None, environment)
    cache = default_cache_dir(environment)
    for directory in above:
        # A file in submodules and in linked work trees.
        if os.path.lexists(directory / ".git"):
            return Project(directory, Kind.GIT, config, cache)
    return Project(above[0], Kind.NONE, config, cache)


def _lies_in(path: Path, directory: Path) -> bool:
    """Whether `path` leads to something in `directory`, links followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))


def default_cache_dir(env: Mapping[str, str]) -> Path:
    """The cache for what no DVC repository holds: `$XDG_DATA_HOME/fusefs`, `~/.local/share/fusefs`."""
    data = Path(env.get("XDG_DATA_HOME", ""))
    # The XDG specification wants relative paths to be ignored.
    return (data if data.is_absolute() else home_directory(env) / ".local/share") / "fusefs"
