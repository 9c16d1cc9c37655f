"""`StatusReporter`: fills in the daemon's `Status` when somebody reads it. Lives on the event loop."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

import trio

from fusefs.pinning import Pinner
from fusefs.plan import MountPlan
from fusefs.status import LimitsStatus, PrefetchStatus, RemoteStatus, Status, resident_bytes
from fusefs.succession import Succession
from fusefs.tree_space import TreeSpace
from store.content_store import Counters
from store.errors import RemoteDenied
from store.fetching.breaker import Health
from store.fetching.remote_pool import RemotePool
from store.metrics import MAX_REMOTES, Metrics, RemoteFigures, label_of

log = logging.getLogger(__name__)

MEASURE_PAUSE: Final = 20
"""The cache is measured again after this many times as long as the last measurement took."""
REASON_LENGTH: Final = 300
"""Characters of what a remote said."""


class StatusReporter:
    """Says how the mount is doing; measures the cache in the background when somebody asks."""

    def __init__(
        self,
        plan: MountPlan,
        counters: Counters,
        metrics: Metrics,
        pool: RemotePool,
        pinner: Pinner,
        control: str,
        nursery: trio.Nursery,
        succession: Succession,
    ) -> None:
        self._succession = succession
        self._plan = plan
        self._pinner = pinner
        self._counters = counters
        self._metrics = metrics
        self._pool = pool
        self._control = control
        self._nursery = nursery
        self._shown: TreeSpace | None = None
        self._cache_bytes: int | None = None
        self._measure_after = 0.0
        self.sees_hits: Callable[[], bool] = lambda: True
        """Does the daemon know what is opened of what is cached?"""
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
            why_fuse=plan.why_fuse or None,
            pid=os.getpid(),
            supervisor=self._succession.supervisor,
            restarts=self._succession.restarts,
            since=plan.since,
            files=shown.tree.files if shown else None,
            bytes=None if shown is None or shown.files.sizes_unknown else shown.files.bytes_known,
            hits=counters.hits if self.sees_hits() else None,
            misses=counters.misses,
            errors=counters.errors,
            bytes_cache=counters.bytes_cache if plan.mode == "fuse" else None,
            bytes_remote=self._metrics.bytes_received(),
            cache_bytes=self._cache_bytes,
            rss_bytes=resident_bytes(),
            log=plan.log or None,
            control=self._control,
            pins=self._pinner.report(),
            remotes=self._remotes(),
            offline=plan.offline,
            verify=plan.verify,
            metrics=self.metrics_address or None,
            limits=LimitsStatus(plan.cache, plan.cache_size or None, plan.cache_free or None),
            prefetch=self._describe_prefetch(),
            making=self._metrics.making(),
            view=plan.view or None,
        )

    def _describe_prefetch(self) -> PrefetchStatus:
        prefetcher = self._shown.files.prefetcher if self._shown else None
        if prefetcher is None:
            return PrefetchStatus(order="none", ahead=0, fetching=0, fetched=0, hits=0)
        return PrefetchStatus(**asdict(prefetcher.report()))

    def _remotes(self) -> tuple[RemoteStatus, ...]:
        figures = {name: remote.figures() for name, remote in self._metrics.remotes().items()}
        health = self._pool.health()
        # First those of the version that was mounted, in their order; offline, some are in no pool.
        names = dict.fromkeys([*(label_of(spec.name) for spec in self._plan.remotes), *figures])
        return tuple(
            RemoteStatus(name, *_state(health.get(name)), *_counts(figures.get(name)))
            for name in list(names)[:MAX_REMOTES]
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


def _state(health: Health | None) -> tuple[str, str]:
    """A remote's state, and why."""
    if health is None:
        return "not asked", ""
    trouble = health.trouble()
    if trouble is None:
        return "ok", ""
    reason = str(trouble)[:REASON_LENGTH]
    if isinstance(trouble, RemoteDenied):
        return "denied", reason
    return ("failing" if health.may_ask() else "resting"), reason


def _counts(figures: RemoteFigures | None) -> tuple[int, int]:
    return (figures.objects, figures.bytes) if figures is not None else (0, 0)
