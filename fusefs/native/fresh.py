"""What has come and is on no disk yet, in native mode: a layer between the caches and `fetch`.

It is a file system in memory that is mounted nowhere (`store.fetching.fresh`), so a reader of a missing
object waits for its bytes and not for the disk that keeps them. When that has them the object is in the
cache, and gone here but for the kernel, which goes on with the file that it has found as long as it remembers
the name: it is told to forget the unused ones when there are many, and when no more come. A daemon that comes
after another one has none: what has come then is read when it is on the disk.

Lives on the event loop.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from fusefs.native import mount_api
from fusefs.plan import MountPlan
from store.fetching.fresh import Fresh

log = logging.getLogger(__name__)

FRESH_BYTES: Final = 64 << 20
"""Of memory."""
_INODES: Final = 1 << 15
FULL: Final = 0.5
"""So much of it in use, and the kernel is to forget."""
LOOK_SECONDS: Final = 0.1
REST_SECONDS: Final = 1.0
"""What readers have open, or the disk does not have, stays whatever the kernel is told."""
IDLE_SECONDS: Final = 2.0
"""After so long without another one, too."""


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


class FreshLayer:
    """Of one mount. `forget_unused` has the kernel let go of names that nobody uses."""

    def __init__(self, fresh: Fresh, forget_unused: Callable[[], Awaitable[None]]) -> None:
        self._fresh = fresh
        self._forget_unused = forget_unused
        self._came = trio.Event()
        self._last = 0.0

    def note(self) -> None:
        """The kernel has been sent to find something here."""
        self._last = trio.current_time()
        self._came.set()

    async def run(self) -> None:
        """Keep what it takes of memory small."""
        while True:
            await self._came.wait()
            while self._fresh.used() < FULL and trio.current_time() < self._last + IDLE_SECONDS:
                await trio.sleep(LOOK_SECONDS)
            self._came = trio.Event()
            await self._forget_unused()
            await trio.sleep(REST_SECONDS)
