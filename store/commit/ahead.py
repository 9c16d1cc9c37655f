"""`open_ahead`: the files of a folder, opened and asked of the disk some time before it is their turn.

A worker that opens, reads and hashes one small file after the other has the disk wait for it, and waits for
the disk, by turns. Belongs to one worker's thread.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Final, NamedTuple

from store.commit.scan import Found
from store.errors import ChangedMeanwhile, InputError

_BEGINNING_BYTES: Final = 1 << 20
"""Asked for of each file; the kernel reads ahead by itself in what is longer."""
_AHEAD_BYTES: Final = 8 << 20


class Source(NamedTuple):
    """An open file. Whoever is given one closes it."""

    found: Found
    path: str
    descriptor: int


def open_ahead(
    folder: str, files: Sequence[Found], most: int, is_wanted: Callable[[], bool]
) -> Generator[Source]:
    """Open `files` in their order, at most `most` before their turn and 8 MiB of beginnings.

    The disk is asked for their bytes as long as `is_wanted` says so. Close the iterator to close what is open
    still. Raises `ChangedMeanwhile` and `InputError` for a file that cannot be opened.
    """
    ahead: deque[Source] = deque()
    size = 0
    try:
        for found in files:
            path = f"{folder}/{found.relpath}" if found.relpath else folder
            ahead.append(Source(found, path, _open(path, found)))
            size += min(found.size, _BEGINNING_BYTES)
            if is_wanted():
                _ask_for(ahead[-1].descriptor)
            while len(ahead) > most or size > _AHEAD_BYTES:
                size -= min(ahead[0].found.size, _BEGINNING_BYTES)
                yield ahead.popleft()
        while ahead:
            yield ahead.popleft()
    finally:
        for source in ahead:
            os.close(source.descriptor)


def _open(path: str, found: Found) -> int:
    # A FIFO that took the file's place must not make us wait, a link not lead elsewhere.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(path, flags if found.is_symlink else flags | os.O_NOFOLLOW)
    except PermissionError as error:
        raise InputError(f"cannot read {path!r}: {error.strerror}") from None
    except OSError as error:
        raise ChangedMeanwhile(
            f"{path!r} changed while it was being committed ({error.strerror}); nothing was recorded"
        ) from None


def _ask_for(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # a FIFO; whoever reads it will say so
        os.posix_fadvise(descriptor, 0, _BEGINNING_BYTES, os.POSIX_FADV_WILLNEED)
