"""The last step of opening a dataset, whatever named it: its remotes are settled and its tree is compiled.

Callers: `fusefs.dataset_objects`, `fusefs.dataset_paths`. Blocking.
"""

from __future__ import annotations

from fusefs.dataset_model import Dataset, Origin, Request, compiled_trees
from fusefs.dataset_remotes import DatasetRemotes
from store.git.repository import Repository
from store.local_cache import LocalCache
from store.revision import Located, RevisionMaterials
from store.version import GitPart, Part, obtain_tree


def compile_dataset(
    request: Request,
    located: Located,
    local: LocalCache,
    remotes: DatasetRemotes,
    *,
    repository: Repository | None = None,
    rev: str = "",
    origin: Origin | None = None,
) -> Dataset:
    """The last step: the remotes of what was located, and its tree."""
    parts = located.version.parts
    specs = remotes.settle(located)
    caches = (local, *[LocalCache(cache) for cache in located.caches if cache != local.root])
    bring = (lambda oid: remotes.read(oid, specs)) if specs else None
    manifests = {**remotes.brought, **located.manifests}
    materials = RevisionMaterials(caches, manifests, repository, bring)
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
        warnings=(*located.warnings, *remotes.warnings),
        remotes=specs,
        wanted=located.wanted,
        push_remotes=remotes.push_remotes,
    )
