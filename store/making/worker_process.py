"""`WorkerProcess`: a worker as the process that serves sees it: started, given tasks, listened to, killed.

Sources are opened for it here: it gets the descriptor of a local file, and asks for the bytes of one that is
fetched, so that all that comes over a network goes through the one fetcher. What a worker says is hostile,
since what it decodes is.

Thread rule: belongs to the event loop.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import Any, Final

import trio

from store import errors
from store.errors import CacheUnusable, MediaFailed, MediaInvalid, ObjectCorrupt, StoreError
from store.making import wire
from store.making.flight import Flight, source_of
from store.making.makers import MISSING, Registered
from store.making.product import Entry
from store.making.started_worker import StartedWorker, start_worker
from store.making.tasks import Origin, Task
from store.making.wire import PACKET, Assembly, WireBroken, ancillary, packets_of
from store.open_objects import OpenBytes, OpenFile, OpenObject

PROCESSOR_SECONDS: Final = 1800
"""For one task; who hangs without a use of the processor is found earlier."""
PATIENCE: Final = 0.1
"""Seconds by which pieces are told of late where only the whole product is waited for: a message for each
would cost us a tenth of a core."""
GRACE: Final = 0.5
"""Seconds in which one that ends by itself may do so, so that it is known how."""
DEATH: Final = 10.0
"""Seconds in which one that was killed is gone: on a busy machine it has to wait for its turn to be."""
_TOLD: Final = 300
"""Characters of what a worker has said before it died."""


class WorkerProcess:
    """One worker. `deadline`: seconds within which it has to say something."""

    def __init__(self, deadline: float, started: StartedWorker | None = None) -> None:
        """Raises `OSError` where no process can be started."""
        self.idle_since = 0.0
        self.is_stopping = False
        self.source = ""
        """What it has worked on last, and may still have open."""
        self.has_answered = False
        """It has said something since it was given its task."""
        self._deadline = deadline
        self._handles: dict[int, tuple[Origin, OpenObject]] = {}
        self._next_handle = 0
        self._assembly = Assembly()
        self._is_closed = False
        self._last_words = ""
        started = started or start_worker()
        self._process, self._stop = started.process, started.stop
        self._socket = trio.socket.from_stdlib_socket(started.socket)

    def stop(self) -> None:
        """Let it end its task after the piece that it is at."""
        self.is_stopping = True
        if not self._is_closed:  # or the number would be somebody else's
            os.eventfd_write(self._stop, 1)

    async def make(self, flight: Flight, maker: Registered) -> None:
        """Make what is missing, or until `stop`.

        Raises `WireBroken` where the worker died or hung (it is of no more use), else the `StoreError` of
        which the task failed.
        """
        if self._is_closed:
            raise WireBroken("it was ended before it began")
        self.is_stopping = self.has_answered = False
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._stop)
        task, product = flight.task, flight.product
        self.source = source_of(task)
        arguments = {**task.arguments, MISSING: flight.missing}
        sources = [[f"{origin.oid.algorithm}:{origin.oid}", origin.name] for origin in task.origins]
        sources += [[need.key, str(need)] for need in task.needs]
        # What a worker has in memory of one that it read for another task counts, too.
        flight.unproved.update(
            origin.oid
            for origin, opened in self._handles.values()
            if not isinstance(opened, OpenBytes | OpenFile) and origin.oid in {o.oid for o in task.origins}
        )
        of_task = [[maker.module, maker.function], arguments, sources, product.end, PROCESSOR_SECONDS]
        of_task.append(PATIENCE if flight.is_patient else 0.0)
        await self._send([wire.MAKE, *of_task], product.descriptor)
        failure: StoreError | None = None
        while True:
            message = await self._receive()
            self.has_answered = True
            try:
                if message[0] in (wire.OPEN, wire.READ):
                    try:
                        await self._answer(flight, *message)
                    except StoreError as error:
                        failure = error
                        await self._send([wire.FAILED, type(error).__name__, str(error)])
                elif self._note(flight, *message):
                    return
            except _TaskFailed as told:
                # As it was raised here, with all that it says, if that was it.
                is_ours = failure is not None and type(failure).__name__ == message[1]
                raise (failure if is_ours and failure else told.error) from None
            except (ValueError, TypeError, IndexError, KeyError) as error:
                raise WireBroken("it says what cannot be") from error

    def _note(self, flight: Flight, kind: int, *said: Any) -> bool:
        """What it tells; whether it has ended its task. Raises `_TaskFailed`, `WireBroken`."""
        match kind:
            case wire.PIECES:
                for piece in said:
                    flight.made(*map(int, piece))
            case wire.REFUSED:
                flight.refused(int(said[0]), str(said[1]))
            case wire.CLOSE:
                if int(said[0]):
                    self._handles.pop(int(said[0]))[1].close()
            case wire.DONE:
                flight.counted(int(said[0]))
                return True
            case wire.FAILED:
                raise _TaskFailed(_told(flight.task, str(said[0]), str(said[1])))
            case wire.ALIVE:
                pass
            case _:
                raise WireBroken("it says what cannot be")
        return False

    async def _answer(self, flight: Flight, kind: int, *asked: Any) -> None:
        """Give it what it asks for. Raises `StoreError`."""
        if kind == wire.READ:
            handle, begin, length = map(int, asked)
            origin, opened = self._handles[handle]
            if not 0 <= length <= wire.LARGEST_READ or begin < 0:
                raise WireBroken("it asks for too much")
            if not isinstance(opened, OpenBytes | OpenFile):
                flight.unproved.add(origin.oid)
            data = bytes(await origin.read(opened, begin, length))
            if len(data) != length:
                raise ObjectCorrupt(f"{origin.name!r} has no {length} bytes at {begin}")
            await self._send([wire.READ, data])
            return
        place, origins = int(asked[0]), flight.task.origins
        if place >= len(origins):
            need = flight.needs[place - len(origins)]
            entry = need.entries.get(0)
            assert isinstance(entry, Entry)  # it is whole
            await self._send([wire.OPEN, 0, entry.length, entry.begin], need.descriptor)
            return
        origin = origins[place]
        opened = await origin.open()
        self._next_handle += 1
        self._handles[self._next_handle] = origin, opened
        local = opened.descriptor if isinstance(opened, OpenFile) else None
        await self._send([wire.OPEN, self._next_handle, opened.size, 0], local)

    async def _send(self, message: list[object], descriptor: int | None = None) -> None:
        *first, last = packets_of(message)
        with trio.move_on_after(self._deadline) as scope:
            try:
                for packet in first:
                    await self._socket.send(packet)
                await self._socket.sendmsg([last], ancillary(descriptor))
            except OSError as error:
                raise WireBroken(f"{error.strerror}") from None
            except trio.ClosedResourceError:
                raise WireBroken("it was ended") from None
        if scope.cancelled_caught:
            raise WireBroken(f"it takes nothing for {self._deadline:g} s")

    async def _receive(self) -> list[Any]:
        with trio.move_on_after(self._deadline):
            while True:
                try:
                    message = self._assembly.add(await self._socket.recv(PACKET + 1))
                except OSError as error:
                    raise WireBroken(f"{error.strerror}") from None
                except trio.ClosedResourceError:
                    raise WireBroken("it was ended") from None
                if message is not None:
                    return message
        raise WireBroken(f"it hangs: it said nothing for {self._deadline:g} s")

    async def end(self) -> str:
        """Have it ended, killed if need be: how it ended, and what it said last."""
        with trio.CancelScope(shield=True):
            await self._await_end(GRACE)
            self._process.kill()
            await self._await_end(self._deadline)
            self.close()
        return self._last_words

    async def _await_end(self, seconds: float) -> None:
        if self._process.poll() is not None:
            return
        with trio.move_on_after(seconds), contextlib.suppress(OSError):
            watched = os.pidfd_open(self._process.pid)
            try:
                await trio.lowlevel.wait_readable(watched)
            finally:
                os.close(watched)
        self._process.poll()

    def kill(self) -> None:
        """It is to end now; `close` is still to be called."""
        self._process.kill()  # does nothing to one that was waited for

    def close(self) -> None:
        """Kill it and let go of everything. Blocking, for as long as a process takes to die."""
        if self._is_closed:
            return
        self._is_closed = True
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(DEATH)
        said = self._process.stderr
        assert said is not None  # it is a pipe
        with said:
            os.set_blocking(said.fileno(), False)
            words = (said.read(PACKET) or b"").decode(errors="replace").split("\n")
        last = next((word.strip() for word in reversed(words) if word.strip()), "")
        self._last_words = ", ".join(filter(None, (_status(self._process.returncode), last[:_TOLD])))
        self._socket.close()
        os.close(self._stop)
        for _, opened in self._handles.values():
            opened.close()
        self._handles.clear()


class _TaskFailed(Exception):
    """The worker gave a task up. Carries the error."""

    def __init__(self, error: StoreError) -> None:
        super().__init__(error)
        self.error = error


def _status(code: int | None) -> str:
    if code is None:
        return "it does not die"
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit status {code}"


def _told(task: Task, kind: str, reason: str) -> StoreError:
    """The error of a worker's, as it tells it: one of those that a maker may raise itself."""
    found = getattr(errors, kind, None)
    if found in (MediaInvalid, ObjectCorrupt, CacheUnusable):
        return found(reason)  # type: ignore[no-any-return]
    return MediaFailed(f"{task}: {reason}")
