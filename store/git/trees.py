"""`Trees`: the directories of a git repository, parsed, held to the rules, and a number of them kept.

git's own porcelain refuses such names when it checks out; plumbing prints them. Here they are
refused once, for every reader: a tree comes from anywhere, and its names end up in a file system.

Callers: `store.git.files`, `store.git.repository`. Blocking where a tree is read; any thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from enum import IntEnum
from typing import Final, NamedTuple

from store.errors import RepositoryUnusable
from store.git.objects import Objects

NAME_LIMIT: Final = 255
"""Bytes of a name that a file system takes."""

_KEPT_ENTRIES: Final = 50_000
"""Some 10 MB."""


class Mode(IntEnum):
    """What an entry of a tree is, as git writes it."""

    TREE = 0o040000
    FILE = 0o100644
    EXECUTABLE = 0o100755
    SYMLINK = 0o120000
    """Its blob is the target."""
    SUBMODULE = 0o160000
    """Its oid is a commit of another repository; nothing of it is here."""


class TreeEntry(NamedTuple):
    """One name in a tree. A tuple, because there may be millions."""

    name: bytes
    mode: Mode
    oid: str


class Trees:
    """The trees among `objects`; those asked for last are kept."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, dict[bytes, TreeEntry]] = OrderedDict()
        self._entries = 0

    def read(self, oid: str) -> dict[bytes, TreeEntry]:
        """A tree's entries by name, in git's order. Shared: not to be changed.

        Raises `RepositoryUnusable` for a hostile one, and what `Objects.read` raises.
        """
        with self._lock:
            if oid in self._kept:
                self._kept.move_to_end(oid)
                return self._kept[oid]
        tree = parse_tree(self._objects.read(oid, "tree"), oid)
        with self._lock:
            if oid not in self._kept:
                self._kept[oid] = tree
                self._entries += len(tree) + 1
                # The last one stays whatever its size, or else each look into it would parse it.
                while self._entries > _KEPT_ENTRIES and len(self._kept) > 1:
                    _, dropped = self._kept.popitem(last=False)
                    self._entries -= len(dropped) + 1
        return tree


def parse_tree(data: bytes, oid: str) -> dict[bytes, TreeEntry]:
    """Parse the bytes of the tree `oid`: entries by name, in git's order.

    Raises `RepositoryUnusable` for what is no tree, an empty name, `.`, `..`, any case of `.git`,
    a name with a slash or of more than 255 bytes, one that is there twice, and an unknown mode.
    """
    digest_size = len(oid) // 2
    entries: dict[bytes, TreeEntry] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 8)
        end = data.find(b"\0", space)
        if space < 0 or end < 0 or end + 1 + digest_size > len(data):
            raise RepositoryUnusable(f"git tree {oid} is malformed; the repository cannot be trusted")
        name = data[space + 1 : end]
        mode = _MODES.get(data[position:space]) or _parse_mode(data[position:space], name, oid)
        position = end + 1 + digest_size
        if name in entries or len(name) > NAME_LIMIT or b"/" in name or name.lower() in _REFUSED:
            raise _refused(name, oid, doubled=name in entries)
        entries[name] = TreeEntry(name, mode, data[end + 1 : position].hex())
    return entries


_REFUSED: Final = frozenset({b"", b".", b"..", b".git"})
_MODES: Final = {f"{mode:o}".encode(): mode for mode in Mode}


def _parse_mode(text: bytes, name: bytes, oid: str) -> Mode:
    """Modes that other programs and old gits wrote: leading zeros, and 100664."""
    try:
        number = int(text, 8) if text.isdigit() else -1
    except ValueError:
        number = -1
    if number & ~0o777 == 0o100000:
        return Mode.EXECUTABLE if number & 0o100 else Mode.FILE
    try:
        return Mode(number)
    except ValueError:
        raise RepositoryUnusable(f"git tree {oid} gives {name!r} the unknown mode {text!r}") from None


def _refused(name: bytes, oid: str, *, doubled: bool) -> RepositoryUnusable:
    shown = name if len(name) <= NAME_LIMIT else name[:40] + b"..."
    why = "twice" if doubled else "which no file may be called"
    return RepositoryUnusable(f"git tree {oid} holds the name {shown!r} {why}; the repository is refused")
