"""inotify(7), which the standard library does not have: who opens what in some directories.

Needs no rights, holds no mount busy, and ends with the descriptor. Callers: `fusefs.native.seen_opens`, and
for the watches, which the daemon cannot add in its own mount, `fusefs.native.attach`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from store.tree import DIRECTORY, Tree

OPENED: Final = 0x20
IS_DIRECTORY: Final = 0x4000_0000
_ONLY_DIRECTORIES: Final = 0x0100_0000
_DONT_FOLLOW: Final = 0x0200_0000
MOST_DIRECTORIES: Final = 4096
"""Of a version that is watched: each costs the kernel memory."""
_IS_DIRECTORY: Final = bytes(flags & DIRECTORY for flags in range(256))
_EVENT: Final = struct.Struct("=iIII")

Came = list[int] | str
"""Watches, or why there are none."""

_libc = ctypes.CDLL(None, use_errno=True)


def new_inotify() -> int:
    """A descriptor that does not block. Raises OSError."""
    return _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def watch_opens(descriptor: int, root: int, paths: Sequence[str]) -> Came:
    """Watch the directories at `paths` below the directory `root`, for opens of what is in them; the watches
    in that order."""
    mask = OPENED | _ONLY_DIRECTORIES | _DONT_FOLLOW
    places = (os.fsencode(f"/proc/self/fd/{root}/{path}") for path in paths)
    try:
        return [_check(_libc.inotify_add_watch(descriptor, place, ctypes.c_uint32(mask))) for place in places]
    except OSError as error:
        return explain_refusal(error)


def watch_tree(descriptor: int, root: int, path: Path) -> None:
    """As `watch_opens`, all directories of the version that is compiled at `path`; where that is refused,
    fewer. Raises `TreeDamaged`."""
    tree = Tree.open(path)
    with contextlib.suppress(OSError):  # whoever reads the descriptor finds that out
        watch_opens(descriptor, root, [tree.path(row) for row in watched_directories(tree)])


def explain_refusal(error: OSError) -> str:
    """Why the kernel does not watch."""
    if error.errno == errno.ENOSPC:
        return "there are more directories than fs.inotify.max_user_watches allows"
    if error.errno == errno.EMFILE:
        return "there are more watchers than fs.inotify.max_user_instances allows"
    return error.strerror or str(error)


def list_watches(descriptor: int) -> list[int]:
    """All that were added to a descriptor, in that order. Raises OSError."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return sorted(int(line.split()[1].partition(":")[2]) for line in lines if line.startswith("inotify "))


def watched_directories(tree: Tree) -> list[int]:
    """The rows of all directories of a version. Raises OSError for more than we watch."""
    flags = bytes(tree.flags).translate(_IS_DIRECTORY)
    if flags.count(DIRECTORY) > MOST_DIRECTORIES:
        raise OSError(errno.E2BIG, f"there are more than {MOST_DIRECTORIES} directories")
    rows: list[int] = []
    row = flags.find(DIRECTORY)
    while row >= 0:
        rows.append(row)
        row = flags.find(DIRECTORY, row + 1)
    return rows


def parse_events(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Watch, mask and name of every event."""
    place = 0
    while place < len(data):
        watch, mask, _, length = _EVENT.unpack_from(data, place)
        place += _EVENT.size
        yield watch, mask, data[place : place + length].rstrip(b"\0")
        place += length


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
