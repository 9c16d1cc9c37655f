"""Which remotes a dataset has, and what is asked of them while it is opened: manifests that no cache has.

Callers: `fusefs.dataset` and its rooms. Blocking; one thread.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from fusefs.dataset_model import Request
from fusefs.logs import escape
from fusefs.place import Place
from fusefs.remote_homes import RemoteHomes
from store.dvc.files import Files
from store.dvc.imports import Hop
from store.dvc.index import TrackedOutput
from store.dvc.project import Project, find_project
from store.dvc.remotes import RemoteHome, add_remote, push_remote, settle_remotes
from store.dvc.versioned import Wanted
from store.errors import InputError, ObjectMissing, StoreError
from store.local_cache import LocalCache
from store.oid import Oid
from store.ownership import SHARED_DIRECTORY_MODE, make_root
from store.remote_manifests import RemoteManifests
from store.remotes.spec import RemoteSpec
from store.revision import Located
from store.version import Part

HomeOf = Callable[[str], RemoteHome]
"""The configuration of the DVC repository at a root within the repository. Raises `ConfigInvalid`."""


class DatasetRemotes:
    """The remotes of one dataset while it is opened; to be used in `with`.

    `cache` is the dataset's own, into which manifests are brought.
    """

    def __init__(self, request: Request, cache: Path) -> None:
        self._warnings: dict[str, None] = {}
        self.push_remotes: dict[str, RemoteSpec] = {}
        """As `Dataset.push_remotes`; known when all is settled."""
        self.brought: dict[Oid, bytes] = {}
        """Manifests that the cache could not take."""
        self._request = request
        self._cache = LocalCache(cache)
        self._all = RemoteHomes(trust=request.trust)
        self._manifests = RemoteManifests(
            cache, offline=request.offline, tell=_tell if request.speaks else None
        )
        self._homes: dict[tuple[str, ...], RemoteHome] = {}
        self._root: Path | None = None
        """In the project whose cache it is."""
        self._home_of: HomeOf = lambda _: self._all.of_nobody()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, StoreError) and self._request.speaks:
            for warning in self.warnings:
                _tell(f"warning: {warning}")
        self._manifests.close()
        self._cache.close()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What has to be said of remotes that are left out."""
        return tuple(self._warnings)

    def of_project(self, project: Project) -> None:
        """The remotes are those of a working tree."""
        self._root = project.root
        home = self._all.of_project(project)
        self._home_of = lambda _: home

    def of_revision(self, place: Place, files: Files, rev: str) -> None:
        """The remotes are those of a revision, then those of today."""
        self._root = place.repository.work_tree if place.clone is None else None
        self._home_of = lambda root: self._all.of_place(place, files, rev, root)

    def settle(self, located: Located) -> tuple[RemoteSpec, ...]:
        """The remotes of what was located, its own before those of what it imports.

        Raises `InputError` for what the user chose and cannot be used.
        """
        remotes: list[RemoteSpec] = []
        refusals: list[InputError] = []
        roots = dict.fromkeys(one.root for one in located.wanted) or ([] if located.beyond else [""])
        works = [(self._home(root), [w for w in located.wanted if w.root == root]) for root in roots]
        if works:
            self._find_push_remotes(*works[0])
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
        manifests = _manifests(located)
        return tuple(replace(spec, manifests=manifests) for spec in remotes)

    def _find_push_remotes(self, home: RemoteHome, wanted: Sequence[Wanted]) -> None:
        """Raises `InputError` for what the user chose and cannot be used."""
        for name in {"", *(one.output.remote for one in wanted), self._request.push_to}:
            try:
                spec = push_remote(home, name, self._all.own)
            except InputError:
                if name and name == self._request.push_to:
                    raise
                continue
            if spec is not None:
                self.push_remotes[name] = spec

    def bring(self, root: str, outputs: Sequence[TrackedOutput]) -> Mapping[Oid, StoreError]:
        """As `store.revision.Bring`."""
        return self._bring_outputs(lambda: self._home(root), root, outputs)

    def bring_beyond(self, hop: Hop, root: str, outputs: Sequence[TrackedOutput]) -> Mapping[Oid, StoreError]:
        """As `store.imported.ImportRemotes`."""
        return self._bring_outputs(lambda: self._home_beyond(hop, root), root, outputs)

    def read(self, oid: Oid, specs: Sequence[RemoteSpec]) -> bytes:
        """A manifest that no cache has. Raises `ObjectMissing`, `Offline`, `RemoteError`."""
        if not specs:
            raise _missing(oid)
        return self._manifests.bring_one(oid, specs)

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
            return {oid: _missing(oid) for oid in oids}
        failures: dict[Oid, StoreError] = {}
        for oid, found in self._manifests.bring(oids, specs).items():
            if isinstance(found, StoreError):
                failures[oid] = found
            elif not self._cache.has(oid):
                self.brought[oid] = found
        return failures

    def _settle(self, home: RemoteHome, wanted: Sequence[Wanted]) -> tuple[RemoteSpec, ...]:
        settled = settle_remotes(home, wanted, self._all.own, self._request.remotes)
        self._warnings.update(dict.fromkeys((*self._all.warnings, *settled.warnings)))
        if settled.remotes:
            self._make_shared_cache()
        return settled.remotes

    def _make_shared_cache(self) -> None:
        """Make a cache that is not there yet, where it is to be shared with the group: whoever brings things
        into it goes by its mode."""
        if self._root is not None and not self._cache.root.exists():
            with contextlib.suppress(StoreError, OSError):  # who needs the cache will say what is wrong
                if find_project(self._root).config.cache_shared_group:
                    make_root(self._cache.root, SHARED_DIRECTORY_MODE, shared_with_group=True)

    def _home(self, root: str) -> RemoteHome:
        if (root,) not in self._homes:
            self._homes[root,] = self._home_of(root)
        return self._homes[root,]

    def _home_beyond(self, hop: Hop, root: str) -> RemoteHome:
        key = (hop.location.url, hop.commit, root)
        if key not in self._homes:
            top = hop.location.local
            owned = [top] if top is not None else None
            self._homes[key] = self._all.of_revision(hop.files, hop.commit[:10], root, top, owned)
        return self._homes[key]


def _missing(oid: Oid) -> ObjectMissing:
    return ObjectMissing(f"its manifest {oid} is missing; `dvc fetch` brings it")


def _tell(line: str) -> None:
    print(f"fusefs: {escape(line)}", file=sys.stderr, flush=True)


def _manifests(located: Located) -> tuple[Oid, ...]:
    """Those of a version's directories."""
    wanted = [*located.wanted, *(one for beyond in located.beyond for one in beyond.wanted)]
    oids = [one.output.oid for one in wanted]
    oids += [part.oid for part in located.version.parts if isinstance(part, Part)]
    return tuple(dict.fromkeys(oid for oid in oids if oid is not None and oid.is_tree))
