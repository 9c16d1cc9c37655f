"""Runs `fusefs` commands as forks of a process that has imported them, which is most of what a command costs.

For tests that only need what a command does; those of commands themselves start fresh ones. `python -m
tests.mount.forked` is the process: it lives as long as who started it, and changes nothing but by forking.

Thread rule: any thread of the process that runs the tests may call `run`.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

ROOT: Final = Path(__file__).resolve().parents[2]
MESSAGE_BYTES: Final = 1 << 17
START: Final = ("LANG", "LC_", "LD_", "PYTHON")
"""How variables begin that only a process heeds which is started with them."""


def heeded(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(START)}


HEEDED: Final = heeded({**os.environ, "PYTHONPATH": str(ROOT)})
"""What the process is started with, whatever a test has set meanwhile."""


class Forks:
    """The process, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: socket.socket | None = None

    def run(
        self, arguments: Sequence[str | Path], cwd: Path, environment: Mapping[str, str], seconds: float
    ) -> subprocess.CompletedProcess[str] | None:
        """How the command ended, without standard input; None where only a fresh process would do.

        Raises as `subprocess.run` does where it takes longer than so many seconds.
        """
        if heeded(environment) != HEEDED:
            return None
        command = [os.fsdecode(argument) for argument in arguments]
        ours, theirs = socket.socketpair()
        with (
            ours,
            open(os.memfd_create("stdout"), "r+b") as out,
            open(os.memfd_create("stderr"), "r+b") as err,
        ):
            with theirs:
                message = pickle.dumps((command, os.fspath(cwd), dict(environment)))
                descriptors = [theirs.fileno(), out.fileno(), err.fileno()]
                socket.send_fds(self._started(), [message], descriptors)
            ours.settimeout(seconds)
            try:
                status = ours.recv(64)
            except TimeoutError:
                raise subprocess.TimeoutExpired(command, seconds) from None
            assert status, f"nobody runs {command}"
            said = [os.fsdecode(os.pread(file.fileno(), 1 << 24, 0)) for file in (out, err)]
        return subprocess.CompletedProcess(command, int(status), *said)

    def _started(self) -> socket.socket:
        with self._lock:
            if self._requests is None:
                self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    process = subprocess.Popen(
                        [sys.executable, "-m", "tests.mount.forked", str(theirs.fileno())],
                        cwd=ROOT,
                        env={name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
                        | HEEDED,
                        stdin=subprocess.DEVNULL,
                        pass_fds=[theirs.fileno()],
                    )
                atexit.register(self._end, self._requests, process)
            return self._requests

    def _end(self, requests: socket.socket, process: subprocess.Popen[bytes]) -> None:
        requests.close()
        process.wait()


FORKS: Final = Forks()


def serve(requests: socket.socket) -> None:
    """Fork for each request, tell how each fork ended, and kill those that nobody waits for any more."""
    gc.freeze()  # what is never written is never copied
    running: dict[int, tuple[int, socket.socket]] = {}
    poller = select.poll()
    poller.register(requests, select.POLLIN)
    while True:
        for ready, _ in poller.poll():
            if ready == requests.fileno():
                message, descriptors, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, 3)
                if not message:
                    return
                pid = os.fork()
                if pid == 0:
                    requests.close()
                    become(message, descriptors)
                waiting = socket.socket(fileno=descriptors[0])
                for descriptor in descriptors[1:]:
                    os.close(descriptor)
                ended = os.pidfd_open(pid)
                running[ended] = running[waiting.fileno()] = (pid, waiting)
                poller.register(ended, select.POLLIN)
                poller.register(waiting, select.POLLIN)
            elif ready in running:
                pid, waiting = running[ready]
                if ready == waiting.fileno():  # who asked is gone
                    os.kill(pid, signal.SIGKILL)
                    poller.unregister(ready)
                    continue
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(OSError, KeyError):
                    poller.unregister(waiting)
                del running[ready], running[waiting.fileno()]
                poller.unregister(ready)
                os.close(ready)
                with waiting, contextlib.suppress(BrokenPipeError):
                    waiting.send(b"%d" % status)


def become(message: bytes, descriptors: Sequence[int]) -> NoReturn:
    """Be the command in this fork."""
    status = 1
    try:
        from fusefs.cli import main

        arguments, cwd, environment = pickle.loads(message)
        for number, descriptor in enumerate(descriptors[1:], 1):
            os.dup2(descriptor, number)
        os.closerange(3, max(descriptors) + 1)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            status = main(arguments)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    import fusefs.cli.mount
    import fusefs.cli.umount  # noqa: F401  # here once, and not in every child

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        serve(listener)
