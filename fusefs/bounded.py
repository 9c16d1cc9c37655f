"""Calls that may never return: made in forked children, and abandoned after a deadline.

A system call on a FUSE mount whose daemon hangs cannot always be interrupted, not even by a kill,
and a process with a thread in one cannot exit. A child can be left behind: it holds none of our
descriptors and ends when the mount does. Callers: the command line only, which has no threads.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

LIMIT: Final = 1 << 20
"""Bytes that one answer may have."""

KILL_SECONDS: Final = 5.0
"""How long children that were killed are waited for: they hold the mounts that they looked into."""

Outcome = bytes | OSError
"""What a call gave: its bytes, or its error; TimeoutError if it did not return."""


def call_bounded(call: Callable[[], bytes], seconds: float) -> bytes:
    """The result of `call`, run in a child. Raises its OSError, or TimeoutError."""
    (outcome,) = call_all_bounded([call], seconds)
    if isinstance(outcome, OSError):
        raise outcome
    return outcome


def call_all_bounded(calls: Sequence[Callable[[], bytes]], seconds: float) -> list[Outcome]:
    """Run `calls` at the same time, each in a child of its own; all have `seconds` together."""
    children = [_start(call) for call in calls]
    answers = {fd: b"" for _, fd in children}
    ended: set[int] = set()
    poll = select.poll()
    for _, fd in children:
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + seconds
    while len(ended) < len(children):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        for fd, _ in poll.poll(left * 1000):
            data = os.read(fd, 65536)
            answers[fd] += data
            if not data or len(answers[fd]) > LIMIT:
                poll.unregister(fd)
                ended.add(fd)
    given_up = {fd: pid for pid, fd in children if fd not in ended or len(answers[fd]) > LIMIT}
    _end(given_up.values())
    outcomes: list[Outcome] = []
    for pid, fd in children:
        os.close(fd)
        if fd in given_up:
            outcomes.append(TimeoutError("no answer"))
            continue
        os.waitpid(pid, 0)
        outcomes.append(_decode(answers[fd]))
    return outcomes


def _decode(answer: bytes) -> Outcome:
    kind, rest = answer[:1], answer[1:]
    if kind == b"+":
        return rest
    number = int(rest or b"5")  # a child that died without a word: EIO
    return OSError(number, os.strerror(number))


def _end(pids: Iterable[int]) -> None:
    """Kill children, and have them let go of what they looked at. One may be beyond that: init reaps it one
    day."""
    killed = [(pid, os.pidfd_open(pid)) for pid in pids]
    for pid, _ in killed:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + KILL_SECONDS
    for pid, ended in killed:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        os.close(ended)
        os.waitpid(pid, os.WNOHANG)


def _start(call: Callable[[], bytes]) -> tuple[int, int]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    try:
        # A child that is stuck must hold nothing open: not the device, not the pipe that the
        # caller's `$(...)` reads.
        os.dup2(writer, 3)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        try:
            answer = b"+" + call()
        except OSError as error:
            answer = b"-%d" % (error.errno or 5)
        while answer:
            answer = answer[os.write(3, answer) :]
    finally:
        os._exit(0)  # whatever happened: never run the parent's clean-up twice
