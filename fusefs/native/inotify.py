"""inotify(7), which the standard library does not have: who opens what in some directories.

Needs no rights, holds no mount busy, and ends with the descriptor. Callers: `fusefs.native.seen_opens`, and
for the watches, which the daemon cannot add in its own mount, `fusefs.native.attach`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Final

OPENED: Final = 0x20
IS_DIRECTORY: Final = 0x4000_0000
_ONLY_DIRECTORIES: Final = 0x0100_0000
_DONT_FOLLOW: Final = 0x0200_0000
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


def explain_refusal(error: OSError) -> str:
    """Why the kernel does not watch."""
    if error.errno == errno.ENOSPC:
        return "there are more directories than fs.inotify.max_user_watches allows"
    if error.errno == errno.EMFILE:
        return "there are more watchers than fs.inotify.max_user_instances allows"
    return error.strerror or str(error)


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
