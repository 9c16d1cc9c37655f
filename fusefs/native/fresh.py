"""What has come and is on no disk yet, in native mode: a layer between the caches and `fetch`.

It is a file system in memory that is mounted nowhere (`store.fetching.fresh`), so a reader of a missing
object waits for its bytes and not for the disk that keeps them. When that has them the object is in the
cache, and gone here but for the kernel, which goes on with the file that it has found as long as it remembers
the name (`fusefs.native.forgetting`). A daemon that comes after another one has none: what has come then is
read when it is on the disk.
"""

from __future__ import annotations

import logging
import os
from typing import Final

from fusefs.native import mount_api
from fusefs.plan import MountPlan
from store.fetching.fresh import Fresh

log = logging.getLogger(__name__)

FRESH_BYTES: Final = 64 << 20
"""Of memory."""
_INODES: Final = 1 << 15


def make_fresh(plan: MountPlan) -> int:
    """The descriptor of such a file system; -1 where nothing is fetched into the cache, or it cannot be."""
    if not plan.remotes or plan.verify == "off":
        return -1
    options: list[mount_api.Option] = [
        ("size", str(FRESH_BYTES)),
        ("nr_inodes", str(_INODES)),
        ("mode", "700"),
    ]
    try:
        descriptor = mount_api.mount_detached(
            "tmpfs", options, mount_api.MOUNT_ATTR_NOSUID | mount_api.MOUNT_ATTR_NODEV
        )
    except OSError as error:
        log.info("what is fetched is read when it is on the disk: %s", error.strerror)
        return -1
    try:
        Fresh(descriptor).make_directories()
    except OSError as error:
        os.close(descriptor)
        log.info("what is fetched is read when it is on the disk: %s", error.strerror)
        return -1
    return descriptor
