"""`Workers`: the pool of worker processes, and who makes what when.

What somebody waits for comes first, in its order; then the rest of products of which pieces were asked for;
then what is made ahead. Where all workers are busy and somebody waits, one that works for nobody is stopped
after its piece and goes on later. Of several workers, all but one make the rest of products whose readers
jump about, so that one is free for the next jump. Chunks of one run are left to the worker that is at it.
Workers are started when they are needed and ended when they have been idle for a while.

Thread rule: belongs to the event loop.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Final

import trio

from store.errors import MediaFailed, StoreError
from store.making.flight import Flight, source_of
from store.making.makers import MAKERS, Registered
from store.making.started_worker import StartedWorkers
from store.making.wire import WireBroken
from store.making.worker_process import WorkerProcess

DEADLINE: Final = 60.0
"""Seconds within which a worker says something; it does so at least with every read of a source."""
IDLE_SECONDS: Final = 30.0
MOST_WORKERS: Final = 16
MOST_LEFT: Final = 64
"""Products that nobody waits for."""

log = logging.getLogger(__name__)


class Workers:
    """`most` processes, by default one for each core; `started` become the first of them. `settle` is told of
    every flight that has ended."""

    def __init__(
        self,
        nursery: trio.Nursery,
        settle: Callable[[Flight], object],
        makers: Mapping[str, Registered] = MAKERS,
        most: int = 0,
        deadline: float = DEADLINE,
        started: StartedWorkers | None = None,
    ) -> None:
        self.most = most or min(len(os.sched_getaffinity(0)), MOST_WORKERS)
        self._nursery = nursery
        self._settle = settle
        self._makers = makers
        self._deadline = deadline
        self._waiting: dict[str, Flight] = {}
        self._busy: dict[WorkerProcess, Flight] = {}
        self._idle: list[WorkerProcess] = []
        self._started = started
        self._ends_idle = False
        self._is_closed = False

    def submit(self, flight: Flight) -> None:
        """Have a flight's product made."""
        if self._is_closed:
            self._end(flight, MediaFailed("nothing is made any more"))
            return
        flight.noted, flight.wanted = self._noted, self.attend
        self._waiting[flight.key] = flight
        self.attend()

    def attend(self) -> None:
        """Give the workers what is due: to be called when somebody begins to wait for a flight."""
        for flight in sorted(self._waiting.values(), key=_rank):
            worker = self._worker_for(flight)
            if worker is not None:
                del self._waiting[flight.key]
                self._busy[worker] = flight
                self._nursery.start_soon(self._make, worker, flight)
            elif flight.is_wanted and flight.key in self._waiting:
                self._make_way()
        left = [flight for flight in self._waiting.values() if not flight.is_wanted]
        for flight in left[:-MOST_LEFT]:
            self._end(self._waiting.pop(flight.key), None)

    @property
    def are_busy(self) -> bool:
        """Is one of them at something?"""
        return bool(self._busy)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Processes that there are, those that are at something, and products that wait for one."""
        return len(self._busy) + len(self._idle), len(self._busy), len(self._waiting)

    def close(self) -> None:
        """End all of them; what they are at fails. Blocking, not for long."""
        self._is_closed = True
        for worker in (*self._busy, *self._idle):
            worker.kill()  # so that they die side by side
        for worker in (*self._busy, *self._idle):
            worker.close()
        self._idle.clear()
        for key in list(self._waiting):
            self._end(self._waiting.pop(key), MediaFailed("nothing is made any more"))

    def _worker_for(self, flight: Flight) -> WorkerProcess | None:
        if not flight.is_wanted:
            run = flight.run()
            if any(other.run() == run for other in self._busy.values()):
                return None
            if not flight.is_ahead and not flight.is_read_on and self._is_enough_left_over(1):
                return None
        source = source_of(flight.task)
        for worker in self._idle:
            if worker.source == source:
                self._idle.remove(worker)
                return worker
        if self._idle:
            return self._idle.pop()
        return self._start(flight) if len(self._busy) < self.most else None

    def _start(self, flight: Flight) -> WorkerProcess | None:
        try:
            started = self._started.take() if self._started else None
            worker = WorkerProcess(self._deadline, started)
        except OSError as error:
            failure = MediaFailed(f"{flight.task}: no process can be started: {error.strerror}")
            self._end(self._waiting.pop(flight.key), failure)
            return None
        if started is not None:
            worker.idle_since = trio.current_time()  # if it has died by now, it is not for what it gets
        if not self._ends_idle:
            self._ends_idle = True
            self._nursery.start_soon(self._end_idle)
        return worker

    def _is_enough_left_over(self, more: int) -> bool:
        """Would too many workers make the rest of products whose readers jump about?"""
        rests = [f for f in self._busy.values() if not f.is_wanted and not f.is_ahead and not f.is_read_on]
        return len(rests) + more > max(1, self.most - 1)

    def _make_way(self) -> None:
        """Stop a worker that works for nobody, unless enough are stopping."""
        stopping = sum(worker.is_stopping for worker in self._busy)
        if stopping >= sum(flight.is_wanted for flight in self._waiting.values()):
            return
        free = [(worker, flight) for worker, flight in self._busy.items() if self._can_stop(worker, flight)]
        if free:
            max(free, key=lambda pair: _rank(pair[1]))[0].stop()

    def _can_stop(self, worker: WorkerProcess, flight: Flight) -> bool:
        return not flight.is_wanted and not worker.is_stopping and self._makers[flight.task.maker].goes_on

    def _noted(self, flight: Flight) -> None:
        """A piece was made: let one who works for nobody stop, where too many do."""
        if not flight.is_wanted and not flight.is_read_on and self._is_enough_left_over(0):
            for worker, other in self._busy.items():
                if other is flight and self._can_stop(worker, flight):
                    worker.stop()

    async def _make(self, worker: WorkerProcess, flight: Flight) -> None:
        failure: StoreError | None = None
        lives = False
        begun = trio.current_time()
        try:
            await worker.make(flight, self._makers[flight.task.maker])
            lives = True
        except WireBroken as error:
            how = await worker.end()
            if self._died_idle(worker, begun) and not flight.is_tried_again:
                flight.is_tried_again = True
                self._waiting[flight.key] = flight
            failure = MediaFailed(f"{flight.task} failed: {error}; the worker was ended ({how})")
        except StoreError as error:
            failure = error
            lives = True
        except Exception:
            log.exception("%s", flight.task)
            failure = MediaFailed(f"{flight.task} failed by a fault of ours")
            await worker.end()
        finally:
            del self._busy[worker]
            if not lives:
                worker.close()
        if lives and not self._is_closed:
            worker.idle_since = trio.current_time()
            self._idle.append(worker)
        if flight.key in self._waiting:
            self.attend()
            return
        if failure is None and not flight.product.is_whole:
            if worker.is_stopping and not self._is_closed:
                self._waiting[flight.key] = flight
                self.attend()
                return
            failure = MediaFailed(f"{flight.task}: fewer pieces were made than there should be")
        self._end(flight, failure)
        self.attend()

    def _died_idle(self, worker: WorkerProcess, begun: float) -> bool:
        """Did it end while it had nothing to do? Then what it was given at last is not to blame."""
        is_at_once = trio.current_time() - begun < self._deadline / 2
        return worker.idle_since > 0 and is_at_once and not (worker.has_answered or self._is_closed)

    def _end(self, flight: Flight, failure: StoreError | None) -> None:
        flight.end(failure)
        self._settle(flight)

    async def _end_idle(self) -> None:
        while True:
            await trio.sleep(IDLE_SECONDS / 4)
            late = trio.current_time() - IDLE_SECONDS
            for worker in [worker for worker in self._idle if worker.idle_since < late]:
                self._idle.remove(worker)
                await worker.end()


def _rank(flight: Flight) -> tuple[bool, bool, int]:
    """What comes first."""
    return not flight.is_wanted, flight.is_ahead, flight.order
