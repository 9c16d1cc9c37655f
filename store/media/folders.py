"""Folders of images in a tree: which directories have frames below, and which frames, by CVAT's rules.

What `ordering` says of paths, for the rows of a tree: names are looked at in place, so a version of a million
files that nobody asks for images costs a scan of its names. Pure and blocking: any worker thread.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from store.media.ordering import (
    IMAGE,
    LEXICOGRAPHICAL,
    RELATED,
    frames_of,
    is_hidden,
    kind_of,
)
from store.tree import ROOT_ROW, Tree

Rows = NDArray[np.int64]

_NAME_OF_AN_IMAGE: Final = re.compile(rb"\.([A-Za-z0-9]{1,5})\0")
"""Of a name that may be one, in the column of names."""


def directories_with_frames(tree: Tree) -> bytearray:
    """For each row: 1 for a directory that has a frame below, else 0."""
    found = bytearray(tree.rows)
    ends = np.frombuffer(tree.name_end, np.uint32)
    candidates = [match.end() for match in _NAME_OF_AN_IMAGE.finditer(tree.names) if _is_image(match[1])]
    for row in np.searchsorted(ends, np.array(candidates, np.uint32)).tolist():
        parent = tree.parent[row]
        if not found[parent] and _is_file(tree, row) and not is_hidden(_name(tree, row)):
            found[parent] = 1
    for row in range(tree.rows - 1, ROOT_ROW, -1):  # children come behind their parents
        if found[row] and not found[tree.parent[row]] and _is_entered(_name(tree, row)):
            found[tree.parent[row]] = 1
    return found


def frame_rows(tree: Tree, folder: int, order: str, predefined: Sequence[str] = ()) -> Rows:
    """The frames below a directory, in order; `predefined` is what its manifest names.

    Raises `InputError` for a predefined frame that is not there.
    """
    paths = dict(_frames_below(tree, folder))
    ordered = sorted(paths) if order == LEXICOGRAPHICAL else frames_of(paths, order, predefined)
    return np.fromiter((paths[path] for path in ordered), np.int64, len(ordered))


def related_rows(tree: Tree, frame: int) -> list[int]:
    """The images that are related to a frame, sorted by name."""
    place: int | None = tree.parent[frame]
    for name in (RELATED.encode(), b"_".join(tree.name(frame).rsplit(b".", 1))):
        place = None if place is None or not tree.is_directory(place) else tree.lookup(place, name)
    if place is None or not tree.is_directory(place):
        return []
    images = (row for row in tree.children(place) if _is_file(tree, row))
    return sorted(
        (row for row in images if kind_of(_name(tree, row)) == IMAGE), key=lambda row: _name(tree, row)
    )


def path_below(tree: Tree, folder: int, row: int) -> str:
    """A row's path from a directory above it."""
    above = tree.path(folder)
    return tree.path(row)[len(above) + 1 if above else 0 :]


def _frames_below(tree: Tree, folder: int) -> Iterator[tuple[str, int]]:
    """Paths from the folder on, and rows, in no order."""
    waiting = [("", folder)]
    while waiting:
        prefix, directory = waiting.pop()
        for row in tree.children(directory):
            name = _name(tree, row)
            if tree.is_directory(row):
                if _is_entered(name):
                    waiting.append((f"{prefix}{name}/", row))
            elif kind_of(name) == IMAGE and not is_hidden(name) and _is_file(tree, row):
                yield prefix + name, row


def _is_entered(name: str) -> bool:
    """Whether frames are looked for in a directory of that name, from above."""
    return name != RELATED and not is_hidden(name)


def _is_file(tree: Tree, row: int) -> bool:
    return not tree.is_directory(row) and not tree.is_symlink(row)


def _is_image(extension: bytes) -> bool:
    return kind_of("x." + extension.decode("ascii")) == IMAGE


def _name(tree: Tree, row: int) -> str:
    return os.fsdecode(tree.name(row))
