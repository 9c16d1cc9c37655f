"""`TreeShelf`: the compiled trees of a few versions, while they are compared.

What the user's cache of trees has is taken from there; what it lacks is compiled into a file without a
name. A look at hundreds of versions is no reason to keep a tree of each.

Callers: `store.history`. Blocking; one thread.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from store.git.repository import Repository
from store.local_cache import LocalCache
from store.oid import Oid
from store.revision import RevisionMaterials
from store.tree import Tree
from store.tree_cache import TreeCache
from store.version import Version, obtain_tree

_OPEN: Final = 3
"""Trees at once: the two that are compared, and one that may be compared next."""


class TreeShelf:
    """Trees of versions of one target, called `name` in messages."""

    def __init__(self, repository: Repository, cache: LocalCache, kept: TreeCache, name: str) -> None:
        self._repository = repository
        self._cache = cache
        self._kept = kept
        self._name = name
        self._open: OrderedDict[str, Tree] = OrderedDict()

    def open(self, version: Version, manifests: Mapping[Oid, bytes]) -> Tree:
        """The tree of a version; `manifests` are those that no cache need have.

        Raises as `obtain_tree` does.
        """
        key = version.key
        tree = self._open.get(key)
        if tree is None:
            tree = self._open[key] = self._compile(version, manifests)
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return tree

    def _compile(self, version: Version, manifests: Mapping[Oid, bytes]) -> Tree:
        if self._kept.has(version.key):
            return Tree.open(self._kept.path(version.key))
        materials = RevisionMaterials((self._cache,), manifests, self._repository)
        with tempfile.TemporaryDirectory(prefix="fusefs-trees-") as directory:
            # The mapping outlives the file's name.
            return Tree.open(obtain_tree(version, materials, TreeCache(Path(directory)), self._name))
