"""`open_dataset`: what the user named → a compiled tree, and where its bytes are.

Called by the commands, and by `fusefs.resolve` on a daemon's behalf; never in the daemon itself:
everything that can be wrong with a target is found here and raised as one line.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fusefs.directories import cache_directory
from fusefs.place import (
    Place,
    current_directory,
    is_in_git,
    name_repository,
    open_place,
    path_below,
    split_target,
)
from store.dvc.discovery import SUFFIX
from store.dvc.project import Project, find_project
from store.dvc.target import find_target
from store.errors import InputError, NotTracked, RepositoryUnusable, RevisionUnknown
from store.git.changes import find_change
from store.git.clones import Clone, clones_directory
from store.git.files import GitFiles
from store.git.repository import Repository
from store.git.urls import parse_location
from store.import_sources import ImportSources
from store.imported import ImportFinder
from store.layouts import object_path
from store.local_cache import LocalCache
from store.manifest import manifest_oid
from store.oid import DVC_ALGORITHMS, TREE_SUFFIX, Oid
from store.prefetching import fetch_below, fetch_metafiles
from store.revision import Located, RevisionMaterials, compose_outputs, locate
from store.run_outputs import locate_run
from store.tree_cache import TreeCache
from store.version import GitPart, Part, Version, obtain_tree

_OID = re.compile(r"[0-9a-fA-F]{32}(\.dir)?")
RUN: Final = "run:"
"""Begins a target that is a logged run."""
MANIFEST_LIMIT: Final = 1 << 32
"""Bytes. A manifest of forty million files; anything larger is not one."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the user named. Empty is not given."""

    target: str
    """A `.dvc` file, a tracked path, a manifest file or an oid; with `@REV` behind, that at a revision.
    Or a logged run: `run:KEY`, `run:KEY:OUT`."""
    cache: str = ""
    """The cache directory, instead of the project's."""
    rev: str = ""
    repo: str = ""
    """Where `target` is a path: a repository's directory or URL."""


@dataclass(frozen=True, slots=True)
class Origin:
    """How other versions of a dataset are named: a repository and a path in it."""

    repo: str
    """Absolute path or URL, without secrets."""
    path: str
    """`/`-separated, from the repository's root; empty for all of it."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A resolved target."""

    target: str
    """As the user typed it."""
    oid: str
    """What it resolved to, as DVC prints it; empty for several outputs."""
    rev: str
    """The git commit that it was read from; empty where none is known."""
    tree: Path | None
    """The compiled tree; None for revisions side by side."""
    caches: tuple[Path, ...]
    """Where objects are looked for: its own cache, then those that imports came from."""
    git_dirs: tuple[Path, ...] = ()
    """Repositories that have the blobs of what git tracks in it."""
    origin: Origin | None = None
    """None for what lies in no repository."""
    warnings: tuple[str, ...] = ()

    @property
    def cache(self) -> Path:
        """Its own."""
        return self.caches[0]


def compiled_trees() -> TreeCache:
    """Where this user's compiled trees are kept."""
    return TreeCache(cache_directory() / "trees")


def open_dataset(request: Request) -> Dataset:
    """Resolve what the user named. Raises `StoreError`."""
    target = request.target
    if not target:
        raise InputError("an empty target names nothing; give a .dvc file, a tracked path or an oid")
    path = Path(target)
    if target.startswith(RUN) and not os.path.lexists(path):
        return _open_run(request)
    if request.repo:
        return _open_in_repository(request)
    if request.rev:
        return _open_revision(request, target, request.rev)
    if os.path.lexists(path):
        if path.name.endswith(TREE_SUFFIX) and path.is_file():
            return _open_manifest_file(request)
        try:
            return _open_tracked(request)
        except NotTracked:
            if "@" not in target:
                raise
            # Something stands there that is nobody's, called as a version is.
    elif _OID.fullmatch(target):
        return _open_oid(request)
    return _open_split(request)


def open_revisions(request: Request) -> Dataset:
    """All versions of a path, for a mount that shows them side by side. Raises `StoreError`."""
    if request.rev:
        raise InputError("--rev names one version and --revs many: give one of them")
    with open_place(request.target, request.repo, _chosen_cache(request)) as place:
        return Dataset(request.target, "", "", None, (place.cache,), origin=Origin(place.repo, place.path))


def list_names(repo: str, pattern: str) -> list[str]:
    """Tags and branches of a repository that match the glob, of a clone as they were seen last."""
    location = parse_location(repo, current_directory())
    if location.local is not None:
        with Repository.open(location.local) as repository:
            return repository.names(pattern)
    with Clone.open(location, clones_directory(os.environ)) as clone:
        clone.resolve("HEAD")  # which refreshes what is old
        return clone.repository.names(pattern)


def _open_oid(request: Request) -> Dataset:
    """An oid says nothing of its algorithm: DVC 3's place is tried first, then the older one."""
    local = LocalCache(_chosen_cache(request) or find_project(current_directory()).cache_dir)
    candidates = [Oid.parse(request.target, algorithm) for algorithm in DVC_ALGORITHMS]
    oid = next((oid for oid in candidates if local.has(oid)), candidates[0])
    version = Version((Part("" if oid.is_tree else str(oid), oid),))
    if not oid.is_tree:
        local.size(oid)  # a bare oid that is not there names nothing
    return _compile(request, Located(version), local)


