"""Paths of a tree by a pattern, as a shell finds them.

Callers: the commands. Pure; any thread.
"""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
from collections.abc import Sequence
from itertools import islice
from typing import Final

from store.errors import NotTracked
from store.tree import ROOT_ROW, Tree

_COMPARED: Final = 10_000
"""Names that are compared with one that is not there; there may be far more."""
_MAGIC: Final = re.compile(rb"[*?\[]")


def find_rows(tree: Tree, path: str, name: str) -> list[int]:
    """The rows at `path`, or at every path that it matches, in the order of the paths.

    A path that is there is taken as it is, whatever is in it. In a pattern `*`, `?` and `[...]` stand for
    what they do in a shell: a part of one name, and not for a dot that begins it. `name` is the target.
    Raises `NotTracked`, with the nearest names.
    """
    normal = os.path.normpath(path) if path else "."
    wanted = b"" if normal == "." else os.fsencode(normal)
    row = tree.find(wanted)
    if row is not None:
        return [row]
    rows = _match(tree, wanted.split(b"/")) if _MAGIC.search(wanted) else []
    if not rows:
        raise NotTracked(_describe(tree, wanted, path, name))
    return rows


def find_files(tree: Tree, patterns: Sequence[str], name: str) -> Sequence[int]:
    """The rows of all files at these paths and patterns and below them, of all where there are no patterns.

    Raises as `find_rows`.
    """
    if not patterns:
        return [row for row in range(tree.rows) if not tree.is_directory(row)]
    found: dict[int, None] = {}
    for pattern in patterns:
        waiting = find_rows(tree, pattern, name)
        while waiting:
            row = waiting.pop()
            if tree.is_directory(row):
                waiting += reversed(tree.children(row))
            else:
                found[row] = None
    return sorted(found)


def _match(tree: Tree, patterns: list[bytes]) -> list[int]:
    found = [ROOT_ROW]
    for pattern in patterns:
        directories = [row for row in found if tree.is_directory(row)]
        if not _MAGIC.search(pattern):
            named = (tree.lookup(row, pattern) for row in directories)
            found = [row for row in named if row is not None]
            continue
        matches = re.compile(fnmatch.translate(os.fsdecode(pattern))).match
        found = [
            child
            for row in directories
            for child in tree.children(row)
            if (pattern.startswith(b".") or not tree.name(child).startswith(b"."))
            and matches(os.fsdecode(tree.name(child)))
        ]
    return found


def _describe(tree: Tree, wanted: bytes, path: str, name: str) -> str:
    """One line: what is not there, and what is."""
    row, gone = ROOT_ROW, b""
    for gone in wanted.split(b"/"):
        below = tree.lookup(row, gone) if tree.is_directory(row) else None
        if below is None:
            break
        row = below
    what = "matches" if _MAGIC.search(wanted) else "is called"
    message = f"{name}: nothing {what} {path!r} in this version"
    place = f"in {tree.path(row)!r}" if row else "at its root"
    if not tree.is_directory(row):
        return f"{message}; {tree.path(row)!r} is a file"
    names = [os.fsdecode(tree.name(child)) for child in islice(tree.children(row), _COMPARED)]
    near = difflib.get_close_matches(os.fsdecode(gone)[:100], names, n=3, cutoff=0.5) or names[:3]
    return f"{message}; {place} there is {', '.join(map(repr, near))}" if near else f"{message}; it is empty"
