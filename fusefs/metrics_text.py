"""`MetricsText`: what a mount counts as Prometheus' text, made when somebody asks for it. On the event loop.

All figures are plain numbers elsewhere (`store.metrics`, `Status`); here they get names and types, in a
registry of our own: prometheus_client's global one would add what we cannot vouch for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from fusefs.status import Status
from store.metrics import BOUNDS, CLOSED, HALF_OPEN, OPEN, Histogram, Metrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class MetricsText:
    """Renders the figures of one mount."""

    def __init__(self, metrics: Metrics, status: Callable[[], Status]) -> None:
        self._metrics = metrics
        self._status = status
        self._registry: CollectorRegistry | None = None

    def render(self) -> bytes:
        """The text of `.fusefs/metrics` and of the endpoint."""
        # Not at the top: most daemons are never asked, and it takes 15 ms and 2 MB.
        from prometheus_client import CollectorRegistry, generate_latest

        if self._registry is None:
            self._registry = CollectorRegistry()
            self._registry.register(self)
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """All families of metrics; called by the registry."""
        yield from _of_mount(self._status())
        yield from _of_daemon(self._metrics)
        yield from _of_remotes(self._metrics)
        yield from _of_making(self._metrics)


def _of_mount(status: Status) -> Iterator[Metric]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    ahead = status.prefetch
    named = {name: getattr(status, name) or "" for name in ("mountpoint", "oid", "rev", "mode")}
    labels = {name: _printable(value) for name, value in named.items()}
    yield InfoMetricFamily("fusefs_mount", "What is mounted where.", labels)
    for name, help_text, count in (
        ("fusefs_cache_hits", "Opens answered from the cache.", status.hits),
        ("fusefs_cache_misses", "Opens and sizes that the cache could not answer.", status.misses),
        ("fusefs_request_errors", "Requests that ended with an error of ours.", status.errors),
        ("fusefs_cache_read_bytes", "Bytes read from the cache for readers.", status.bytes_cache),
        ("fusefs_prefetched_files", "Files fetched ahead of readers.", ahead.fetched if ahead else 0),
        ("fusefs_prefetch_hits", "Opens of files that had been fetched ahead.", ahead.hits if ahead else 0),
    ):
        if count is not None:
            yield CounterMetricFamily(name, help_text, count)
    for name, help_text, value in (
        ("fusefs_mounted_timestamp_seconds", "When it was mounted, since the epoch.", status.since),
        ("fusefs_resident_memory_bytes", "The daemon's resident memory.", status.rss_bytes),
        ("fusefs_version_files", "Files of the version shown at the root.", status.files),
        ("fusefs_version_bytes", "What they have together, once all sizes are known.", status.bytes),
        (
            "fusefs_version_cached_bytes",
            "What of that is in the cache, measured at times.",
            status.cache_bytes,
        ),
    ):
        if value is not None:  # not known (yet): no sample is better than a wrong one
            yield GaugeMetricFamily(name, help_text, value)


def _of_daemon(metrics: Metrics) -> Iterator[Metric]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    requests = CounterMetricFamily("fusefs_requests", "Requests of the kernel.", labels=["kind"])
    for kind, count in sorted(metrics.requests.items()):
        requests.add_metric([kind], count)
    yield requests
    queues = metrics.queues()
    for name, help_text, counts in (
        ("fusefs_threads_limit", "Threads that there may be.", {k: q.limit for k, q in queues.items()}),
        ("fusefs_threads_busy", "Threads at work.", {k: q.busy for k, q in queues.items()}),
        (
            "fusefs_threads_waiting",
            "Work that waits for a thread.",
            {k: q.waiting for k, q in queues.items()},
        ),
    ):
        gauge = GaugeMetricFamily(name, help_text, labels=["kind"])
        for kind, count in counts.items():
            gauge.add_metric([kind], count)
        yield gauge
    yield GaugeMetricFamily("fusefs_flights", "Objects that are being fetched.", metrics.flights())
    yield GaugeMetricFamily(
        "fusefs_publications", "Objects that have come and are not kept yet.", metrics.publications()
    )


def _of_remotes(metrics: Metrics) -> Iterator[Metric]:
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    by_remote = ["remote"]
    objects = CounterMetricFamily(
        "fusefs_fetched_objects", "Objects brought whole, in one answer.", labels=by_remote
    )
    size = CounterMetricFamily("fusefs_fetched_bytes", "Bytes of objects that came.", labels=by_remote)
    retries = CounterMetricFamily("fusefs_remote_retries", "Calls made once more.", labels=by_remote)
    hedges = CounterMetricFamily(
        "fusefs_remote_hedges", "Calls beside which another remote was asked.", labels=by_remote
    )
    breaker = GaugeMetricFamily(
        "fusefs_remote_breaker", "1 for the state that the breaker is in.", labels=["remote", "state"]
    )
    calls = HistogramMetricFamily(
        "fusefs_remote_call_seconds", "How long calls took.", labels=["remote", "kind", "outcome"]
    )
    for label, remote in sorted(metrics.remotes().items()):
        figures = remote.figures()
        objects.add_metric([label], figures.objects)
        size.add_metric([label], figures.bytes)
        retries.add_metric([label], figures.retries)
        hedges.add_metric([label], figures.hedges)
        for state in (CLOSED, HALF_OPEN, OPEN):
            breaker.add_metric([label, state], figures.breaker == state)
        for (kind, outcome), histogram in sorted(figures.calls.items()):
            calls.add_metric([label, kind, outcome], _buckets(histogram), histogram.seconds)
    yield from (objects, size, retries, hedges, breaker, calls)


def _of_making(metrics: Metrics) -> Iterator[Metric]:
    """Of what makes frames, chunks and indexes; nothing where nobody has asked for any."""
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    making = metrics.making()
    if making is None:
        return
    for name, help_text, value in (
        ("fusefs_makers_limit", "Processes that make products, at most.", making.limit),
        ("fusefs_makers", "Processes that make products.", making.workers),
        ("fusefs_makers_busy", "Of them, those at work.", making.busy),
        ("fusefs_makers_waiting", "Products that wait for a process.", making.waiting),
    ):
        yield GaugeMetricFamily(name, help_text, value)
    for name, help_text, count in (
        ("fusefs_made_products", "Products made: chunks of frames, indexes, and so on.", making.made),
        ("fusefs_found_products", "Products that a remote had.", making.found),
        ("fusefs_failed_products", "Products that could not be made.", making.failed),
        ("fusefs_kept_products", "Products that came into the cache.", making.kept),
        ("fusefs_kept_product_bytes", "Bytes of products that came into the cache.", making.kept_bytes),
    ):
        yield CounterMetricFamily(name, help_text, count)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """As Prometheus wants them: each counts what is below its end, the last one everything."""
    ends = [*map(str, BOUNDS), "+Inf"]
    return list(zip(ends, accumulate(histogram.counts), strict=True))


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
