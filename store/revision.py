"""What a path is at a git revision: an output, something inside one, or a piece of the project.

The answer is a `Version`, to be compiled. Nothing of the working tree is read, and no lock is taken.
Callers: `fusefs.dataset`. Blocking; any thread.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from store.dvc.discovery import is_metafile, read_metafile
from store.dvc.files import join
from store.dvc.imports import Hop
from store.dvc.index import Index, TrackedOutput, find_dvc_roots, read_index
from store.dvc.metafile import Output
from store.dvc.versioned import Wanted
from store.errors import NotStored, NotTracked, ObjectMissing, StoreError
from store.git.commit import Commit
from store.git.files import GitEntry, GitFiles
from store.git.repository import Repository
from store.git.trees import Mode
from store.local_cache import LocalCache
from store.manifest import serialize_manifest
from store.oid import Oid
from store.version import GitPart, Part, Version

_NAMED_NEARBY = 3


@dataclass(frozen=True, slots=True)
class Beyond:
    """Outputs of another repository, whose remotes may have them."""

    hop: Hop
    wanted: tuple[Wanted, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """Where an imported output's content is; paths are from the output's own, empty for itself."""

    parts: tuple[Part | GitPart, ...]
    is_dir: bool
    manifests: Mapping[Oid, bytes] = field(default_factory=dict)
    caches: tuple[Path, ...] = ()
    """Where objects are besides the project's own cache."""
    warnings: tuple[str, ...] = ()
    beyond: tuple[Beyond, ...] = ()
    """The repositories that it comes from, where not all of it is in a cache."""


Find = Callable[[Output, str, str], Found | None]
"""Finds the content of an output, of the DVC repository at a root, of a metafile's path from there. None
where it is to be had like any other's. Raises `StoreError` for what cannot be found."""


def find_nowhere(output: Output, root: str, metafile: str) -> None:
    """The `Find` of who does not ask where imports came from."""


Bring = Callable[[str, Sequence[TrackedOutput]], Mapping[Oid, StoreError]]
"""Sees to it that the manifests of outputs are here, of the DVC repository at a root; tells of those that
cannot be had, and why."""


def bring_nothing(_: str, __: Sequence[TrackedOutput]) -> Mapping[Oid, StoreError]:
    """The `Bring` of who does not need the manifests: what a version is does not depend on them."""
    return {}


CacheOf = Callable[[str], Path | None]
"""The cache of a DVC repository within the repository, by its root; None where it has none of its own."""


