"""What has come and is on no disk yet, in native mode: a layer between the caches and `fetch`.

It is a file system in memory that is mounted nowhere, laid out as a cache. An object enters a cache only when
the disk has it: who reads there trusts it to survive a crash. A reader of a missing object waits for its
bytes and not for that. When the disk has them the object is in the cache, and gone here but for the kernel,
which goes on with the file that it has found as long as it remembers the name (`fusefs.native.forgetting`). A
daemon that comes after another one has none: what has come then is read when it is on the disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Final

from fusefs.native import mount_api
from fusefs.plan import MountPlan
from store.layouts import object_path
from store.oid import DVC_ALGORITHMS, Oid
from store.ownership import OBJECT_MODE

log = logging.getLogger(__name__)

FRESH_BYTES: Final = 64 << 20
"""Of memory."""
_INODES: Final = 1 << 15
_NAMELESS: Final = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC


class Fresh:
    """The directory `descriptor`, which stays its owner's. Never waits; any thread."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def make_directories(self) -> None:
        """Where objects come. Once, by its owner; raises OSError."""
        made = set()
        for algorithm in DVC_ALGORITHMS:
            for first in range(256):
                path = ""
                for part in object_path(Oid(f"{first:02x}" * 16, algorithm=algorithm)).split("/")[:-1]:
                    path += part
                    if path not in made:
                        os.mkdir(path, 0o700, dir_fd=self.descriptor)
                        made.add(path)
                    path += "/"

    def show(self, oid: Oid, data: bytes) -> None:
        """Have an object found, if there is room for it: whole, from one moment to the next."""
        with contextlib.suppress(OSError):
            # Without a name until it is whole: whoever is killed meanwhile leaves nothing behind.
            file = os.open(".", _NAMELESS, OBJECT_MODE, dir_fd=self.descriptor)
            try:
                if os.write(file, data) == len(data):
                    source = f"/proc/self/fd/{file}"
                    os.link(source, object_path(oid), dst_dir_fd=self.descriptor, follow_symlinks=True)
            finally:
                os.close(file)

    def take_back(self, oid: Oid) -> None:
        """Show an object no more. Who has it open goes on reading it, and the kernel may hold it for longer
        than that: memory is free when it does not."""
        with contextlib.suppress(OSError):
            os.unlink(object_path(oid), dir_fd=self.descriptor)

    def used(self) -> float:
        """How much of its memory is in use, as a fraction."""
        status = os.fstatvfs(self.descriptor)
        return max(1 - status.f_bfree / status.f_blocks, 1 - status.f_ffree / status.f_files)


def make_fresh(plan: MountPlan) -> Fresh | None:
    """Such a file system; None where nothing is fetched into the cache, or it cannot be."""
    if not plan.remotes or plan.verify == "off":
        return None
    options: list[mount_api.Option] = [
        ("size", str(FRESH_BYTES)),
        ("nr_inodes", str(_INODES)),
        ("mode", "700"),
    ]
    descriptor = -1
    try:
        descriptor = mount_api.mount_detached(
            "tmpfs", options, mount_api.MOUNT_ATTR_NOSUID | mount_api.MOUNT_ATTR_NODEV
        )
        fresh = Fresh(descriptor)
        fresh.make_directories()
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        log.info("what is fetched is read when it is on the disk: %s", error.strerror)
        return None
    return fresh
