"""Parts laid over one another: of two files that claim a path, the earlier layer's is there.

A whole project is git's files with DVC's outputs beside, below and, where somebody has tracked a
thing twice, on top of them. What git has wins, an inner output wins over the one around it, path by
path. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from store.tree import DIRECTORY
from store.tree_compiler import Leaf


@dataclass(frozen=True, slots=True)
class Layer:
    """The leaves of a part, all at or below `path`."""

    path: str
    leaves: list[Leaf]


def lay_over(layers: Sequence[Layer]) -> list[Leaf]:
    """The leaves that are seen, first layers on top."""
    seen = _Occupied()
    leaves: list[Leaf] = []
    for place, layer in enumerate(layers):
        visible = layer.leaves
        if seen.touches(layer.path.encode("utf-8", "surrogateescape")):
            visible = [leaf for leaf in layer.leaves if not seen.hides(leaf)]
        leaves += visible
        # A set of a million paths is large: only what a later layer can meet is remembered.
        if any(_overlap(layer.path, later.path) for later in layers[place + 1 :]):
            seen.add(visible)
    return leaves


class _Occupied:
    """The paths that are taken, and the directories that lead to them."""

    def __init__(self) -> None:
        self._files: set[bytes] = set()
        self._directories: set[bytes] = set()

    def add(self, leaves: list[Leaf]) -> None:
        for leaf in leaves:
            (self._directories if leaf.flags & DIRECTORY else self._files).add(leaf.path)
            for parent in _parents(leaf.path):
                if parent in self._directories:
                    break
                self._directories.add(parent)

    def touches(self, path: bytes) -> bool:
        """Can anything at or below `path` be hidden?"""
        if not path:
            return bool(self._files or self._directories)
        return path in self._files or path in self._directories or self._is_below_file(path)

    def hides(self, leaf: Leaf) -> bool:
        if leaf.path in self._files or self._is_below_file(leaf.path):
            return True
        return leaf.path in self._directories and not leaf.flags & DIRECTORY

    def _is_below_file(self, path: bytes) -> bool:
        return any(parent in self._files for parent in _parents(path))


def _parents(path: bytes) -> Iterator[bytes]:
    """The directories above a path, the nearest first, without the root."""
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _overlap(one: str, other: str) -> bool:
    """Can layers at these paths hold the same path?"""
    shorter, longer = sorted((one, other), key=len)
    return not shorter or shorter == longer or longer.startswith(shorter + "/")
