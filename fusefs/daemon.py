"""The daemon: a fresh process that is handed a plan and a mounted `/dev/fuse`, and serves.

Forked by its supervisor (`fusefs.supervisor`), which was started by `fusefs.launch`. Standard output is the
report pipe of the first daemon in the background: `ready`, or the error that the command shows as its own.

Thread rule: trio's loop on the main thread, the log's writer beside it.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import trio

from fusefs import kernel_mount, mountinfo
from fusefs.journal import Journal
from fusefs.launch import FAILED, READY
from fusefs.logs import Log, escape, start_logging
from fusefs.native.attacher import Attacher
from fusefs.native.fresh import Fresh, make_fresh
from fusefs.native.layers import make_layers
from fusefs.plan import MountPlan
from fusefs.serving import serve
from fusefs.succession import Succession
from fusefs.supervisor import ENDING_SIGNALS, Supervision, detach_output
from store.errors import StoreError

FIRST_STAT_SECONDS: Final = 30.0
END_SECONDS: Final = 10.0
"""How long a connection may go on after a lazy unmount; then its readers get ENOTCONN."""
SAME_SECONDS: Final = 1.0
"""A service manager may tell all, and our supervisor passes on what it is told: that is not insisting."""

_M_ARENA_MAX: Final = -8
"""malloc.h"""
ARENAS: Final = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Role:
    """How this daemon runs, as `fusefs.launch` told it on the command line."""

    plan_fd: int
    fuse_fd: int
    session_fd: int
    """In native mode the FUSE mount that the overlay is to be put above; -1 where that is not ours to do."""
    mount_id: int
    lifeline_fd: int
    """Ends the daemon when the other end is closed; -1 for none."""
    opens_fd: int
    image_fd: int
    """As in `fusefs.launch`; -1 for none."""
    foreground: bool
    private: bool
    """The mountpoint is a directory of this mount's own, to be removed at the end."""
    read_ahead: int
    """Bytes; heeded in the foreground, where nobody else waits for the first answer."""
    verbose: bool


