"""Targets that name content: an oid, a manifest's file, a logged run.

Callers: `fusefs.dataset`. Blocking.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from fusefs.dataset_model import Dataset, Request, chosen_cache, compiled_trees
from fusefs.dataset_remotes import DatasetRemotes
from fusefs.dataset_tree import compile_dataset
from fusefs.place import current_directory, open_place
from store.dvc.project import find_project
from store.errors import InputError
from store.git.files import GitFiles
from store.layouts import object_path
from store.local_cache import LocalCache
from store.manifest import manifest_oid
from store.oid import DVC_ALGORITHMS, Oid
from store.revision import Located
from store.run_outputs import locate_run
from store.version import Part, Version

OID: Final = re.compile(r"[0-9a-fA-F]{32}(\.dir)?")
RUN: Final = "run:"
"""Begins a target that is a logged run."""
MANIFEST_LIMIT: Final = 1 << 32
"""Bytes. A manifest of forty million files; anything larger is not one."""


def open_oid(request: Request) -> Dataset:
    """An oid says nothing of its algorithm: DVC 3's place is tried first, then the older one.

    What the cache does not have is looked for on the remotes: of the project around us, or those chosen.
    """
    project = find_project(current_directory())
    local = LocalCache(chosen_cache(request) or project.cache_dir)
    candidates = [Oid.parse(request.target, algorithm) for algorithm in DVC_ALGORITHMS]
    with DatasetRemotes(request, local.root) as remotes:
        remotes.of_project(project)
        oid = next((oid for oid in candidates if local.has(oid)), None)
        if oid is None:
            specs = remotes.settle(Located(Version(())))
            oid = remotes.find(candidates, specs) or candidates[0]
            if not oid.is_tree and not specs:
                local.size(oid)  # a bare oid that is not there names nothing
        return compile_dataset(request, Located(_version(oid)), local, remotes)


def open_run(request: Request) -> Dataset:
    """What a logged run left in the cache: `run:KEY`, or one output of it, `run:KEY:OUT`."""
    if request.rev:
        raise InputError(f"{request.target} is in no revision; leave --rev out")
    if request.repo:
        with (
            open_place("", request.repo, chosen_cache(request), offline=request.offline) as place,
            DatasetRemotes(request, place.cache) as remotes,
        ):
            if place.clone is None:
                remotes.of_project(find_project(Path(place.repo)))
            else:
                files = GitFiles(place.repository, place.resolve("HEAD")[0])
                remotes.of_revision(place, files, "HEAD")
            return _compile_run(request, place.cache, remotes)
    project = find_project(current_directory())
    cache = chosen_cache(request) or project.cache_dir
    with DatasetRemotes(request, cache) as remotes:
        remotes.of_project(project)
        return _compile_run(request, cache, remotes)


def _compile_run(request: Request, cache: Path, remotes: DatasetRemotes) -> Dataset:
    key, _, out = request.target.removeprefix(RUN).partition(":")
    return compile_dataset(request, locate_run(cache, key, out, request.target), LocalCache(cache), remotes)


def open_manifest_file(request: Request) -> Dataset:
    """A manifest by its file. In a cache the file's name is its oid, and must be right."""
    path = Path(request.target).resolve()
    if path.stat().st_size > MANIFEST_LIMIT:
        raise InputError(f"{request.target} is too large to be a manifest")
    project = find_project(path.parent)
    named = _object_at(path)
    oid, home = named or (None, project.cache_dir)
    manifests = {}
    if oid is None or not compiled_trees().has(_version(oid).key):
        data = _read_file(path, request.target)
        oid = oid or manifest_oid(data)
        manifests[oid] = data
    local = LocalCache(chosen_cache(request) or home)
    with DatasetRemotes(request, local.root) as remotes:
        remotes.of_project(project)
        return compile_dataset(request, Located(_version(oid), (), manifests), local, remotes)


def _version(oid: Oid) -> Version:
    return Version((Part("" if oid.is_tree else str(oid), oid),))


def _object_at(path: Path) -> tuple[Oid, Path] | None:
    """The oid that a file's place in a cache gives it, and that cache's root."""
    named = path.parent.name + path.name
    if not OID.fullmatch(named):
        return None
    for algorithm in DVC_ALGORITHMS:
        oid = Oid.parse(named, algorithm)
        place = "/" + object_path(oid)
        if path.as_posix().endswith(place):
            return oid, Path(path.as_posix().removesuffix(place) or "/")
    return None


def _read_file(path: Path, target: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{target} cannot be read: {error.strerror}") from None
