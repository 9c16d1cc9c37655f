"""`Dataset`: what a target turned out to be, and the last step that all of them share: its compiled tree.

Callers: `fusefs.dataset` and its rooms. Blocking.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fusefs.directories import cache_directory
from store.git.repository import Repository
from store.local_cache import LocalCache
from store.revision import Located, RevisionMaterials
from store.tree_cache import TreeCache
from store.version import GitPart, Part, obtain_tree


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


def chosen_cache(request: Request) -> Path | None:
    return Path(request.cache).resolve() if request.cache else None


def compile_dataset(
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
