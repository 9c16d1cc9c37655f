"""The kernel's files about FUSE connections (fusectl), found also where nobody has mounted them.

Many containers have nothing at `/sys/fs/fuse/connections`; without its settings the kernel sends twelve
buffered reads at a time and, from nine on, asks for pages one by one. Whoever may mount (root) gets the same
files through a mount of its own that has no place in any tree and ends with its descriptor: fsopen(2) and
fsmount(2), Linux 5.2.

Sources: Documentation/filesystems/fuse.rst; linux/mount.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Final

CONNECTIONS: Final = "/sys/fs/fuse/connections"

_FSOPEN: Final = 430  # these have the same numbers on every architecture
_FSCONFIG: Final = 431
_FSMOUNT: Final = 432
_CLOEXEC: Final = 1
_CMD_CREATE: Final = 6

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


@contextlib.contextmanager
def connection_directory(minor: str) -> Iterator[int]:
    """The directory of the connection whose device has this minor number. Raises `OSError`."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        try:
            directory = os.open(f"{CONNECTIONS}/{minor}", flags)
        except FileNotFoundError:
            mounted = _mount_nowhere()
            stack.callback(os.close, mounted)
            directory = os.open(minor, flags, dir_fd=mounted)
        stack.callback(os.close, directory)
        yield directory


def _mount_nowhere() -> int:
    context = _call(_FSOPEN, b"fusectl", ctypes.c_uint(_CLOEXEC))
    try:
        _call(_FSCONFIG, ctypes.c_int(context), ctypes.c_uint(_CMD_CREATE), None, None, ctypes.c_int(0))
        return _call(_FSMOUNT, ctypes.c_int(context), ctypes.c_uint(_CLOEXEC), ctypes.c_uint(0))
    finally:
        os.close(context)


def _call(number: int, *arguments: object) -> int:
    result = int(_syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "fusectl")
    return result
