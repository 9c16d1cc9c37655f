"""What a path is at a git revision: an output, something inside one, or a piece of the project.

The answer is a `Version`, to be compiled. Nothing of the working tree is read, and no lock is taken.
Callers: `fusefs.dataset`. Blocking; any thread.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from store.dvc.discovery import is_metafile, read_metafile
from store.dvc.index import Index, TrackedOutput, find_dvc_roots, read_index
from store.dvc.metafile import Output
from store.errors import NotStored, NotTracked, ObjectMissing
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
class Located:
    """What a target is, and what has to be said of it: a line for each thing that is left out."""

    version: Version
    warnings: tuple[str, ...] = ()
    manifests: Mapping[Oid, bytes] = field(default_factory=dict)
    """Manifests that the metafiles themselves tell (remotes with versioned objects)."""


def place_outputs(outputs: Sequence[Output], where: str) -> tuple[Part, ...]:
    """Where the outputs of a metafile stand: a lone directory is the root, a lone file its name.

    Several have their paths. Raises `NotStored` for an output without a hash, and for one outside of
    its directory.
    """
    parts = []
    for output in outputs:
        path = output.path
        if len(outputs) == 1:
            path = "" if output.oid is not None and output.oid.is_tree else path.rpartition("/")[2]
        elif path.startswith("../"):
            raise NotStored(f"{where}: {path!r} lies outside its directory; mount that output by its path")
        parts.append(_part(output, path, where))
    return tuple(parts)


def told_manifests(outputs: Iterable[Output]) -> dict[Oid, bytes]:
    """The manifests of outputs whose files the metafile lists."""
    return {
        output.oid: serialize_manifest((entry.relpath, entry.md5) for entry in output.entries)
        for output in outputs
        if output.oid is not None and output.entries
    }


def locate(
    repository: Repository, commit: Commit, path: str, where: str, has_manifest: Callable[[Oid], bool]
) -> Located:
    """What `path` (from the repository's root; empty for all of it) is at a commit.

    A directory that is no output is shown with what git tracks in it and the outputs below; those whose
    manifest is not here (`has_manifest`) are left out, with a warning. `where` is the target, for
    messages. Raises `NotTracked`, `NotStored`, `MetafileInvalid`, and what reading the repository raises.
    """
    files = GitFiles(repository, commit)
    entry = files.find(path)
    if entry is not None and entry.mode is not Mode.TREE and is_metafile(entry.name.decode(errors="replace")):
        return _locate_metafile(files, path, where)
    index, found = _find_output(files, path)
    if found is not None:
        tracked, inside = found
        version = Version(place_outputs([_stored(tracked.output, where)], where), inside)
        return Located(version, (), told_manifests([tracked.output]))
    if entry is None and not index.below(path):
        raise NotTracked(_describe(where, commit, path, index))
    if entry is not None and entry.mode is not Mode.TREE:
        part = GitPart(path.rpartition("/")[2], repository.git_dir, commit.oid, path, entry.oid)
        return Located(Version((part,)))
    return _locate_directory(files, path, entry.oid if entry else "", has_manifest)


def _locate_metafile(files: GitFiles, path: str, where: str) -> Located:
    metafile = read_metafile(files, path, where)
    outputs = [output for output in (metafile.outputs if metafile else ()) if output.cached and output.oid]
    if not outputs:
        raise NotStored(f"{where} names nothing that a cache could have")
    faults = metafile.faults if metafile else ()
    return Located(Version(place_outputs(outputs, where)), faults, told_manifests(outputs))


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


def _locate_directory(files: GitFiles, path: str, tree: str, has_manifest: Callable[[Oid], bool]) -> Located:
    """What git tracks below `path`, and the outputs below it of every DVC repository there is."""
    warnings: list[str] = []
    placed: list[tuple[str, Output]] = []
    prefix = f"{path}/" if path else ""
    for root in find_dvc_roots(files) or ("",):
        index = read_index(files, root=root)
        warnings += [broken.message for broken in index.broken]
        for tracked in index.outputs:
            full = posixpath.join(root, tracked.path)
            if full.startswith(prefix) and _is_shown(tracked.output, full, has_manifest, warnings):
                placed.append((full[len(prefix) :], tracked.output))
    # An inner output before the one around it.
    placed.sort(key=lambda item: item[0].count("/"), reverse=True)
    git = (GitPart("", files.repository.git_dir, files.commit.oid, path, tree),) if tree else ()
    parts = tuple(_part(output, place, place) for place, output in placed)
    return Located(Version(git + parts), tuple(warnings), told_manifests(output for _, output in placed))


def _is_shown(output: Output, path: str, has_manifest: Callable[[Oid], bool], warnings: list[str]) -> bool:
    if not output.cached:
        return False  # git has it
    if output.oid is None:
        warnings.append(f"{path!r} has no hash: it was never made or downloaded; it is left out")
    elif output.oid.is_tree and not output.entries and not has_manifest(output.oid):
        warnings.append(f"{path!r} is left out: its manifest {output.oid} is missing; `dvc fetch` brings it")
    else:
        return True
    return False


def _stored(output: Output, where: str) -> Output:
    if not output.cached:
        raise NotStored(
            f"{where}: kept in git (cache: false), not in the cache; mount the directory around it"
        )
    return output


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
    """`store.version.Materials` from caches, from metafiles, and from a repository."""

    caches: Sequence[LocalCache]
    manifests: Mapping[Oid, bytes] = field(default_factory=dict)
    repository: Repository | None = None

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
        raise missing or ObjectMissing(f"manifest {oid} is in no cache")

    def has_manifest(self, oid: Oid) -> bool:
        return any(cache.has(oid) for cache in self.caches)

    def list_git(self, part: GitPart) -> Iterable[GitEntry]:
        if self.repository is None or self.repository.git_dir != part.git_dir:
            with Repository.open(part.git_dir) as other:
                return list(GitFiles(other, other.commit(part.commit)).entries(part.source))
        return GitFiles(self.repository, self.repository.commit(part.commit)).entries(part.source)
