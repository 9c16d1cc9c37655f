"""Which remotes a dataset has, and what is asked of them while it is opened: manifests that no cache has.

Callers: `fusefs.dataset` and its rooms. Blocking; one thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from fusefs.dataset_model import Request
from fusefs.logs import escape
from fusefs.place import Place
from store.dvc.config import Config, load_config, load_config_at
from store.dvc.files import Files, is_directory
from store.dvc.imports import Hop
from store.dvc.index import TrackedOutput
from store.dvc.project import Project, are_own
from store.dvc.remotes import RemoteHome, add_remote, named_destinations, settle_remotes
from store.dvc.trust import Standing
from store.dvc.versioned import Wanted
from store.errors import ConfigInvalid, InputError, ObjectMissing, StoreError
from store.local_cache import LocalCache
from store.oid import Oid
from store.remote_manifests import RemoteManifests
from store.remotes.spec import RemoteSpec
from store.revision import Located

HomeOf = Callable[[str], RemoteHome]
"""The configuration of the DVC repository at a root within the repository. Raises `ConfigInvalid`."""


class DatasetRemotes:
    """The remotes of one dataset while it is opened; to be used in `with`.

    `cache` is the dataset's own, into which manifests are brought.
    """

    def __init__(self, request: Request, cache: Path) -> None:
        self.warnings: list[str] = []
        """What has to be said of remotes that are left out."""
        self.brought: dict[Oid, bytes] = {}
        """Manifests that the cache could not take."""
        self._request = request
        self._cache = LocalCache(cache)
        self._own = load_config(None, os.environ)
        self._named = named_destinations(self._own)
        self._manifests = RemoteManifests(cache, offline=request.offline, tell=_tell)
        self._homes: dict[tuple[str, ...], RemoteHome] = {}
        self._home_of: HomeOf = lambda _: self.home((self._own,), own=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._manifests.close()
        self._cache.close()

    def home(self, configs: tuple[Config, ...], *, own: bool, root: Path | None = None) -> RemoteHome:
        """A repository with these configurations; `root` is its directory on this machine."""
        top = os.path.realpath(root) if root is not None else ""
        return RemoteHome(configs, Standing(own, self._request.trust, top, self._named))

    def of_project(self, project: Project) -> None:
        """The remotes are those of a working tree."""
        home = self.home((project.config,), own=project.is_own, root=project.root)
        self._home_of = lambda _: home

    def of_revision(self, place: Place, files: Files, rev: str) -> None:
        """The remotes are those of a revision, then those of today."""
        top = None if place.clone is not None else place.repository.work_tree
        owned = None if place.clone is not None else [place.repository.git_dir]
        self._home_of = lambda root: self._home_at(files, rev, root, top, owned)

    def settle(self, located: Located) -> tuple[RemoteSpec, ...]:
        """The remotes of what was located, its own before those of what it imports.

        Raises `InputError` for what the user chose and cannot be used.
        """
        remotes: list[RemoteSpec] = []
        refusals: list[InputError] = []
        roots = dict.fromkeys(one.root for one in located.wanted) or ([] if located.beyond else [""])
        works = [(self._home(root), [w for w in located.wanted if w.root == root]) for root in roots]
        for beyond in located.beyond:
            roots = dict.fromkeys(one.root for one in beyond.wanted)
            works += [
                (self._home_beyond(beyond.hop, root), [w for w in beyond.wanted if w.root == root])
                for root in roots
            ]
        for home, wanted in works:
            try:
                for spec in self._settle(home, wanted):
                    add_remote(remotes, spec)
            except InputError as error:
                refusals.append(error)
        # What the user chose must be there for one of them, not for all.
        if refusals and len(refusals) == len(works):
            raise refusals[0]
        return tuple(remotes)

    def bring(self, root: str, outputs: Sequence[TrackedOutput]) -> Mapping[Oid, StoreError]:
        """As `store.revision.Bring`."""
        return self._bring_outputs(lambda: self._home(root), root, outputs)

    def bring_beyond(self, hop: Hop, root: str, outputs: Sequence[TrackedOutput]) -> Mapping[Oid, StoreError]:
        """As `store.imported.ImportRemotes`."""
        return self._bring_outputs(lambda: self._home_beyond(hop, root), root, outputs)

    def read(self, oid: Oid, specs: Sequence[RemoteSpec]) -> bytes:
        """A manifest that no cache has. Raises `ObjectMissing`, `Offline`, `RemoteError`."""
        failure = self._bring([oid], specs).get(oid)
        if failure is not None:
            raise failure
        return self.brought.pop(oid, b"") or self._cache.read(oid)

    def find(self, candidates: Sequence[Oid], specs: Sequence[RemoteSpec]) -> Oid | None:
        """The first of these objects that a remote has; None for none. Raises `Offline`, `RemoteError`."""
        return self._manifests.find(candidates, specs) if specs else None

    def _bring_outputs(
        self, home: Callable[[], RemoteHome], root: str, outputs: Sequence[TrackedOutput]
    ) -> Mapping[Oid, StoreError]:
        oids = {one.output.oid: one for one in outputs if one.output.oid is not None}
        missing = {oid: one for oid, one in oids.items() if not self._cache.has(oid)}
        if not missing:
            return {}
        wanted = [Wanted(root, one.path, one.output) for one in missing.values()]
        try:
            specs = self._settle(home(), wanted)
        except InputError as error:
            return dict.fromkeys(missing, error)
        return self._bring(list(missing), specs)

    def _bring(self, oids: Sequence[Oid], specs: Sequence[RemoteSpec]) -> dict[Oid, StoreError]:
        if not specs:
            return {
                oid: ObjectMissing(f"its manifest {oid} is missing; `dvc fetch` brings it") for oid in oids
            }
        failures: dict[Oid, StoreError] = {}
        for oid, found in self._manifests.bring(oids, specs).items():
            if isinstance(found, StoreError):
                failures[oid] = found
            elif not self._cache.has(oid):
                self.brought[oid] = found
        return failures

    def _settle(self, home: RemoteHome, wanted: Sequence[Wanted]) -> tuple[RemoteSpec, ...]:
        settled = settle_remotes(home, wanted, self._own, self._request.remotes)
        self.warnings.extend(line for line in settled.warnings if line not in self.warnings)
        return settled.remotes

    def _home(self, root: str) -> RemoteHome:
        if (root,) not in self._homes:
            self._homes[root,] = self._home_of(root)
        return self._homes[root,]

    def _home_beyond(self, hop: Hop, root: str) -> RemoteHome:
        key = (hop.location.url, hop.commit, root)
        if key not in self._homes:
            top = hop.location.local
            owned = [top] if top is not None else None
            self._homes[key] = self._home_at(hop.files, hop.commit[:10], root, top, owned)
        return self._homes[key]

    def _home_at(
        self, files: Files, rev: str, root: str, top: Path | None, owned: Sequence[Path] | None
    ) -> RemoteHome:
        """The DVC repository at `root` of a revision. `top` is the work tree of today, `owned` what tells
        whose the repository is; None for what is not on this machine."""
        here = top / root / ".dvc" if top is not None and is_directory(top / root / ".dvc") else None
        today = self._own
        try:
            today = load_config(here, os.environ) if here is not None else self._own
            then = load_config_at(files, rev, here, os.environ, root=root)
        except ConfigInvalid as error:
            self.warnings.append(f"{error}; the remotes in it are not asked")
            then = today
        own = owned is not None and are_own([*owned, *(_judged(here) if here is not None else ())])
        configs = (then,) if then == today else (then, today)
        return self.home(configs, own=own, root=here.parent if here is not None else None)


def _judged(directory: Path) -> list[Path]:
    """What in a `.dvc` directory says whose it is."""
    return [directory, *filter(os.path.lexists, (directory / "config", directory / "config.local"))]


def _tell(line: str) -> None:
    print(f"fusefs: {escape(line)}", file=sys.stderr, flush=True)
