"""`open_dataset`: what the user named → a compiled tree and the cache that its bytes are in.

Called by the commands, never by the daemon: everything that can be wrong with a target is found
here and raised as one line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fusefs.directories import cache_directory
from store.dvc.metafile import Output
from store.dvc.project import find_project
from store.dvc.target import find_target
from store.errors import InputError, NotTracked
from store.layouts import object_path
from store.local_cache import LocalCache
from store.manifest import manifest_oid
from store.oid import DVC_ALGORITHMS, TREE_SUFFIX, Oid
from store.tree_cache import TreeCache
from store.version import Part, Version, obtain_tree

_OID = re.compile(r"[0-9a-fA-F]{32}(\.dir)?")
MANIFEST_LIMIT: Final = 1 << 32
"""Bytes. A manifest of forty million files; anything larger is not one."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A resolved target."""

    target: str
    """As the user typed it."""
    oid: str
    """What it resolved to, as DVC prints it; empty for several outputs."""
    rev: str
    """The git commit that it was read from; empty where none is known."""
    tree: Path
    cache: Path


def compiled_trees() -> TreeCache:
    """Where this user's compiled trees are kept."""
    return TreeCache(cache_directory() / "trees")


def open_dataset(target: str, *, cache: str = "") -> Dataset:
    """Resolve a `.dvc` file, a tracked path, a `.dir` manifest file or an oid. Raises `StoreError`.

    `cache` overrides the cache directory that the target's project has.
    """
    if not target:
        raise InputError("an empty target names nothing; give a .dvc file, a tracked path or an oid")
    path = Path(target)
    if not os.path.lexists(path):
        if _OID.fullmatch(target):
            return _open_oid(target, cache)
    elif path.name.endswith(TREE_SUFFIX) and path.is_file():
        return _open_manifest_file(target, cache)
    return _open_tracked(target, cache)


def _open_oid(target: str, cache: str) -> Dataset:
    """An oid says nothing of its algorithm: DVC 3's place is tried first, then the older one."""
    local = LocalCache(_chosen_cache(cache) or find_project(Path.cwd()).cache_dir)
    candidates = [Oid.parse(target, algorithm) for algorithm in DVC_ALGORITHMS]
    oid = next((oid for oid in candidates if local.has(oid)), candidates[0])
    version = Version((Part("" if oid.is_tree else str(oid), oid),))
    if not oid.is_tree:
        local.size(oid)  # a bare oid that is not there names nothing
    return _dataset(target, version, local)


def _open_manifest_file(target: str, cache: str) -> Dataset:
    """A manifest by its file. In a cache the file's name is its oid, and must be right."""
    path = Path(target).resolve()
    if path.stat().st_size > MANIFEST_LIMIT:
        raise InputError(f"{target} is too large to be a manifest")
    named = _object_at(path)
    if named:
        oid, home = named
    else:
        oid, home = manifest_oid(_read_file(path, target)), find_project(path.parent).cache_dir
    local = LocalCache(_chosen_cache(cache) or home)
    return _dataset(target, Version((Part("", oid),)), local, read=lambda _: _read_file(path, target))


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


def _open_tracked(target: str, cache: str) -> Dataset:
    found = find_target(Path(target))
    local = LocalCache(_chosen_cache(cache) or found.project.cache_dir)
    return _dataset(target, Version(_place(found.outputs, target), found.inside), local)


def _place(outputs: Sequence[Output], target: str) -> tuple[Part, ...]:
    """Where the outputs stand: a lone directory is the root, a lone file its name, several their paths."""
    parts = []
    for output in outputs:
        if output.oid is None:
            raise NotTracked(f"{target}: {output.path!r} has no hash yet; run `dvc commit` or `dvc pull`")
        path = output.path
        if len(outputs) == 1:
            path = "" if output.oid.is_tree else path.rpartition("/")[2]
        elif path.startswith("../"):
            raise InputError(f"{target}: {path!r} lies outside its directory; mount that output by its path")
        parts.append(Part(path, output.oid, None if output.oid.is_tree else output.size, output.isexec))
    return tuple(parts)


def _dataset(
    target: str, version: Version, local: LocalCache, *, read: Callable[[Oid], bytes] | None = None
) -> Dataset:
    try:
        tree = obtain_tree(version, read or local.read, compiled_trees(), target)
    finally:
        local.close()
    oid = str(version.parts[0].oid) if len(version.parts) == 1 else ""
    return Dataset(target, oid, "", tree, local.root)


def _chosen_cache(cache: str) -> Path | None:
    return Path(cache).resolve() if cache else None
