"""The composition root of the daemon: a plan and a `/dev/fuse` descriptor in, a served mount out.

Called by `fusefs.daemon` inside `trio.run`. Whoever mounted unmounts; here the connection is only
served until the kernel ends it (umount) or the surrounding cancel scope does (a signal).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyfuse3
import trio

from fusefs.control import ControlSpace
from fusefs.directories import blob_directory
from fusefs.operations import Operations
from fusefs.plan import MountPlan
from fusefs.status import Status, resident_bytes
from fusefs.tree_space import TreeSpace
from store.blobs import BlobSource
from store.content_store import ContentStore, Counters
from store.fetcher import Fetcher
from store.local_cache import LocalCache
from store.threads import Threads
from store.tree import Tree
from store.tree_files import TreeFiles

log = logging.getLogger(__name__)

MAX_TASKS: Final = 1000
"""Requests in flight. A parked request holds one; too few and a slow read delays a `stat`."""

MEASURE_PAUSE: Final = 20
"""The cache is measured again after this many times as long as the last measurement took."""


class StatusReporter:
    """Says how the mount is doing; measures the cache in the background when somebody asks."""

    def __init__(self, plan: MountPlan, files: TreeFiles, counters: Counters, nursery: trio.Nursery) -> None:
        self._plan = plan
        self._files = files
        self._counters = counters
        self._nursery = nursery
        self._cache_bytes: int | None = None
        self._measure_after = 0.0

    def report(self) -> bytes:
        """The JSON of `.fusefs/status`."""
        if trio.current_time() >= self._measure_after:
            self._measure_after = float("inf")
            self._nursery.start_soon(self._measure)
        plan, files, counters = self._plan, self._files, self._counters
        return Status(
            mountpoint=plan.mountpoint,
            target=plan.target,
            oid=plan.oid or None,
            rev=plan.rev or None,
            mode=plan.mode,
            pid=os.getpid(),
            since=plan.since,
            files=files.tree.files,
            bytes=None if files.sizes_unknown else files.bytes_known,
            hits=counters.hits,
            misses=counters.misses,
            errors=counters.errors,
            bytes_cache=counters.bytes_cache,
            bytes_remote=counters.bytes_remote,
            cache_bytes=self._cache_bytes,
            rss_bytes=resident_bytes(),
            log=plan.log or None,
        ).to_json()

    async def _measure(self) -> None:
        begin = trio.current_time()
        try:
            self._cache_bytes = await self._files.measure_cached()
        except Exception:  # a figure that cannot be had must not end the mount
            log.exception("the cache could not be measured")
        now = trio.current_time()
        self._measure_after = now + max(1.0, MEASURE_PAUSE * (now - begin))


async def serve(plan: MountPlan, fuse_fd: int, ready: Callable[[], None]) -> None:
    """Serve the mount on `fuse_fd` until its connection ends; calls `ready` once requests are answered.

    Raises `TreeDamaged` or OSError where the tree cannot be opened. The descriptor is used up.
    """
    tree = Tree.open(Path(plan.tree))
    cache, blobs = LocalCache(Path(plan.cache)), LocalCache(blob_directory())
    threads = Threads()
    started = time.monotonic()
    async with trio.open_nursery() as background:
        store = ContentStore(cache, blobs, threads, Fetcher(threads, background))
        git_dirs = [Path(git_dir) for git_dir in plan.git_dirs]
        files = TreeFiles(tree, store, BlobSource(git_dirs, blobs.root) if git_dirs else None)
        reporter = StatusReporter(plan, files, store.counters, background)
        root = TreeSpace(
            files, number=0, uid=plan.uid, gid=plan.gid, umask=plan.umask, oid=plan.oid, rev=plan.rev
        )
        control = ControlSpace({b"status": reporter.report}, uid=plan.uid, gid=plan.gid)
        operations = Operations(root, control, store.counters)
        pyfuse3.init(operations, f"/dev/fd/{fuse_fd}", {"fsname=fusefs", "ro"})
        try:
            log.info("serving %s on %s", plan.target, plan.mountpoint)
            ready()
            await pyfuse3.main(min_tasks=1, max_tasks=MAX_TASKS)
        finally:
            background.cancel_scope.cancel()
            operations.close_all()
            pyfuse3.close(unmount=False)
            cache.close()
            blobs.close()
            log.info("ended after %.0f s", time.monotonic() - started)
