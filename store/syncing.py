"""What the standard library does not have to bring bytes from memory to a disk. Any thread."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_START_WRITING: Final = 2
"""SYNC_FILE_RANGE_WRITE of sync_file_range(2)."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of it, in as many steps as the kernel takes. Raises `OSError`."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


def sync_file_system(descriptor: int) -> None:
    """syncfs(2): everything written to the file system of `descriptor` is on the disk. Raises `OSError`."""
    if _libc.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def start_writing(descriptor: int) -> None:
    """Have the disk begin with what was written to a file, so that a later sync waits for less.

    Promises nothing; for what is no file it does nothing."""
    _libc.sync_file_range(descriptor, 0, 0, _START_WRITING)
