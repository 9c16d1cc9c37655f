"""`Courier`: a process of our own that brings small objects, so that the loop has its interpreter for itself.

Between the loop and threads that each bring an object, the interpreter's lock changes hands dozens of times
an object, and every time a thread has to be woken: that takes several times as long as the work. So threads
in another process ask the remotes, hash what comes and write it to its place
(`store.fetching.courier_process`), and the loop has one socket to listen to. What is decided stays here:
which remote is asked and for how long one waits, who holds an object's lock, and what is kept.

It is started once some objects have been asked for, and nothing depends on it: what it does not do, threads
do as they would without it, also when it ends in the midst of something. Belongs to the event loop.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgpack
import trio

from store import errors
from store.errors import RemoteMissing, RemoteUnreachable, StoreError, StoreTimeout
from store.fetching import courier_messages as messages
from store.fetching.asking import CallLost, NotAsked
from store.fetching.courier_messages import Report
from store.fetching.download import NO_ERRAND, Downloader, Fetched, Large, Spare, Wanted
from store.fetching.errand import Errand
from store.fetching.remote_pool import LazyStorage
from store.oid import Oid
from store.remotes.remote import Remote
from store.threads import DISK_DEADLINE, QUESTION_THREADS, REMOTE_THREADS, Threads

log = logging.getLogger(__name__)

Brought = Fetched | Large

COMMAND: Final = (sys.executable, "-P", "-m", "store.fetching.courier_process")
FEW_ARENAS: Final = {"MALLOC_ARENA_MAX": "2"}
"""glibc's: each of many threads would keep what memory it was given once."""
STARTS_AFTER: Final = 8
"""Objects: for a few it is not worth starting."""
RESTART_SECONDS: Final = 60.0
"""After it has ended by itself."""
_AT_ONCE: Final = 16
"""Messages that are read before others on the loop get their turn."""
_SENT_TOGETHER: Final = 64
_ANCILLARY: Final = socket.CMSG_SPACE(array("i").itemsize)


