"""`python -m store.fetching.courier_process`: brings small objects for a daemon (`store.fetching.courier`).

Standard input is a socket. After the settings come orders, each to one of the threads that wait for one:
the kernel hands them out, so there is no queue and no thread that wakes others. What was brought is kept
until the daemon says that it is to be published, or forgotten. When the socket ends, so does the process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgpack

from store.errors import CacheUnusable, RemoteSlow, StoreError
from store.fetching import courier_messages as messages
from store.fetching.arrivals import Arrivals
from store.fetching.courier_messages import Bring, Report
from store.fetching.download import Downloader, Fetched, Large, Wanted
from store.fetching.publishing import publish
from store.fetching.remote_pool import LazyStorage
from store.local_cache import LocalCache
from store.metrics import RemoteMetrics
from store.oid import Oid
from store.remotes.opening import open_remote
from store.remotes.remote import Remote
from store.remotes.spec import VERSIONED_LAYOUT, RemoteSpec
from store.tree import UNKNOWN

FIRST_THREADS: Final = 4
FOLLOWED_SECONDS: Final = 1.0
"""For so long a cache is taken to be where it was."""
_OVERHEAD: Final = 4096
"""Of a message, beside an object's bytes."""


class _Tally(RemoteMetrics):
    """Counts bytes for the thread that receives them."""

    def __init__(self) -> None:
        super().__init__()
        self._here = threading.local()

    def received(self, size: int) -> None:
        self._here.bytes = getattr(self._here, "bytes", 0) + size

    def take(self) -> int:
        """What has come in this thread since it last asked."""
        found: int = getattr(self._here, "bytes", 0)
        self._here.bytes = 0
        return found


class _Remotes:
    """Storages, each opened once a generation. Any thread."""

    def __init__(self, tally: _Tally) -> None:
        self._tally = tally
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[int, str, LazyStorage]] = {}

    def get(self, order: Bring) -> Remote:
        generation, name, storage = self._known.get(order.wire) or self._add(order)
        if order.generation > generation:
            with self._lock:
                if order.generation > self._known[order.wire][0]:
                    self._known[order.wire] = (order.generation, name, storage)
                    storage.renew()
        oid = order.digest + ".dir" * order.is_directory
        return Remote(name, storage, VERSIONED_LAYOUT, {oid: (order.key, order.version)})

    def _add(self, order: Bring) -> tuple[int, str, LazyStorage]:
        with self._lock:
            found = self._known.get(order.wire)
            if found is None:
                spec = RemoteSpec.from_wire(messages.unpack_map(order.wire))
                storage = LazyStorage(spec, open_remote, self._tally)
                found = self._known[order.wire] = (order.generation, spec.name, storage)
            return found


