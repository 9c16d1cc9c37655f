"""What kind of file system a path lies on, as the kernel names it in mountinfo(5)."""

from __future__ import annotations

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