class _Batch:
    """Objects that are being published."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.said: Sequence[str] | None = None


class Courier:
    """Of one engine, for objects that come into the cache at `root`."""

    def __init__(
        self,
        threads: Threads,
        nursery: trio.Nursery,
        root: Path,
        downloader: Downloader,
        *,
        below: str,
        verify: bool,
        may_keep: Callable[[int], bool],
        places: Callable[[], Sequence[Path]],
    ) -> None:
        """`places` tells the roots of the caches that may have an object already."""
        self._places = places
        self._threads = threads
        self._nursery = nursery
        self._settings = messages.Settings(str(root), below, verify, REMOTE_THREADS + QUESTION_THREADS)
        self._downloader = downloader
        self._spare: Spare = downloader.spare
        self._may_keep = may_keep
        self._asked = 0
        self._not_before = -RESTART_SECONDS
        self._is_running = False
        self._is_ready = False
        self._is_stopped = False
        self._process: subprocess.Popen[bytes] | None = None
        self._door: socket.socket | None = None
        self._listening = trio.CancelScope()
        self._number = 0
        self._first_number = 0
        """Of the process that runs: what has a lower one was another's."""
        self._errands: dict[int, Errand[Any]] = {}
        self._batches: dict[int, _Batch] = {}
        self._to_forget: list[int] = []
        self._buffer = memoryview(bytearray(messages.MESSAGE_BYTES))

    @property
    def is_there(self) -> bool:
        """Does it run? Asking starts nothing, unlike `is_ready`."""
        return self._is_ready

    def is_ready(self) -> bool:
        """Does it take errands? Asked for each object: it is started when there are more than a few."""
        if not self._is_running and not self._is_stopped:
            self._asked += 1
            if self._asked > STARTS_AFTER and trio.current_time() >= self._not_before:
                self._is_running = True
                self._nursery.start_soon(self._run)
        return self._is_ready

    async def call(
        self, remote: Remote, wanted: Wanted, ended: Callable[[Errand[Brought]], object]
    ) -> Errand[Brought] | None:
        """Have an object brought; waits only for a thread's turn. `ended` is called when it has been.

        None where that cannot be asked for now, or does not lie where the process looks.
        """
        if remote.goes_aside(wanted.oid):
            return None
        errand = Errand(self, remote, wanted, ended)
        await self._threads.occupy_remote(errand)
        return self._send_for(errand)

    def call_now(
        self, remote: Remote, wanted: Wanted, ended: Callable[[Errand[Brought]], object]
    ) -> Errand[Brought] | None:
        """As `call`; None also where that would have to wait."""
        errand = Errand(self, remote, wanted, ended)
        if remote.goes_aside(wanted.oid) or not self._threads.try_to_occupy_remote(errand):
            return None
        return self._send_for(errand)

    def _send_for(self, errand: Errand[Brought]) -> Errand[Brought] | None:
        wanted = errand.wanted
        if self._spare.take(wanted.in_memory):
            errand.reserved = wanted.in_memory
        return errand if self._begin(messages.BRING, errand) else None

    async def ask(
        self, remote: Remote, oid: Oid, ended: Callable[[Errand[int]], object]
    ) -> Errand[int] | None:
        """As `call`, for an object's length."""
        if remote.goes_aside(oid):
            return None
        errand = Errand(self, remote, Wanted(oid, 0, False, 0.0, 0), ended, question=True)
        await self._threads.occupy_remote(errand, question=True)
        return errand if self._begin(messages.ASK, errand) else None

    def _begin(self, kind: int, errand: Errand[Any]) -> bool:
        """Whether the order was taken; if not, the errand has ended."""
        wanted, storage = errand.wanted, errand.remote.storage
        oid, address, number = wanted.oid, errand.remote.address(wanted.oid), self._new_number()
        order = b""
        if isinstance(storage, LazyStorage) and address is not None:
            order = messages.pack(
                kind,
                *(number, storage.wire, storage.generation, oid.digest, oid.algorithm, oid.is_tree, *address),
                *(wanted.limit, wanted.keep, errand.reserved, wanted.until, wanted.known),
                [os.fspath(root) for root in self._places()] if wanted.look else (),
            )
        if not order or not self._send(order):
            self._finish(errand)
            return False
        self._errands[number] = errand
        return True

    def holds(self, fetched: Fetched) -> bool:
        """Can it publish this object?"""
        return self._is_ready and fetched.errand >= self._first_number

    async def publish(self, batch: Sequence[Fetched]) -> Sequence[str]:
        """Give objects that it `holds` their places: for each what went wrong, or nothing.

        Raises `StoreTimeout` and, where the process ended, `CallLost`: who knows what it has done.
        """
        number, waiting = self._new_number(), _Batch()
        order = messages.pack(messages.PUBLISH, number, tuple(fetched.errand for fetched in batch))
        with trio.move_on_after(DISK_DEADLINE):
            while not self._send(order):
                if self._door is None or not self._is_ready:
                    raise CallLost
                try:
                    await trio.lowlevel.wait_writable(self._door)
                except trio.ClosedResourceError:
                    raise CallLost from None
            self._batches[number] = waiting
            await waiting.done.wait()
        self._batches.pop(number, None)
        if not waiting.done.is_set():
            raise StoreTimeout(f"the disk did not answer within {DISK_DEADLINE:.0f} s")
        if waiting.said is None:
            raise CallLost
        return waiting.said

    def forget(self, value: object) -> None:
        """Nobody needs it any more, or it is not to be kept."""
        if not isinstance(value, Fetched) or value.errand == NO_ERRAND:
            return
        if self.holds(value):
            self._to_forget.append(value.errand)
            if len(self._to_forget) >= _SENT_TOGETHER or value.path is not None:
                self._send_forgotten()
        else:
            self._downloader.discard(value)
        value.errand = NO_ERRAND

    def stop(self) -> None:
        """Take no more errands, and end those that there are. On the loop."""
        self._is_stopped = True
        self._listening.cancel()

    def close(self) -> None:
        """End the process. Blocking."""
        if self._door is not None:
            self._door.close()
            self._door = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def _run(self) -> None:
        """Serve while the process does; until everything is published, whatever else has been told to end."""
        with trio.CancelScope(shield=True) as self._listening:
            try:
                await self._threads.on_disk(self._start)
                await self._listen()
                log.warning("the process that brings objects has ended; threads do it for a while")
            except (OSError, StoreError) as error:
                log.warning("no process brings objects, so threads do: %s", error)
            except Exception:  # a bug costs us the process, not the mount
                log.exception("the process that brings objects is not understood, so threads do")
        self._not_before = trio.current_time() + RESTART_SECONDS
        if self._door is not None:
            trio.lowlevel.notify_closing(self._door)
        self._lose_all()
        try:
            with trio.CancelScope(shield=True):
                await self._threads.on_disk(self.close)
        except StoreError as error:
            log.warning("the process that brings objects does not end: %s", error)
        self._is_running = False

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.send(messages.pack(messages.SETTINGS, *self._settings))
            ours.setblocking(False)
            self._door = ours
            self._first_number = self._number
            self._process = subprocess.Popen(
                COMMAND,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**os.environ, **FEW_ARENAS},
                start_new_session=True,
            )

    async def _listen(self) -> None:
        assert self._door is not None  # it was started
        while True:
            await trio.lowlevel.wait_readable(self._door)
            for _ in range(_AT_ONCE):
                try:
                    length, ancillary, _, _ = self._door.recvmsg_into(
                        [self._buffer], _ANCILLARY, socket.MSG_CMSG_CLOEXEC
                    )
                except BlockingIOError:
                    break
                if not length:
                    return
                descriptor = _descriptor_in(ancillary) if ancillary else -1
                payload = self._buffer[messages.HEAD_BYTES : length]
                self._take(messages.parse_head(self._buffer), payload, descriptor)

    def _take(self, report: Report, payload: memoryview, descriptor: int) -> None:
        if report.kind == messages.READY:
            self._is_ready = True
        elif report.kind == messages.LOG:
            log.log(report.number, "%s", bytes(payload).decode(errors="replace"))
        elif report.kind == messages.PUBLISHED:
            batch = self._batches.pop(report.number, None)
            if batch is not None:
                batch.said = msgpack.unpackb(payload)
                batch.done.set()
        else:
            errand = self._errands.pop(report.number)
            assert isinstance(errand.remote.storage, LazyStorage)  # as it was when it was called
            errand.remote.storage.received(report.received)
            if report.kind == messages.ERROR:
                self._finish(errand)
                error = _told(*msgpack.unpackb(payload))
                if isinstance(error, RemoteMissing) and errand.remote.set_aside(errand.wanted.oid):
                    error = CallLost()  # a thread looks for it elsewhere
                errand.end(None, error)
            elif report.kind == messages.LARGE:
                self._finish(errand)
                errand.end(report.size if errand.question else Large(report.size))
            elif report.kind == messages.HERE:
                self._finish(errand)
                errand.end(None, NotAsked(Fetched(errand.wanted.oid, descriptor, report.size)))
            else:
                fetched = self._receive(errand, report, payload, descriptor)
                self._finish(errand)
                errand.end(fetched)

    def _receive(self, errand: Errand[Any], report: Report, payload: memoryview, descriptor: int) -> Fetched:
        oid, remote = errand.wanted.oid, errand.remote
        if report.kind == messages.DATA:
            is_held = errand.wanted.keeps(report.size)
            errand.reserved -= report.size
            fetched = Fetched.in_memory(oid, bytes(payload), remote, self._spare, keep=is_held)
        else:
            path = Path(os.fsdecode(bytes(payload))) if payload else None
            fetched = Fetched(oid, descriptor, report.size, path, remote)
            is_held = path is not None
        if is_held:
            fetched.errand = report.number
            if not self._may_keep(report.size):
                self.forget(fetched)
                fetched.keep, fetched.path = False, None
        return fetched

    def _finish(self, errand: Errand[Any]) -> None:
        self._spare.give_back(errand.reserved)
        errand.reserved = 0
        self._threads.vacate_remote(errand, question=errand.question)

    def _lose_all(self) -> None:
        self._is_ready = False
        self._to_forget.clear()
        errands, self._errands = self._errands, {}
        for errand in errands.values():
            self._finish(errand)
            errand.end(None, CallLost())
        batches, self._batches = self._batches, {}
        for batch in batches.values():
            batch.done.set()

    def _send(self, order: bytes) -> bool:
        """Whether it was taken: not if it is too long, or the process does not listen."""
        if self._to_forget:
            self._send_forgotten()
        try:
            return self._door is not None and bool(self._door.send(order))
        except OSError:
            return False

    def _send_forgotten(self) -> None:
        forgotten, self._to_forget = self._to_forget, []
        if not self._send(messages.pack(messages.FORGET, tuple(forgotten))):
            self._to_forget = forgotten

    def _new_number(self) -> int:
        self._number += 1
        return self._number


def _descriptor_in(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    found = array("i")
    found.frombytes(ancillary[0][2])
    return found[0]


def _told(name: str, arguments: Sequence[object]) -> Exception:
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, StoreError):
        return kind(*arguments)
    return RemoteUnreachable(f"{name} in our own code: {arguments[0]}")