def parse_role(argv: Sequence[str]) -> Role:
    parser = argparse.ArgumentParser(prog="fusefs.daemon", description="Internal: see fusefs.launch.")
    descriptors = ("plan", "fuse", "session", "lifeline", "opens", "image")
    for name in (*(f"{what}-fd" for what in descriptors), "mount-id", "read-ahead"):
        parser.add_argument(f"--{name}", type=int, default=-1)
    for name in ("foreground", "private", "verbose"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--log", help="for the supervisor")
    parser.add_argument("mountpoint", help="for the reader of a process list")
    options = vars(parser.parse_args(argv))
    del options["mountpoint"], options["log"]
    return Role(**options)


class Daemon:
    """One served mount, from its plan to its end."""

    def __init__(self, plan: MountPlan, role: Role, log: Log, succession: Succession) -> None:
        self._plan = plan
        self._role = role
        self._log_file = log
        self._succession = succession
        self._ready = trio.Event()
        self._told_to_end: float | None = None
        self._attacher: Attacher | None = None
        self._fresh: Fresh | None = None
        if role.session_fd >= 0:  # which another daemon does not have: the overlay is there
            session = role.session_fd if not succession.restarts else -1
            self._fresh = make_fresh(plan) if session >= 0 else None
            memory = self._fresh.descriptor if self._fresh is not None else -1
            self._attacher = Attacher(session, make_layers(plan, role.read_ahead, memory))

    async def run(self) -> None:
        """Serve until the mount is gone or we are told to end. Raises what `serve` raises."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey_signals, nursery.cancel_scope)
            nursery.start_soon(self._succession.watch)
            if self._role.lifeline_fd >= 0:
                nursery.start_soon(self._watch_lifeline, nursery.cancel_scope)
            if self._role.foreground and not self._succession.restarts:
                nursery.start_soon(self._announce)
            await serve(
                self._plan,
                self._role.fuse_fd,
                self._set_ready,
                self._attacher,
                self._succession,
                self._role.opens_fd,
                self._role.image_fd if not self._succession.restarts else -1,
                self._fresh,
            )
            nursery.cancel_scope.cancel()

    def _set_ready(self) -> None:
        self._ready.set()
        if not self._role.foreground:
            if not self._succession.restarts:
                os.write(1, READY)
            detach_output()
        self._succession.tell_ready()

    async def _announce(self) -> None:
        """Tell the service manager when the tree is readable, not before."""
        await self._ready.wait()
        # A child asks: a thread of ours that waits for ourselves could keep us from ending.
        probe = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            "import os, sys; os.statvfs(sys.argv[1])",
            self._plan.mountpoint,
        ]
        with trio.move_on_after(FIRST_STAT_SECONDS):
            await trio.run_process(probe, check=False, stderr=subprocess.DEVNULL)
        mount = self._find_mount()
        if mount is not None and self._attacher is None:
            kernel_mount.tune(mount.device, self._role.read_ahead)
        self._succession.notify("READY=1", f"STATUS=serving {self._plan.target} on {self._plan.mountpoint}")

    async def _obey_signals(self, scope: trio.CancelScope) -> None:
        for ending in ENDING_SIGNALS:
            # What trio puts back when it hears of no more: or one that comes then would end us half-way.
            signal.signal(ending, _pass_over)
        try:
            with trio.open_signal_receiver(*ENDING_SIGNALS) as signals:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
                numbers: AsyncIterator[int] = signals
                async for number in numbers:
                    if number == signal.SIGHUP and not self._role.foreground:
                        self._log_file.reopen()
                        _log.info("SIGHUP: the log is opened anew")  # which is what it is opened for
                        continue
                    await self._end(signal.Signals(number).name, scope)
        finally:  # the end has begun
            for ending in ENDING_SIGNALS:
                signal.signal(ending, signal.SIG_IGN)

    async def _watch_lifeline(self, scope: trio.CancelScope) -> None:
        await trio.lowlevel.wait_readable(self._role.lifeline_fd)
        await self._end("the runner ended", scope)

    async def _end(self, reason: str, scope: trio.CancelScope) -> None:
        """Unmount lazily, so that the path is free at once, and end when the last reader has let go."""
        if self._told_to_end is not None:
            if trio.current_time() - self._told_to_end > SAME_SECONDS:  # told twice: at once
                scope.cancel()
            return
        self._told_to_end = trio.current_time()
        _log.info("%s: unmounting", reason)
        self._succession.tell_ending()
        self._succession.notify("STOPPING=1")
        try:
            mount = self._find_mount()
            if mount is not None:
                # In a thread: fusermount3 may ask us something before it is done.
                await trio.to_thread.run_sync(lambda: kernel_mount.unmount(mount, lazy=True))
        except (StoreError, OSError) as error:
            _log.warning("%s", error)
        self._told_to_end = trio.current_time()
        # serve() ends by itself, at once, unless something is open in the mount.
        scope.deadline = trio.current_time() + (0 if self._role.private else END_SECONDS)

    def _find_mount(self) -> mountinfo.Mount | None:
        mount = mountinfo.mount_at(self._plan.mountpoint, mountinfo.read_mounts())
        if mount is None:
            return None
        if self._attacher is not None:  # a switch brings another mount of the same file system
            return mount if mount.device == self._attacher.device else None
        return mount if mount.mount_id == self._role.mount_id else None


def _pass_over(number: int, frame: FrameType | None) -> None:
    """Heed a signal no more. One that waits to be let in is not lost by that, as it would be if ignored."""


def _share_memory() -> None:
    """Let all threads take memory from a few arenas: each of many would keep what it was given once."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass  # a limit that cannot be raised is the one we live with


def _first_error(error: BaseException) -> BaseException:
    """The error to show, out of the groups that trio's nurseries wrap it in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _report_failure(role: Role, error: BaseException, succession: Succession) -> None:
    message = escape(str(error) or type(error).__name__)
    if not isinstance(error, StoreError | OSError):
        message = f"the daemon failed: {type(error).__name__}: {message}"
    number = (error.errno or 0) if isinstance(error, OSError) else 5
    succession.notify(f"STATUS={message}", f"ERRNO={number}")
    if role.foreground or succession.restarts:
        return  # the log is standard error, and has it; or nobody waits any more
    try:
        os.write(1, FAILED + message.encode(errors="backslashreplace") + b"\n")
    except OSError:
        pass  # nobody waits any more


def main(argv: Sequence[str], supervision: Supervision) -> int:
    """Serve; called by the supervisor, in the process that it forked. The exit status: 0 when the mount has
    ended."""
    role = parse_role(argv)
    with open(role.plan_fd, "rb") as file:
        file.seek(0)  # another daemon may have read it
        plan = MountPlan.from_bytes(file.read())
    os.chdir("/")
    _raise_file_limit()
    _share_memory()
    log = start_logging(plan.log, verbose=role.verbose)
    succession = Succession(supervision, Journal(supervision.journal))
    if supervision.restarts:
        _log.warning(
            "the daemon %s: another one goes on, restart %d", supervision.cause, supervision.restarts
        )
    status = 1
    try:
        trio.run(Daemon(plan, role, log, succession).run)
        status = 0
    except Exception as group:  # the end of the process: said once, to the log and to whoever waits
        error = _first_error(group)
        if isinstance(error, StoreError):
            _log.error("%s", error)
        else:
            _log.critical("the mount failed", exc_info=error)
        _report_failure(role, error, succession)
    finally:
        if role.private and not status:  # else a daemon may follow that serves it
            _remove_directory(plan.mountpoint)
        log.close()
    return status


def _remove_directory(path: str) -> None:
    try:
        Path(path).rmdir()
    except OSError as error:
        _log.debug("%s: %s", path, error.strerror)  # the runner was faster
