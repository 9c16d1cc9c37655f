"""`StatusReporter`: fills in the daemon's `Status` when somebody reads it. Lives on the event loop."""

from __future__ import annotations

import logging
import os
from typing import Final

import trio

from fusefs.pinning import Pinner
from fusefs.plan import MountPlan
from fusefs.status import LimitsStatus, Status, resident_bytes
from fusefs.tree_space import TreeSpace
from store.content_store import Counters
from store.metrics import Metrics

log = logging.getLogger(__name__)

MEASURE_PAUSE: Final = 20
"""The cache is measured again after this many times as long as the last measurement took."""


class StatusReporter:
    """Says how the mount is doing; measures the cache in the background when somebody asks."""

    def __init__(
        self,
        plan: MountPlan,
        counters: Counters,
        metrics: Metrics,
        pinner: Pinner,
        control: str,
        nursery: trio.Nursery,
    ) -> None:
        self._plan = plan
        self._pinner = pinner
        self._counters = counters
        self._metrics = metrics
        self._control = control
        self._nursery = nursery
        self._shown: TreeSpace | None = None
        self._cache_bytes: int | None = None
        self._measure_after = 0.0
        self.metrics_address = ""
        """Where the endpoint of the metrics listens; empty for none."""

    def show(self, space: TreeSpace) -> None:
        """Speak of this version from now on."""
        self._shown = space
        self._cache_bytes = None
        self._measure_after = 0.0

    def report(self) -> bytes:
        """The JSON of `.fusefs/status`."""
        return self.status().to_json()

    def status(self) -> Status:
        """How the mount is doing now."""
        plan, counters, shown = self._plan, self._counters, self._shown
        if shown is not None and trio.current_time() >= self._measure_after:
            self._measure_after = float("inf")
            self._nursery.start_soon(self._measure, shown)
        return Status(
            mountpoint=plan.mountpoint,
            target=plan.target,
            oid=(shown.oid or None) if shown else None,
            rev=(shown.rev or None) if shown else None,
            mode=plan.mode,
            pid=os.getpid(),
            since=plan.since,
            files=shown.tree.files if shown else None,
            bytes=None if shown is None or shown.files.sizes_unknown else shown.files.bytes_known,
            hits=counters.hits,
            misses=counters.misses,
            errors=counters.errors,
            bytes_cache=counters.bytes_cache,
            bytes_remote=self._metrics.bytes_received(),
            cache_bytes=self._cache_bytes,
            rss_bytes=resident_bytes(),
            log=plan.log or None,
            control=self._control,
            pins=self._pinner.report(),
            metrics=self.metrics_address or None,
            limits=LimitsStatus(plan.cache, plan.cache_size or None, plan.cache_free or None),
        )

    async def _measure(self, shown: TreeSpace) -> None:
        begin = trio.current_time()
        measured = None
        try:
            measured = await shown.files.measure_cached()
        except Exception:  # a figure that cannot be had must not end the mount
            log.exception("the cache could not be measured")
        if shown is self._shown:
            self._cache_bytes = measured
            now = trio.current_time()
            self._measure_after = now + max(1.0, MEASURE_PAUSE * (now - begin))
