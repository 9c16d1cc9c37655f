"""Versions to cut into shards, their files' bytes, and archives put together from pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from store.shards.layout import Body, Header, Layout, Piece
from store.shards.recipe import ShardsRecipe
from store.tree import Tree
from store.tree_compiler import Leaf, compile_tree, write_tree


class Version:
    """A compiled tree with files of the given bytes by path."""

    def __init__(self, files: dict[bytes, bytes], place: Path) -> None:
        self.files = files
        leaves = [Leaf(path, bytes(16), len(data)) for path, data in files.items()]
        self.tree = open_tree(leaves, place)

    def layout(self, recipe: str = "1000") -> Layout:
        return Layout(self.tree, ShardsRecipe.parse(recipe), self.tree.size)

    def assemble(self, pieces: Iterable[Piece]) -> bytes:
        return b"".join(self._bytes(piece) for piece in pieces)

    def archive(self, layout: Layout, number: int = 0) -> bytes:
        """All bytes of a shard."""
        return self.assemble(layout.pieces(number, 0, layout.size(number)))

    def _bytes(self, piece: Piece) -> bytes:
        if isinstance(piece, Header):
            return piece.data
        if isinstance(piece, Body):
            data = self.files[self.tree.path(piece.row).encode("utf-8", "surrogateescape")]
            assert 0 < piece.length <= len(data) - piece.offset
            return data[piece.offset : piece.offset + piece.length]
        assert piece.length > 0
        return bytes(piece.length)


def open_tree(leaves: list[Leaf], place: Path) -> Tree:
    write_tree(compile_tree(leaves, "t"), place)
    return Tree.open(place)


NewVersion = Callable[[dict[bytes, bytes]], Version]


@pytest.fixture(scope="session")
def new_version(tmp_path_factory: pytest.TempPathFactory) -> NewVersion:
    return lambda files: Version(files, tmp_path_factory.mktemp("version") / "t.tree")


@pytest.fixture
def new_tree(tmp_path: Path) -> Callable[[list[Leaf]], Tree]:
    return lambda leaves: open_tree(leaves, tmp_path / "t.tree")
