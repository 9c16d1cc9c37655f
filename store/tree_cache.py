"""`TreeCache`: compiled trees, kept by what they were compiled from.

A private directory of the user's: a tree says which object a name has, so one that somebody else
could write would let him choose the bytes. A damaged file counts as absent and is compiled anew.
"""

from __future__ import annotations

import os
from pathlib import Path

from store.errors import CacheUnusable
from store.tree import Tree, TreeDamaged
from store.tree_compiler import TreeImage, write_tree


class TreeCache:
    """A directory of compiled trees, made when it is first written to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, key: str) -> Path:
        """Where the tree of this key is kept, whether it is there or not."""
        return self._directory / f"{key}.tree"

    def has(self, key: str) -> bool:
        """Is there a tree of this key, whole? Reads and verifies it."""
        try:
            self._check_owner()
            Tree.open(self.path(key))
        except (FileNotFoundError, TreeDamaged):
            return False
        except OSError as error:
            raise self._unusable(error) from None
        return True

    def put(self, key: str, image: TreeImage) -> Path:
        """Keep a tree; one of the same key is replaced. Raises `CacheUnusable`."""
        path = self.path(key)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_owner()
            write_tree(image, path)
        except OSError as error:
            raise self._unusable(error) from None
        return path

    def _check_owner(self) -> None:
        if self._directory.stat().st_uid != os.geteuid():
            raise CacheUnusable(
                f"{self._directory} belongs to another user; set XDG_CACHE_HOME to a directory of your own"
            )

    def _unusable(self, error: OSError) -> CacheUnusable:
        return CacheUnusable(
            f"compiled trees cannot be kept in {self._directory} ({error.strerror}); "
            "set XDG_CACHE_HOME to a directory that can be written"
        )
