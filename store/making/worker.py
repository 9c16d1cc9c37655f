"""`python -m store.making.worker PARENT STOP [MODULE…]`: a process that makes products.

Standard input is the socket over which tasks come; it ends when that does, or with the process PARENT. STOP
is an eventfd by which the parent asks for an end of the task. MODULEs are imported before there is a task.
What is made is written to a descriptor that comes with the task. Sources are opened when they are first read
and kept for the next task; local files are read by their descriptors, the others through the parent.
Callers: `store.making.started_worker`.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import xxhash

from store import errors
from store.errors import CacheUnusable, MediaFailed, MediaInvalid, ObjectCorrupt, StoreError
from store.making import confinement, wire
from store.making.makers import Make, Piece
from store.making.wire import Wire, WireBroken
from store.media.source import LocalSource

OPEN_SOURCES: Final = 64
ALIVE_SECONDS: Final = 1.0


class Parent:
    """The process that serves, as a worker sees it. Its methods raise `WireBroken` when it has gone."""

    def __init__(self, connected: Wire, stop: int) -> None:
        self._wire = connected
        self._stop = stop
        self._said = time.monotonic()

    def next_task(self) -> tuple[list[Any], int]:
        """A task, and the descriptor of what is to be made."""
        message, descriptors = self._wire.receive()
        if message[0] != wire.MAKE or len(descriptors) != 1:
            raise WireBroken("this is no task")
        return message, descriptors[0]

    def say(self, *message: object) -> None:
        """Tell it something."""
        self._said = time.monotonic()
        self._wire.send(*message)

    def ask(self, *message: object) -> tuple[list[Any], list[int]]:
        """Its answer. Raises the `StoreError` that it tells."""
        self.say(*message)
        answer, descriptors = self._wire.receive()
        if answer[0] == wire.FAILED:
            kind = getattr(errors, answer[1], ObjectCorrupt)
            raise kind(answer[2])
        return answer, descriptors

    def is_alive(self) -> None:
        """Tell it, now and then, that work goes on."""
        if self.is_silent(ALIVE_SECONDS):
            self.say(wire.ALIVE)

    def is_silent(self, seconds: float) -> bool:
        """Has it been told nothing for so long?"""
        return time.monotonic() - self._said >= seconds

    def wants_other(self) -> bool:
        """Does it want this worker for something more urgent?"""
        try:
            os.eventfd_read(self._stop)
        except BlockingIOError:
            return False
        return True


class Sources:
    """What is open of the sources of this and of earlier tasks."""

    def __init__(self, parent: Parent) -> None:
        self.parent = parent
        self._known: dict[str, WorkerSource] = {}
        self._open: OrderedDict[WorkerSource, None] = OrderedDict()

    def of_task(self, wanted: Sequence[tuple[str, str]]) -> list[WorkerSource]:
        """The sources of a task that begins, by identities and names."""
        self._known = {source.oid: source for source in self._open}
        found = []
        for place, (identity, name) in enumerate(wanted):
            source = self._known.get(identity)
            if source is None:
                source = self._known[identity] = WorkerSource(self, identity, name)
            source.place = place
            found.append(source)
        return found

    def opened(self, source: WorkerSource) -> None:
        """It was opened: another one may have to be closed."""
        self._open[source] = None
        while len(self._open) > OPEN_SOURCES:
            next(iter(self._open)).close()

    def used(self, source: WorkerSource) -> None:
        self._open.move_to_end(source)

    def closed(self, source: WorkerSource) -> None:
        self._open.pop(source, None)


class WorkerSource:
    """A source, which the parent opens when it is first needed."""

    def __init__(self, sources: Sources, identity: str, name: str) -> None:
        self.oid = identity
        self.name = name
        self.place = 0
        """Which source of the current task it is."""
        self._sources = sources
        self._handle = -1
        self._size = -1
        self._begin = 0
        self._local: LocalSource | None = None

    @property
    def size(self) -> int:
        if self._size < 0:
            (_, self._handle, size, self._begin), descriptors = self._sources.parent.ask(
                wire.OPEN, self.place
            )
            if descriptors:
                self._local = LocalSource(descriptors[0], self._begin + size, self.oid, self.name)
            self._size = size
            self._sources.opened(self)
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        """See `MediaSource`."""
        if not 0 <= offset <= offset + length <= self.size:
            raise ObjectCorrupt(f"{self.name} has {self.size} bytes and none at {offset + length}")
        self._sources.used(self)
        if self._local is not None:
            self._sources.parent.is_alive()
            return self._local.read_at(self._begin + offset, length)
        parts = []
        for begin in range(offset, offset + length, wire.LARGEST_READ):
            asked = min(offset + length - begin, wire.LARGEST_READ)
            (_, data), _ = self._sources.parent.ask(wire.READ, self._handle, begin, asked)
            parts.append(bytes(data))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Let the parent close it as well. It is opened anew where it is read again."""
        self._sources.closed(self)
        if self._local is not None:
            self._local.close()
            self._local = None
        if self._size >= 0:
            self._size = -1
            self._sources.parent.say(wire.CLOSE, self._handle)


