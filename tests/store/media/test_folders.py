"""Folders of images in a tree against the rules for paths, for trees of awkward names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import InputError
from store.media.folders import directories_with_frames, frame_rows, path_below, related_rows
from store.media.ordering import IMAGE, NATURAL, ORDERS, PREDEFINED, frames_of, is_frame, kind_of
from store.tree import ROOT_ROW, SYMLINK, Tree
from store.tree_compiler import Leaf, compile_tree, leaf_flags, write_tree

NAMES = (
    *("a.png", "B.JPG", "10.tiff", "9.tiff", "a-b.png", "x.y.png", "é.webp", ".hidden.png", "t.txt", "a.svg"),
    *(
        "png",
        "clip.mp4",
        "a.png.",
        "\udcff.png",
        "related_images",
        "x_y_png",
        "a_png",
        "sub",
        "__MACOSX",
        ".d",
    ),
)
names = st.sampled_from(NAMES)
paths = st.lists(names, min_size=1, max_size=4).map("/".join)


def make(directory: Path, listed: Sequence[str], links: Sequence[str] = ()) -> Tree:
    """A tree of these files, without those that are a directory of another."""
    above = {path[:place] for path in listed for place, letter in enumerate(path) if letter == "/"}
    files = [path for path in dict.fromkeys(listed) if path not in above]
    leaves = [
        Leaf(os.fsencode(path), n.to_bytes(16, "big"), n, leaf_flags(symlink=path in links))
        for n, path in enumerate(files)
    ]
    write_tree(compile_tree(leaves, "t"), directory / "t.tree")
    return Tree.open(directory / "t.tree")


def directories(tree: Tree) -> list[int]:
    return [row for row in range(tree.rows) if tree.is_directory(row)]


def files_below(tree: Tree, folder: int) -> list[str]:
    above = tree.path(folder) + "/" if folder else ""
    files = (tree.path(row) for row in range(1, tree.rows) if not tree.is_directory(row))
    return [path.removeprefix(above) for path in files if path.startswith(above)]


@settings(max_examples=40)
@given(st.lists(paths, max_size=30), st.sampled_from(ORDERS))
def test_frames_of_every_directory(
    tmp_path_factory: pytest.TempPathFactory, listed: list[str], order: str
) -> None:
    tree = make(tmp_path_factory.mktemp("tree"), listed)
    flags = directories_with_frames(tree)
    assert len(flags) == tree.rows
    for folder in directories(tree):
        below = files_below(tree, folder)
        assert bool(flags[folder]) == any(map(is_frame, below))
        wanted = sorted(filter(is_frame, below), reverse=True) * 2 if order == PREDEFINED else []
        rows = frame_rows(tree, folder, order, wanted).tolist()
        assert tuple(path_below(tree, folder, row) for row in rows) == frames_of(below, order, wanted)
        for row in rows:
            found = [path_below(tree, folder, image) for image in related_rows(tree, row)]
            parent, _, name = path_below(tree, folder, row).rpartition("/")
            beside = f"{parent}/related_images/".lstrip("/") + "_".join(name.rsplit(".", 1)) + "/"
            inside = (path for path in below if path.startswith(beside))
            assert found == sorted(
                path for path in inside if kind_of(path) == IMAGE and "/" not in path[len(beside) :]
            )
    assert not any(flags[row] for row in range(tree.rows) if not tree.is_directory(row))


def test_related_images(tmp_path: Path) -> None:
    tree = make(
        tmp_path,
        [
            *("d/000001.jpg", "d/related_images/000001_jpg/b.png", "d/related_images/000001_jpg/a.jpg"),
            *("d/related_images/000001_jpg/deep/c.png", "d/related_images/000001_jpg/t.txt", "d/x.y.png"),
            *("related_images/x.y_png/1.png", "d/related_images/x.y_png/1.png", "d/2.png", "top.png"),
            "related_images/top_png/q.bmp",
        ],
    )
    found = {
        tree.path(row): [tree.path(image) for image in related_rows(tree, row)]
        for row in frame_rows(tree, ROOT_ROW, NATURAL).tolist()
    }
    assert found == {
        "d/000001.jpg": ["d/related_images/000001_jpg/a.jpg", "d/related_images/000001_jpg/b.png"],
        "d/x.y.png": ["d/related_images/x.y_png/1.png"],
        "d/2.png": [],
        "top.png": ["related_images/top_png/q.bmp"],
    }


def test_a_frame_is_no_symlink(tmp_path: Path) -> None:
    listed = ["a/link.png", "b/link.png", "b/file.png", "b/related_images/file_png/link.png"]
    tree = make(tmp_path, listed, [path for path in listed if path.endswith("link.png")])
    assert any(flags & SYMLINK for flags in tree.flags)
    flags = directories_with_frames(tree)
    a, b = tree.find(b"a"), tree.find(b"b")
    assert a is not None and b is not None
    assert (flags[ROOT_ROW], flags[a], flags[b]) == (1, 0, 1)
    (row,) = frame_rows(tree, ROOT_ROW, NATURAL).tolist()
    assert tree.path(row) == "b/file.png" and path_below(tree, b, row) == "file.png"
    assert related_rows(tree, row) == []


def test_a_predefined_frame_that_is_not_there(tmp_path: Path) -> None:
    tree = make(tmp_path, ["d/a.png"])
    assert frame_rows(tree, ROOT_ROW, PREDEFINED, ["d/a.png"]).dtype == np.int64
    with pytest.raises(InputError, match=r"a\.png"):
        frame_rows(tree, ROOT_ROW, PREDEFINED, ["a.png"])