def _no_cache(_: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Located:
    """What a target is, and what has to be said of it: a line for each thing that is left out."""

    version: Version
    warnings: tuple[str, ...] = ()
    manifests: Mapping[Oid, bytes] = field(default_factory=dict)
    """Manifests that the metafiles themselves tell (remotes with versioned objects)."""
    caches: tuple[Path, ...] = ()
    """Where objects of imports and of DVC repositories within are, besides the project's own cache."""
    wanted: tuple[Wanted, ...] = ()
    """The outputs that it is made of, for the remotes that have them."""
    beyond: tuple[Beyond, ...] = ()
    """And those that were imported."""


@dataclass(frozen=True, slots=True)
class _Composition:
    """Outputs, each at its place, as they come together."""

    parts: list[Part | GitPart] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    manifests: dict[Oid, bytes] = field(default_factory=dict)
    caches: list[Path] = field(default_factory=list)
    beyond: list[Beyond] = field(default_factory=list)

    def add(self, output: Output, place: str, where: str, found: Found | None) -> None:
        if found is None:
            self.parts.append(_part(output, place, where))
            self.manifests.update(told_manifests([output]))
            return
        self.parts.extend(replace(part, path=join(place, part.path)) for part in found.parts)
        self.warnings.extend(found.warnings)
        self.manifests.update(found.manifests)
        self.caches.extend(found.caches)
        self.beyond.extend(found.beyond)

    def located(self, inside: str = "") -> Located:
        version = Version(tuple(self.parts), inside)
        caches = tuple(dict.fromkeys(self.caches))
        return Located(version, tuple(self.warnings), self.manifests, caches, beyond=tuple(self.beyond))


def compose_outputs(
    outputs: Sequence[Output], where: str, find: Callable[[Output], Found | None], inside: str = ""
) -> Located:
    """As `place_outputs`, with the content of imports where `find` finds it. Raises what that raises."""
    composition = _Composition()
    for output in outputs:
        found = find(output)
        is_dir = found.is_dir if found is not None else output.oid is not None and output.oid.is_tree
        path = output.path
        if len(outputs) == 1:
            path = "" if is_dir else path.rpartition("/")[2]
        elif path.startswith("../"):
            raise NotStored(f"{where}: {path!r} lies outside its directory; mount that output by its path")
        composition.add(output, path, where, found)
    return composition.located(inside)


def place_outputs(outputs: Sequence[Output], where: str) -> tuple[Part, ...]:
    """Where the outputs of a metafile stand: a lone directory is the root, a lone file its name.

    Several have their paths. Raises `NotStored` for an output without a hash, and for one outside of
    its directory.
    """
    parts = compose_outputs(outputs, where, lambda _: None).version.parts
    return tuple(part for part in parts if isinstance(part, Part))


def told_manifests(outputs: Iterable[Output]) -> dict[Oid, bytes]:
    """The manifests of outputs whose files the metafile lists."""
    return {
        output.oid: serialize_manifest((entry.relpath, entry.md5) for entry in output.entries)
        for output in outputs
        if output.oid is not None and output.entries
    }


def locate(
    repository: Repository,
    commit: Commit,
    path: str,
    where: str,
    bring: Bring = bring_nothing,
    find: Find = find_nowhere,
    cache_of: CacheOf = _no_cache,
) -> Located:
    """What `path` (from the repository's root; empty for all of it) is at a commit.

    A directory that is no output is shown with what git tracks in it and the outputs below; those whose
    manifest cannot be had (`bring`) are left out, with a warning, and so are imports that cannot be
    followed. `find` tells where imports have their content, `cache_of` which cache a DVC repository within
    the repository has of its own. `where` is the target, for messages. Raises
    `NotTracked`, `NotStored`, `MetafileInvalid`, and what reading the repository and `find` raise.
    """
    files = GitFiles(repository, commit)
    entry = files.find(path)
    if entry is not None and entry.mode is not Mode.TREE and is_metafile(entry.name.decode(errors="replace")):
        return _locate_metafile(files, path, where, find, cache_of)
    index, found = _find_output(files, path)
    if found is not None:
        tracked, inside = found
        _check_stored(tracked.output, where)
        root = dvc_root(files, path)
        located = compose_outputs(
            [tracked.output], where, lambda output: find(output, root, tracked.metafile), inside
        )
        wanted = (Wanted(root, tracked.path, tracked.output),)
        return _with_cache(replace(located, wanted=wanted), cache_of(root))
    if entry is None and not index.below(path):
        raise NotTracked(_describe(where, commit, path, index))
    if entry is not None and entry.mode is not Mode.TREE:
        part = GitPart(path.rpartition("/")[2], repository.git_dir, commit.oid, path, entry.oid)
        return Located(Version((part,)))
    return _locate_directory(files, path, entry.oid if entry else "", bring, find, cache_of)


def _with_cache(located: Located, cache: Path | None) -> Located:
    return located if cache is None else replace(located, caches=(cache, *located.caches))


def _locate_metafile(files: GitFiles, path: str, where: str, find: Find, cache_of: CacheOf) -> Located:
    metafile = read_metafile(files, path, where)
    outputs = [output for output in (metafile.outputs if metafile else ()) if output.cached]
    outputs = [output for output in outputs if output.oid or output.is_partial_import]
    if metafile is None or not outputs:
        raise NotStored(f"{where} names nothing that a cache could have")
    root = dvc_root(files, posixpath.dirname(path))
    below = path[len(root) + 1 :] if root else path
    metafile = replace(metafile, path=below)
    located = compose_outputs(outputs, where, lambda output: find(output, root, below))
    located = replace(
        located,
        warnings=(*metafile.faults, *located.warnings),
        wanted=tuple(Wanted(root, metafile.output_path(output), output) for output in outputs),
    )
    return _with_cache(located, cache_of(root))


def _find_output(files: GitFiles, path: str) -> tuple[Index, tuple[TrackedOutput, str] | None]:
    """The index around `path`, with full paths, and the output that `path` is or lies in."""
    root = dvc_root(files, path)
    index = read_index(files, root=root)
    if not root:
        return index, index.find(path)
    below = "" if path == root else path[len(root) + 1 :]
    return index, index.find(below) if below else None


def dvc_root(files: GitFiles, path: str) -> str:
    """The DVC repository that a path belongs to; empty for the root, also where there is none."""
    root = path
    while root and not files.exists(posixpath.join(root, ".dvc")):
        root = root.rpartition("/")[0]
    return root


def _locate_directory(
    files: GitFiles,
    path: str,
    tree: str,
    bring: Bring,
    find: Find,
    cache_of: CacheOf,
) -> Located:
    """What git tracks below `path`, and the outputs below it of every DVC repository there is."""
    composition = _Composition()
    placed: list[tuple[str, Wanted, Found | None]] = []
    prefix = f"{path}/" if path else ""
    for root in find_dvc_roots(files) or ("",):
        index = read_index(files, root=root)
        composition.warnings.extend(broken.message for broken in index.broken)
        own = cache_of(root)
        caches = [LocalCache(own)] if own is not None else []
        composition.caches.extend(cache.root for cache in caches)
        shown: list[tuple[TrackedOutput, Found | StoreError | None]] = []
        for tracked in index.outputs:
            full = posixpath.join(root, tracked.path)
            if not full.startswith(prefix) or not tracked.output.cached:  # git has what is not cached
                continue
            try:
                shown.append((tracked, find(tracked.output, root, tracked.metafile)))
            except StoreError as error:
                shown.append((tracked, error))
        needed = [tracked for tracked, found in shown if found is None and _needs_manifest(tracked.output)]
        absent = bring(root, [one for one in needed if not any(_has(cache, one) for cache in caches)])
        for tracked, found in shown:
            full, output = posixpath.join(root, tracked.path), tracked.output
            if found is None and output.oid is None:
                found = NotStored("it has no hash: it was never made or downloaded")
            if found is None and output.oid is not None:
                found = absent.get(output.oid)
            if isinstance(found, StoreError):
                composition.warnings.append(f"{full!r} is left out: {found}")
            else:
                placed.append((full[len(prefix) :], Wanted(root, tracked.path, output), found))
        for cache in caches:
            cache.close()
    if tree:
        composition.parts.append(GitPart("", files.repository.git_dir, files.commit.oid, path, tree))
    # An inner output before the one around it.
    for place, wanted, found in sorted(placed, key=lambda item: item[0].count("/"), reverse=True):
        composition.add(wanted.output, place, place, found)
    return replace(composition.located(), wanted=tuple(wanted for _, wanted, _ in placed))


def _needs_manifest(output: Output) -> bool:
    return output.oid is not None and output.oid.is_tree and not output.entries


def _has(cache: LocalCache, tracked: TrackedOutput) -> bool:
    return tracked.output.oid is not None and cache.has(tracked.output.oid)


def _check_stored(output: Output, where: str) -> None:
    if not output.cached:
        raise NotStored(
            f"{where}: kept in git (cache: false), not in the cache; mount the directory around it"
        )


def _part(output: Output, path: str, where: str) -> Part:
    if output.oid is None:
        raise NotStored(f"{where}: {output.path!r} has no hash: it was never made or downloaded")
    return Part(path, output.oid, None if output.oid.is_tree else output.size, output.isexec)


def _describe(where: str, commit: Commit, path: str, index: Index) -> str:
    """One line: what is not tracked, and what is."""
    message = f"{where}: nothing is tracked at {path!r} in commit {commit.oid[:10]}"
    names = [tracked.path for tracked in index.outputs]
    if names:
        named = ", ".join(repr(name) for name in names[:_NAMED_NEARBY])
        more = f" and {len(names) - _NAMED_NEARBY} more" if len(names) > _NAMED_NEARBY else ""
        message += f"; tracked are {named}{more}"
    if index.broken:
        message += f"; not everything could be read: {index.broken[0].message}"
    return message


@dataclass(frozen=True, slots=True)
class RevisionMaterials:
    """`store.version.Materials` from caches, from metafiles, from remotes, and from a repository."""

    caches: Sequence[LocalCache]
    manifests: Mapping[Oid, bytes] = field(default_factory=dict)
    repository: Repository | None = None
    bring: Callable[[Oid], bytes] | None = None
    """Fetches a manifest that no cache has; None where nothing can be asked."""

    def read_manifest(self, oid: Oid) -> bytes:
        told = self.manifests.get(oid)
        if told is not None:
            return told
        missing = None
        for cache in self.caches:
            try:
                return cache.read(oid)
            except ObjectMissing as error:
                missing = missing or error
        if self.bring is not None:
            return self.bring(oid)
        raise ObjectMissing(f"{missing or f'manifest {oid} is in no cache'}; `dvc fetch` would bring it")

    def list_git(self, part: GitPart) -> Iterable[GitEntry]:
        if self.repository is None or self.repository.git_dir != part.git_dir:
            with Repository.open(part.git_dir) as other:
                return list(GitFiles(other, other.commit(part.commit)).entries(part.source))
        return GitFiles(self.repository, self.repository.commit(part.commit)).entries(part.source)