class _Places:
    """The caches that orders name. Any thread."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, LocalCache]] = {}

    def find(self, oid: Oid, order: Bring) -> tuple[int, int] | None:
        """The object, open, and its length, which is the one that is known; None where no cache has it."""
        for place in order.places:
            found = self._open(place).find(oid)
            if found is not None:
                if order.known in (UNKNOWN, found[1]):
                    return found
                os.close(found[0])
        return None

    def _open(self, place: str) -> LocalCache:
        now = time.monotonic()
        followed, cache = self._known.get(place) or (0.0, LocalCache(Path(place)))
        if now - followed > FOLLOWED_SECONDS:
            cache.follow()
            self._known[place] = (now, cache)
        return cache


class _ToDaemon(logging.Handler):
    """Sends what is to be said in the log to whoever has one."""

    def __init__(self, door: socket.socket) -> None:
        super().__init__(logging.INFO)
        self._door = door

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage().encode(errors="backslashreplace")[: messages.LINE_BYTES]
        with contextlib.suppress(OSError):
            self._door.sendmsg((messages.head(Report(messages.LOG, record.levelno, 0, 0)), line))


class CourierProcess:
    """All that the threads share."""

    def __init__(self, door: socket.socket, settings: messages.Settings) -> None:
        self._door = door
        self._arrivals = Arrivals(Path(settings.root), below=settings.below)
        self._downloader = Downloader(self._arrivals, verify=settings.verify)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, messages.MESSAGE_BYTES)
        # The kernel counts its own expenses, too; half of what it says is for us.
        room = door.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2 - _OVERHEAD
        self._data_bytes = min(messages.DATA_BYTES, room)
        self._tally = _Tally()
        self._remotes = _Remotes(self._tally)
        self._places = _Places()
        self._brought: dict[int, Fetched] = {}
        self._to_publish: queue.SimpleQueue[tuple[int, tuple[int, ...]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._most_threads = settings.threads
        self._threads = 0
        self._idle = 0

    def run(self) -> None:
        """Serve until the socket ends; then the process does, whatever its threads are at."""
        threading.Thread(target=self._publish_all, daemon=True).start()
        for _ in range(FIRST_THREADS):
            self._start_thread()
        self._report(Report(messages.READY, 0, 0, 0))
        threading.Event().wait()

    def _start_thread(self) -> None:
        self._threads += 1
        self._idle += 1
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        buffer = bytearray(messages.ORDER_BYTES)
        view = memoryview(buffer)
        while True:
            length = self._door.recv_into(buffer)
            if not length:
                os._exit(0)
            kind, *values = messages.unpack(view[:length])
            if kind in (messages.BRING, messages.ASK):
                with self._lock:
                    self._idle -= 1
                    if not self._idle and self._threads < self._most_threads:
                        self._start_thread()
                (self._bring if kind == messages.BRING else self._ask)(Bring(*values))
                with self._lock:
                    self._idle += 1
            elif kind == messages.PUBLISH:
                self._to_publish.put((values[0], values[1]))
            else:
                self._forget(values[0])

    def _forget(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            fetched = self._brought.pop(number, None)
            if fetched is not None:
                self._downloader.discard(fetched)

    def _bring(self, order: Bring) -> None:
        oid = Oid(order.digest, order.is_directory, order.algorithm)
        here = self._places.find(oid, order) if order.places else None
        if here is not None:
            descriptor, size = here
            try:
                self._report(Report(messages.HERE, order.number, 0, size), descriptor=descriptor)
            finally:
                os.close(descriptor)
            return
        in_memory = min(order.in_memory, self._data_bytes)
        wanted = Wanted(oid, order.limit, order.keep, order.until, in_memory, order.known)
        try:
            result = self._downloader.download(self._remotes.get(order), wanted)
        except Exception as error:
            self._tell(order, error)
            return
        if isinstance(result, Large):
            self._report(Report(messages.LARGE, order.number, self._tally.take(), result.size))
            return
        if result.keep:
            self._brought[order.number] = result
        if result.data is not None:
            self._report(Report(messages.DATA, order.number, self._tally.take(), result.size), result.data)
        else:
            path = os.fsencode(result.path) if result.path is not None else b""
            report = Report(messages.FILE, order.number, self._tally.take(), result.size)
            self._report(report, path, result.descriptor)

    def _ask(self, order: Bring) -> None:
        try:
            size = self._remotes.get(order).size(Oid(order.digest, order.is_directory, order.algorithm))
        except Exception as error:
            self._tell(order, error)
        else:
            self._report(Report(messages.LARGE, order.number, 0, size))

    def _tell(self, order: Bring, error: Exception) -> None:
        said = error.args if isinstance(error, StoreError) else (str(error),)
        if isinstance(error, RemoteSlow):
            said = (str(error.args[0]), error.retry_after)
        payload = msgpack.packb((type(error).__name__, said))
        self._report(Report(messages.ERROR, order.number, self._tally.take(), 0), payload)

    def _report(self, report: Report, payload: bytes = b"", descriptor: int = -1) -> None:
        try:
            if descriptor < 0:
                self._door.sendmsg((messages.head(report), payload))
            else:
                socket.send_fds(self._door, (messages.head(report), payload), [descriptor])
        except OSError:
            os._exit(0)  # the daemon has gone

    def _publish_all(self) -> None:
        while True:
            number, orders = self._to_publish.get()
            try:
                said = self._publish(orders)
            except Exception as bug:
                said = [f"{type(bug).__name__}: {bug}"] * len(orders)
            self._report(Report(messages.PUBLISHED, number, 0, 0), msgpack.packb(said))

    def _publish(self, orders: tuple[int, ...]) -> list[str]:
        found = [self._brought.pop(number, None) for number in orders]
        there = [fetched for fetched in found if fetched is not None]
        outcomes = iter(publish(there, self._downloader, self._arrivals))
        said = []
        for fetched in found:
            failure: CacheUnusable | str | None = "it is not known any more"
            if fetched is not None:
                outcome = next(outcomes)
                failure = outcome.failure
                if failure is not None and outcome.file is not None:
                    self._downloader.discard(outcome.file)
            said.append(str(failure or ""))
        return said


def main() -> None:
    door = socket.socket(fileno=0)
    _, *values = messages.unpack(door.recv(messages.ORDER_BYTES))
    logger = logging.getLogger("store")  # and not what libraries say
    logger.setLevel(logging.INFO)
    logger.addHandler(_ToDaemon(door))
    CourierProcess(door, messages.Settings(*values)).run()


if __name__ == "__main__":
    main()