def work(parent: Parent) -> None:
    """Make one product after the other. Raises `WireBroken` when there is nobody to make them for."""
    sources = Sources(parent)
    while True:
        (_, maker, arguments, wanted, begin, seconds, delay), descriptor = parent.next_task()
        confinement.limit_processor(seconds)
        opened = sources.of_task(wanted)
        try:
            count = _write(parent, descriptor, begin, delay, _find(*maker), arguments, opened)
        except WireBroken:
            raise
        except Exception as error:
            if not isinstance(error, MediaInvalid):
                for source in opened:
                    source.close()
            told = error if isinstance(error, StoreError) else MediaFailed(_explain(error))
            parent.say(wire.FAILED, type(told).__name__, str(told))
        else:
            parent.say(wire.DONE, count)
        finally:
            os.close(descriptor)


def _find(module: str, function: str) -> Make:
    found: Make = getattr(importlib.import_module(module), function)
    return found


def _explain(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it needs more memory than there may be"
    return f"{type(error).__name__}: {error}"


def _write(
    parent: Parent,
    descriptor: int,
    begin: int,
    delay: float,
    make: Make,
    arguments: Mapping[str, Any],
    sources: Sequence[WorkerSource],
) -> int:
    """Write the pieces and tell of each. How many there were, -1 where the parent wanted no more."""
    count = 0
    written: list[list[int]] = []
    try:
        for made in make(arguments, sources):
            number, data = made if isinstance(made, Piece) else (count, made)
            count += 1
            if isinstance(data, MediaInvalid):
                parent.say(wire.REFUSED, number, str(data))
            else:
                _write_fully(descriptor, data, begin)
                written.append([number, begin, len(data), xxhash.xxh3_64_intdigest(data)])
                begin += len(data)
            if parent.wants_other():
                return -1
            if written and parent.is_silent(delay):
                parent.say(wire.PIECES, *written)
                written = []
    finally:
        if written:
            parent.say(wire.PIECES, *written)
    return count


def _write_fully(descriptor: int, data: bytes, begin: int) -> None:
    view = memoryview(data)
    try:
        while view:
            written = os.pwrite(descriptor, view, begin)
            begin += written
            view = view[written:]
    except OSError as error:
        raise CacheUnusable(f"the cache takes no more of what is made: {error.strerror}") from None


def main() -> None:
    parent, stop = map(int, sys.argv[1:3])
    confinement.bind_to_parent(parent)
    connected = socket.socket(fileno=0)
    os.set_blocking(sys.stderr.fileno(), False)  # nobody reads it before this process has ended
    confinement.limit_resources()
    confinement.give_up_rights()
    for module in sys.argv[3:]:
        importlib.import_module(module)
    try:
        work(Parent(Wire(connected), stop))
    except WireBroken:
        os._exit(0)  # nothing here is worth an orderly end


if __name__ == "__main__":
    main()
