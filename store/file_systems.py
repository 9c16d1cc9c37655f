"""What kind of file system a path lies on, as the kernel tells it by mountinfo(5) and statfs(2)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "lustre", "gpfs", "beegfs", "afs", "glusterfs"}
)
_NETWORK_FUSE: Final = (
    "fuse.sshfs",
    "fuse.s3fs",
    "fuse.rclone",
    "fuse.glusterfs",
    "fuse.ceph",
    "fuse.juicefs",
)


_ON_DISKS: Final = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # XFS
        0x9123683E,  # Btrfs
        0xF2F52010,  # F2FS
        0x2FC12FC1,  # ZFS
        0xCA451A4E,  # bcachefs
        0x01021994,  # tmpfs
    }
)
"""The magic numbers of file systems whose files are on this machine's own disks, or in its memory."""
_STATFS_BYTES: Final = 256
"""More than `struct statfs` has on any architecture. It begins with the magic number, a long."""

_statfs = ctypes.CDLL(None, use_errno=True).statfs
_statfs.argtypes = (ctypes.c_char_p, ctypes.c_void_p)


def is_on_disk(path: Path) -> bool:
    """Whether what is below `path`, or will be, lies on this machine's own disks, as far as can be told."""
    while not path.exists() and path != path.parent:
        path = path.parent
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _statfs(os.fsencode(path), buffer) != 0:
        return False
    magic = ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF
    return magic in _ON_DISKS


def kind_of(path: Path) -> str:
    """The type of the file system that `path` lies on, `ext4` for instance; empty where it cannot be told.

    Raises `OSError` for a path that is not there.
    """
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    found = ""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        if fields[2] == wanted:
            found = fields[fields.index("-") + 1]
    return found


def is_on_network(path: Path) -> bool:
    """Whether other machines may have the same file system. Raises `OSError`."""
    kind = kind_of(path)
    return kind in _NETWORK or kind.startswith(_NETWORK_FUSE)
