"""`Metrics`: what the store counts for whoever watches it; plain numbers, read when somebody asks.

Counting must cost nothing beside what is counted: the loop's own figures are plain integers (see also
`Counters` in `store.content_store`), those of remotes are kept behind a lock of a remote's own, because calls
end in worker threads. `fusefs/metrics_text.py` makes Prometheus' text of it all.

A label is never more than `LABEL_LENGTH` printable characters without credentials, and there are never more
than `MAX_REMOTES` of them: names of remotes come from repositories' configurations.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from store.errors import (
    ObjectCorrupt,
    ObjectMissing,
    RemoteCorrupt,
    RemoteDenied,
    RemoteMissing,
    RemoteSlow,
    RemoteUnreachable,
    StoreTimeout,
)

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds: the upper ends of a histogram's buckets; the last bucket has none."""

OK: Final = "ok"
FAILED: Final = "failed"
"""An outcome that is none of the others: a bug, or a range that was refused."""
_OUTCOMES: Final = (
    ((RemoteMissing, ObjectMissing), "missing"),
    ((RemoteDenied,), "denied"),
    ((RemoteSlow, StoreTimeout), "slow"),
    ((RemoteCorrupt, ObjectCorrupt), "corrupt"),
    ((RemoteUnreachable,), "unreachable"),
)

BYTES: Final = "bytes"
QUESTION: Final = "question"

CLOSED: Final = "closed"
HALF_OPEN: Final = "half-open"
OPEN: Final = "open"
"""The states of a circuit breaker: calls pass, one is let pass to see, none passes."""

MAX_REMOTES: Final = 32
LABEL_LENGTH: Final = 80
OTHERS: Final = "(others)"
"""Stands for all remotes beyond `MAX_REMOTES`."""

_USER_INFO: Final = re.compile(r"(?<=://)[^\s]*@")
_QUERY: Final = re.compile(r"[?#].*", re.DOTALL)


def outcome_of(error: BaseException | None) -> str:
    """The name of how a call ended; `None` is success."""
    if error is None:
        return OK
    return next((name for kinds, name in _OUTCOMES if isinstance(error, kinds)), FAILED)


def label_of(name: str) -> str:
    """A remote's name as it may stand in a label: short, printable, of an address only the place."""
    if "://" in name:
        name = _QUERY.sub("", _USER_INFO.sub("", name))
    return "".join(char if char.isprintable() else "?" for char in name[:LABEL_LENGTH])


@dataclass(frozen=True, slots=True)
class Queue:
    """The work of one kind at one moment: how much of it may go on at once, goes on, and waits."""

    limit: int
    busy: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Making:
    """What is made of sources (frames, chunks, indexes) at one moment, and what was made so far."""

    limit: int
    """Worker processes that there may be."""
    workers: int
    """That there are."""
    busy: int
    """Of them, those that are at something."""
    waiting: int
    """Products that wait for a worker."""
    made: int
    """Products."""
    found: int
    """Products that a remote had."""
    failed: int
    """Products that could not be made, or not wholly."""
    kept: int
    """Products that have come into the cache."""
    kept_bytes: int


@dataclass(slots=True)
class Histogram:
    """How long something took: a count for each of `BOUNDS` and one beyond; not cumulative."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def copy(self) -> Histogram:
        return Histogram(list(self.counts), self.seconds)


@dataclass(frozen=True, slots=True)
class RemoteFigures:
    """A remote's figures at one moment."""

    objects: int
    bytes: int
    retries: int
    hedges: int
    breaker: str
    calls: Mapping[tuple[str, str], Histogram]
    """By what was asked for (`BYTES` or `QUESTION`) and outcome."""


class RemoteMetrics:
    """Counts what happens with one remote. Any thread."""

    def __init__(self) -> None:
        self.breaker: Callable[[], str] = lambda: CLOSED
        """Tells the breaker's state; set by whoever has one, called on the loop."""
        self._lock = threading.Lock()
        self._objects = 0
        self._bytes = 0
        self._retries = 0
        self._hedges = 0
        self._calls: dict[tuple[str, str], Histogram] = {}

    def called(self, seconds: float, error: BaseException | None = None, *, question: bool = False) -> None:
        """A call to the remote has ended after `seconds`, with an error or without."""
        key = (QUESTION if question else BYTES, outcome_of(error))
        with self._lock:
            histogram = self._calls.get(key)
            if histogram is None:
                histogram = self._calls[key] = Histogram()
            histogram.add(seconds)

    def received(self, size: int) -> None:
        """So many bytes of an object have come, whatever becomes of them."""
        with self._lock:
            self._bytes += size

    def fetched(self) -> None:
        """A small object has come whole and is what it should be."""
        with self._lock:
            self._objects += 1

    def retried(self) -> None:
        """The remote is asked once more after an error of its own."""
        with self._lock:
            self._retries += 1

    def hedged(self) -> None:
        """Another remote is asked because this one takes long."""
        with self._lock:
            self._hedges += 1

    def figures(self) -> RemoteFigures:
        """What was counted so far. On the loop."""
        breaker = self.breaker()
        with self._lock:
            calls = {key: histogram.copy() for key, histogram in self._calls.items()}
            return RemoteFigures(self._objects, self._bytes, self._retries, self._hedges, breaker, calls)


class Metrics:
    """What one daemon counts. `requests` and the callables belong to the loop."""

    def __init__(self) -> None:
        self.requests: dict[str, int] = {}
        """Requests of the kernel by their kind."""
        self.queues: Callable[[], Mapping[str, Queue]] = dict
        """The limiters of `store.threads` by name; set by whoever has them."""
        self.flights: Callable[[], int] = int
        """How many objects are being fetched; likewise."""
        self.publications: Callable[[], int] = int
        """How many have come and are not in the cache yet; likewise."""
        self.making: Callable[[], Making | None] = lambda: None
        """What makes products; None where nothing was asked for."""
        self._lock = threading.Lock()
        self._remotes: dict[str, RemoteMetrics] = {}

    def remote(self, name: str) -> RemoteMetrics:
        """The figures of a remote of that name; the same for two remotes of one name. Any thread."""
        label = label_of(name)
        with self._lock:
            if label not in self._remotes and len(self._remotes) >= MAX_REMOTES:
                label = OTHERS
            return self._remotes.setdefault(label, RemoteMetrics())

    def bytes_received(self) -> int:
        """From all remotes together. On the loop."""
        return sum(remote.figures().bytes for remote in self.remotes().values())

    def remotes(self) -> dict[str, RemoteMetrics]:
        """All of them by their labels."""
        with self._lock:
            return dict(self._remotes)