def _open_run(request: Request) -> Dataset:
    """What a logged run left in the cache: `run:KEY`, or one output of it, `run:KEY:OUT`."""
    if request.rev:
        raise InputError(f"{request.target} is in no revision; leave --rev out")
    if request.repo:
        with open_place("", request.repo, _chosen_cache(request)) as place:
            cache = place.cache
    else:
        cache = _chosen_cache(request) or find_project(current_directory()).cache_dir
    key, _, out = request.target.removeprefix(RUN).partition(":")
    return _compile(request, locate_run(cache, key, out, request.target), LocalCache(cache))


def _open_manifest_file(request: Request) -> Dataset:
    """A manifest by its file. In a cache the file's name is its oid, and must be right."""
    path = Path(request.target).resolve()
    if path.stat().st_size > MANIFEST_LIMIT:
        raise InputError(f"{request.target} is too large to be a manifest")
    named = _object_at(path)
    if named:
        oid, home = named
        if compiled_trees().has(Version((Part("", oid),)).key):
            return _compile(request, Located(Version((Part("", oid),))), _local(request, home))
    data = _read_file(path, request.target)
    if not named:
        oid, home = manifest_oid(data), find_project(path.parent).cache_dir
    return _compile(request, Located(Version((Part("", oid),)), (), {oid: data}), _local(request, home))


def _object_at(path: Path) -> tuple[Oid, Path] | None:
    """The oid that a file's place in a cache gives it, and that cache's root."""
    named = path.parent.name + path.name
    if not _OID.fullmatch(named):
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


def _open_tracked(request: Request) -> Dataset:
    """A path of the working tree; the root of a clean one is its last commit."""
    path = Path(request.target)
    try:
        found = find_target(path)
    except NotTracked:
        if path.is_dir() and is_in_git(path):
            return _open_clean_directory(request)
        raise
    local = LocalCache(_chosen_cache(request) or found.project.cache_dir)
    metafile = os.path.relpath(found.metafile, found.project.root)
    with ImportSources(os.environ) as sources:
        finder = ImportFinder(sources, (local,), found.project.root)
        located = compose_outputs(
            found.outputs, request.target, lambda output: finder.find(output, "", metafile), found.inside
        )
    return _compile(request, located, local, origin=_origin(found.project, path))


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
    return _open_revision(request, request.target, "HEAD")


def _open_split(request: Request) -> Dataset:
    """`TARGET@REV`, split at the first `@` whose left side is tracked."""
    failure: NotTracked | RevisionUnknown | None = None
    for path, rev in split_target(request.target):
        if not is_in_git(Path(path)):
            continue
        try:
            return _open_revision(request, path, rev)
        except NotTracked as error:
            failure = failure or error
        except RevisionUnknown as error:
            # Where there is something before the sign, and no such revision, that is what is wrong.
            if _is_named(path) or not isinstance(failure, RevisionUnknown):
                failure = error
    try:
        return _open_tracked(request)
    except NotTracked:
        if failure is not None:
            raise failure from None
        raise


def _is_named(path: str) -> bool:
    """Whether there is such a path, or an output that is called so."""
    return os.path.lexists(path) or os.path.lexists(path.rstrip("/") + SUFFIX)


def _open_revision(request: Request, path: str, rev: str) -> Dataset:
    """A path of the repository around it, at a revision."""
    with open_place(path, cache=_chosen_cache(request)) as place:
        return _open_at(request, place, rev)


def _open_in_repository(request: Request) -> Dataset:
    """`--repo`: the target is a path from the root of another repository."""
    path, rev = request.target, request.rev
    if not rev and "@" in path:
        path, _, rev = path.rpartition("@")
    with open_place(path, request.repo, _chosen_cache(request)) as place:
        return _open_at(request, place, rev or "HEAD")


def _open_at(request: Request, place: Place, rev: str) -> Dataset:
    commit, notice = place.resolve(rev)
    local = LocalCache(place.cache)
    materials = RevisionMaterials((local,), repository=place.repository)
    files = GitFiles(place.repository, commit)
    if place.clone is not None:
        fetch_metafiles(files)
    home = None if place.clone is not None else Path(place.repo)
    with ImportSources(os.environ) as sources:
        find = ImportFinder(sources, (local,), home).find
        has = materials.has_manifest
        located = locate(place.repository, commit, place.path, request.target, has, find, place.cache_of)
    if place.clone is not None:
        for part in located.version.parts:
            if isinstance(part, GitPart) and part.git_dir == place.repository.git_dir:
                fetch_below(files, part.source)
    if notice is not None:
        located = replace(located, warnings=(*located.warnings, notice))
    origin = Origin(place.repo, place.path)
    return _compile(request, located, local, repository=place.repository, rev=commit.oid, origin=origin)


def _compile(
    request: Request,
    located: Located,
    local: LocalCache,
    *,
    repository: Repository | None = None,
    rev: str = "",
    origin: Origin | None = None,
) -> Dataset:
    parts = located.version.parts
    caches = (local, *[LocalCache(cache) for cache in located.caches if cache != local.root])
    materials = RevisionMaterials(caches, located.manifests, repository)
    try:
        tree = obtain_tree(located.version, materials, compiled_trees(), request.target)
    finally:
        for cache in caches:
            cache.close()
    only = parts[0] if len(parts) == 1 else None
    return Dataset(
        target=request.target,
        oid=str(only.oid) if isinstance(only, Part) else "",
        rev=rev,
        tree=tree,
        caches=tuple(cache.root for cache in caches),
        git_dirs=tuple(dict.fromkeys(part.git_dir for part in parts if isinstance(part, GitPart))),
        origin=origin,
        warnings=located.warnings,
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


def _local(request: Request, home: Path) -> LocalCache:
    return LocalCache(_chosen_cache(request) or home)


def _chosen_cache(request: Request) -> Path | None:
    return Path(request.cache).resolve() if request.cache else None
