"""Makes the kernel ask again: for names after a switch of versions, for a file whose size was not as told.

Since Linux 6.16 one notification outdates every name of a mount. Older kernels must be told each
name; of a directory of a million that takes seconds. Blocking, for a worker thread: the kernel may
wait for a look-up that the event loop has yet to answer.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import Final

import pyfuse3

_NOTIFICATION: Final = struct.Struct("<IiQ")  # length, code, and zero: not an answer to a request
_INC_EPOCH: Final = 8


def forget_names(fuse_fd: int, names: Iterable[tuple[int, bytes]]) -> None:
    """Outdate what is cached of the root: its attributes, and `names`, there or not, each with the inode of
    its directory."""
    pyfuse3.invalidate_inode(pyfuse3.ROOT_INODE, attr_only=True)
    try:
        os.write(fuse_fd, _NOTIFICATION.pack(_NOTIFICATION.size, _INC_EPOCH, 0))
    except OSError:  # a kernel that does not know it
        for directory, name in names:
            try:
                pyfuse3.invalidate_entry(pyfuse3.InodeT(directory), pyfuse3.FileNameT(name))
            except OSError:
                pass  # not cached


def forget_file(inode: int, *, size_only: bool = False) -> None:
    """Outdate what is cached of a file: its attributes, and its pages.

    For pages that are being read the kernel waits until they are, so whoever answers such a read must not
    wait for this; `size_only`, for the attributes alone, waits for nothing.
    """
    try:
        pyfuse3.invalidate_inode(pyfuse3.InodeT(inode), attr_only=size_only)
    except OSError:
        pass  # not cached
