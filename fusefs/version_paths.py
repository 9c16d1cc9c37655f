"""Paths of a version, for `fusefs.filesystem`: which row one leads to, what is below it, what it is like.

Symlinks are followed as long as they stay in the version. Any thread; a link's target may have to be fetched.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from errno import EISDIR, ELOOP, ENOENT, ENOTDIR
from typing import Any, Final

from fusefs.content_times import time_of
from fusefs.python_errors import python_error
from fusefs.session import Session
from store.errors import StoreError
from store.tree import EXECUTABLE, ROOT_ROW, UNKNOWN, Tree

MOST_LINKS: Final = 40
"""Symlinks on the way to one file, as the kernel has it."""
_WORD_BYTES: Final = 4


def join(directory: str, name: bytes) -> str:
    """The path of what is called `name` in a directory."""
    shown = os.fsdecode(name)
    return f"{directory}/{shown}" if directory else shown


def find_row(session: Session, path: str, *, follow: bool = True) -> int:
    """The row at `path`; with `follow`, what the last link leads to.

    Raises FileNotFoundError, NotADirectoryError, and the OSError of a link that cannot be read.
    """
    tree = session.tree
    row = tree.find(os.fsencode(path))
    if row is not None and not (follow and tree.is_symlink(row)):
        return row
    return _follow(session, path, to_the_end=follow)


def find_file(session: Session, path: str) -> int:
    """As `find_row`. Raises IsADirectoryError for a directory."""
    row = find_row(session, path)
    if session.tree.is_directory(row):
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR), path)
    return row


def walk_rows(session: Session, path: str, maxdepth: int | None, withdirs: bool) -> Iterator[tuple[str, int]]:
    """What is below `path`, with its rows, in no order; for a file that itself, for nothing nothing.

    Links are told and not followed: they may lead in circles.
    """
    tree = session.tree
    try:
        top = find_row(session, path)
    except (FileNotFoundError, NotADirectoryError):
        return
    if not tree.is_directory(top):
        yield path, top
        return
    if withdirs and path:
        yield path, top
    above = [(path, top, 1)]
    while above:
        place, row, depth = above.pop()
        for child in tree.children(row):
            name = join(place, tree.name(child))
            is_directory = tree.is_directory(child)
            if withdirs or not is_directory:
                yield name, child
            if is_directory and (maxdepth is None or depth < maxdepth):
                above.append((name, child, depth + 1))


def describe(session: Session, row: int, name: str) -> dict[str, Any]:
    """What fsspec's `info` tells, as far as it is known; `size` may be None."""
    tree = session.tree
    time = float(time_of_row(tree, row))
    if tree.is_directory(row):
        return {"name": name, "size": 0, "type": "directory", "mode": stat.S_IFDIR | 0o755, "mtime": time}
    size = session.size_known(row)
    is_link = tree.is_symlink(row)
    permissions = 0o755 if tree.flags[row] & EXECUTABLE else 0o644
    return {
        "name": name,
        "size": None if size == UNKNOWN else size,
        "type": "link" if is_link else "file",
        "mode": stat.S_IFLNK | 0o777 if is_link else stat.S_IFREG | permissions,
        "mtime": time,
        "islink": is_link,
        "oid": str(tree.oid(row)),
    }


def time_of_row(tree: Tree, row: int) -> int:
    """Seconds since the epoch, as a mount tells them."""
    return time_of(tree.digest_words[row * (tree.digest_width // _WORD_BYTES)])


def _follow(session: Session, path: str, *, to_the_end: bool) -> int:
    """As `find_row`, a name at a time."""
    tree = session.tree
    left = path.split("/")[::-1]
    row, above, links = ROOT_ROW, list[int](), 0
    while left:
        if not tree.is_directory(row):
            raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR), path)
        name = left.pop()
        if name in ("", "."):
            continue
        if name == "..":
            if not above:
                raise FileNotFoundError(ENOENT, "it leads out of the version", path)
            row = above.pop()
            continue
        child = tree.lookup(row, os.fsencode(name))
        if child is None:
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT), path)
        if tree.is_symlink(child) and (left or to_the_end):
            links += 1
            if links > MOST_LINKS:
                raise OSError(ELOOP, os.strerror(ELOOP), path)
            left.extend(_read_link(session, child, path).split("/")[::-1])
        else:
            above.append(row)
            row = child
    return row


def _read_link(session: Session, row: int, path: str) -> str:
    (target,) = session.read_many([(row, None, None)])
    if isinstance(target, StoreError):
        raise python_error(target, path)
    if target.startswith(b"/"):
        raise FileNotFoundError(ENOENT, "it leads out of the version", path)
    return os.fsdecode(target)
