"""`read_order`: a file with paths in the order in which they will be read → rows of a tree.

For `fusefs mount --order FILE`. Paths count from the mount's root; they stand one a line or, where the file
has a NUL byte, with a NUL behind each. Called by the commands, never by a daemon: to look up a million paths
takes memory and a second.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store.errors import InputError
from store.tree import Tree

MOST_BYTES: Final = 1 << 30
_SINGLY: Final = 64
"""Names of a directory that are searched for; where more are asked for, all of its names are read once."""


@dataclass(frozen=True, slots=True)
class Order:
    """Rows of a tree, 4 bytes each, every one once; and how many paths are not files of it."""

    rows: bytes = b""
    unknown: int = 0


def read_order(path: str, tree: Path) -> Order:
    """The order that the file at `path` gives for the compiled tree. Raises `InputError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"--order {path}: is no regular file")
            if status.st_size > MOST_BYTES:
                raise InputError(f"--order {path}: has more than {MOST_BYTES >> 20} MiB")
            data = file.read(MOST_BYTES)
    except OSError as error:
        raise InputError(f"--order {path}: {error.strerror}") from None
    paths = [one for one in data.split(b"\0" if b"\0" in data else b"\n") if one]
    found = _find(Tree.open(tree), paths)
    if paths and not found.rows:
        raise InputError(
            f"--order {path}: none of its paths is a file of this version, which count from its root; "
            f"the first is {os.fsdecode(paths[0])!r}"
        )
    return found


def _find(tree: Tree, paths: Iterable[bytes]) -> Order:
    rows: dict[int, None] = {}
    unknown = 0
    directories: dict[bytes, _Directory | None] = {}
    for path in paths:
        parent, _, name = path.removeprefix(b"./").rpartition(b"/")
        if parent not in directories:
            row = tree.find(parent)
            is_there = row is not None and tree.is_directory(row)
            directories[parent] = _Directory(tree, row) if row is not None and is_there else None
        directory = directories[parent]
        found = None if directory is None else directory.find(name)
        if found is None or tree.is_directory(found):
            unknown += 1
        else:
            rows[found] = None
    return Order(array("I", rows).tobytes(), unknown)


class _Directory:
    """The names of one directory."""

    def __init__(self, tree: Tree, row: int) -> None:
        self._tree = tree
        self._row = row
        self._asked = 0
        self._names: dict[bytes, int] = {}

    def find(self, name: bytes) -> int | None:
        self._asked += 1
        if self._asked <= _SINGLY:
            return self._tree.lookup(self._row, name)
        if not self._names:
            self._names = {self._tree.name(row): row for row in self._tree.children(self._row)}
        return self._names.get(name)
