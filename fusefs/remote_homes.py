"""Whose configuration says where a repository's objects are, and how far it is trusted.

Callers: `fusefs.dataset_remotes`, the command `config`. Blocking.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fusefs.place import Place
from store.dvc.config import Config, load_config, load_config_at
from store.dvc.files import Files, is_directory
from store.dvc.project import Project, are_own, shares_local
from store.dvc.remotes import RemoteHome, named_destinations
from store.dvc.trust import Standing
from store.errors import ConfigInvalid


class RemoteHomes:
    """Makes `RemoteHome`s. `trust` says that each repository counts like one's own.

    Raises `ConfigInvalid` where the user's own configuration cannot be read.
    """

    def __init__(self, *, trust: bool = False) -> None:
        self.own = load_config(None, os.environ)
        """The user's own configuration, that of no repository."""
        self.warnings: list[str] = []
        """What has to be said of configurations that cannot be read."""
        self._trust = trust
        self._named = named_destinations(self.own)

    def of_nobody(self) -> RemoteHome:
        """What no repository configures."""
        return self._home((self.own,), own=False)

    def of_project(self, project: Project) -> RemoteHome:
        """A working tree, as it is configured now."""
        return self._home((project.config,), own=project.is_own, root=project.root)

    def of_place(self, place: Place, files: Files, rev: str, root: str) -> RemoteHome:
        """The DVC repository at `root` of a revision: then, and today."""
        if place.clone is not None:
            return self.of_revision(files, rev, root, None, None)
        top = place.repository.work_tree
        return self.of_revision(files, rev, root, top, [place.repository.git_dir])

    def of_revision(
        self, files: Files, rev: str, root: str, top: Path | None, owned: Sequence[Path] | None
    ) -> RemoteHome:
        """The DVC repository at `root` of the revision `rev`, whose files are `files`.

        `top` is its work tree of today, `owned` what tells whose it is; None for what is not on this machine.
        """
        here = top / root / ".dvc" if top is not None and is_directory(top / root / ".dvc") else None
        today = self.own
        try:
            today = load_config(here, os.environ) if here is not None else self.own
            then = load_config_at(files, rev, here, os.environ, root=root)
        except ConfigInvalid as error:
            self.warnings.append(f"{error}; the remotes in it are not asked")
            then = today
        own = owned is not None and are_own([*owned, *(_judged(here) if here is not None else ())])
        configs = (then,) if then == today else (then, today)
        return self._home(configs, own=own, root=here.parent if here is not None else None)

    def _home(self, configs: tuple[Config, ...], *, own: bool, root: Path | None = None) -> RemoteHome:
        top = os.path.realpath(root) if root is not None else ""
        shared = root is not None and shares_local(root, configs)
        return RemoteHome(configs, Standing(own, self._trust, top, self._named, shared))


def _judged(directory: Path) -> list[Path]:
    """What in a `.dvc` directory says whose it is."""
    return [directory, *filter(os.path.lexists, (directory / "config", directory / "config.local"))]
