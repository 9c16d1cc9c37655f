"""`Sender`: many things put on a remote by a few threads, and what became of each.

Large things go by a few threads, small ones by many; what may pass is tried again; a remote that takes
nothing any more is given up. Blocking; the caller's thread watches, others work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, TypeVar

from store.errors import (
    CacheUnusable,
    ObjectCorrupt,
    ObjectMissing,
    RemoteDenied,
    RemoteError,
    RemoteFull,
    RemoteMissing,
    RemoteSlow,
    StoreError,
)
from store.oid import Oid
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.pushing.lanes import Lanes
from store.remotes.storage import CHUNK_BYTES, WritableStorage

JOBS: Final = 16
MOST_JOBS: Final = 64
LARGE_BYTES: Final = CHUNK_BYTES
"""Of larger things only a few are sent at a time: each has some parts in memory."""
LARGE_JOBS: Final = 4
MOST_FAILURES: Final = 16
"""In a row: then the remote is given up. At once it is where it denies something, has no room, or loses
what it took."""

_HOPELESS: Final = (RemoteDenied, RemoteFull, RemoteMissing)


@dataclass(frozen=True, slots=True)
class Failure:
    """What was not pushed, and what was said."""

    oid: Oid
    error: StoreError


@dataclass(slots=True)
class Tally:
    """How a push is getting on. Bytes are those of contents."""

    objects: int = 0
    """That the versions are made of, manifests among them."""
    there: int = 0
    """That the remote had."""
    pushed: int = 0
    bytes: int = 0
    """Of what was pushed."""
    sent: int = 0
    """Bytes that have gone, also of what was sent twice or came to nothing."""
    lacking: int = 0
    lacking_bytes: int = 0
    failures: list[Failure] = field(default_factory=list)


class Sendable(Protocol):
    """What is put: so many bytes."""

    @property
    def size(self) -> int: ...


S = TypeVar("S", bound=Sendable)


class Sender:
    """For one push to one remote."""

    def __init__(self, storage: WritableStorage, jobs: int, tick: Callable[[], object]) -> None:
        """`tick` is called a few times a second by the thread that waits."""
        self.tally = Tally()
        self.jobs = jobs
        self.crew = Crew(tick)
        self.patience = Patience(self.crew)
        self.failed: set[Oid] = set()
        self._storage = storage
        self._lanes = Lanes(self.crew, jobs + LARGE_JOBS)
        self._lock = threading.Lock()
        self._in_a_row = 0

    def put_all(
        self, things: Sequence[S], put: Callable[[S], object], fail: Callable[[S, StoreError], object]
    ) -> None:
        """Put all of them, in their order, so far as several threads keep one. `put` may run again after an
        error that may pass; `fail` is told of those that went wrong.

        Raises `RemoteError` where no other thing will do better.
        """
        large = iter([thing for thing in things if thing.size > LARGE_BYTES])
        small = iter([thing for thing in things if thing.size <= LARGE_BYTES])

        def work(waiting: Iterator[S]) -> None:
            while True:
                self.crew.check()
                with self._lock:
                    thing = next(waiting, None)
                if thing is None:
                    return
                self._put(thing, put, fail)

        count = min(len(things), self.jobs)
        few = min(count, LARGE_JOBS)
        self.crew.run([partial(work, large)] * few + [partial(work, small)] * count)

    def _put(self, thing: S, put: Callable[[S], object], fail: Callable[[S, StoreError], object]) -> None:
        try:
            self.patience.run(lambda: self._put_in_lane(thing, put))
        except (ObjectMissing, ObjectCorrupt, CacheUnusable) as error:
            fail(thing, error)
        except RemoteError as error:
            fail(thing, error)
            with self._lock:
                self._in_a_row += 1
                is_over = isinstance(error, _HOPELESS) or self._in_a_row >= MOST_FAILURES
            if is_over:
                raise
        else:
            with self._lock:
                self._in_a_row = 0

    def _put_in_lane(self, thing: S, put: Callable[[S], object]) -> None:
        """Put it, in as narrow a lane as it takes."""
        while True:
            with self._lanes.lane() as limit:
                try:
                    put(thing)
                except RemoteSlow as error:
                    if error.retry_after or not self._lanes.narrow(limit):
                        raise
                else:
                    self._lanes.went_well()
                    return

    def put_bytes(self, key: str, data: bytes) -> None:
        """Put a thing that is in memory."""
        parts = (data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES))
        self._storage.put(key, parts, len(data))
        self.sent(len(data))

    def sent(self, length: int) -> None:
        """So many bytes have gone. Raises `Stopped`."""
        self.crew.check()
        with self._lock:
            self.tally.sent += length

    def pushed(self, objects: int, size: int) -> None:
        """So many objects are there now, with so many bytes."""
        with self._lock:
            self.tally.pushed += objects
            self.tally.bytes += size

    def fail(self, oid: Oid, error: StoreError) -> None:
        """The object was not pushed. What is said first of one counts."""
        with self._lock:
            if oid not in self.failed:
                self.failed.add(oid)
                self.tally.failures.append(Failure(oid, error))
