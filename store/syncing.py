"""What the standard library does not have to bring bytes from memory to a disk. Any thread."""

from __future__ import annotations

import ctypes
import os
from typing import Final

WRITE_BYTES: Final = 256 << 10
"""Of one call, at most. The kernel takes memory for all of a call in one piece where it can, and a MiB in one
piece is memory that nobody has used for long: to fill it costs several times as much as four of a quarter."""
_START_WRITING: Final = 2
"""SYNC_FILE_RANGE_WRITE of sync_file_range(2)."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of it, in as many calls as it takes. Raises `OSError`."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left[:WRITE_BYTES]) :]


def sync_file_system(descriptor: int) -> None:
    """syncfs(2): everything written to the file system of `descriptor` is on the disk. Raises `OSError`."""
    if _libc.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def start_writing(descriptor: int) -> None:
    """Have the disk begin with what was written to a file, so that a later sync waits for less.

    Promises nothing; for what is no file it does nothing."""
    _libc.sync_file_range(descriptor, 0, 0, _START_WRITING)
