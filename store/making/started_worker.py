"""`start_worker`: the process of a worker (`store.making.worker`). `StartedWorkers`: some that are started
before there is anything to do, by commands that know that there will be, and import the rest meanwhile.

Standard library only. By the thread that lives as long as the worker is to: the kernel ends it with that.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MODULE: Final = "store.making.worker"
FRAME_MAKERS: Final = ("store.making.index_maker", "store.making.frames_maker")
CHUNK_MAKERS: Final = ("store.making.index_maker", "store.making.cvat_video", "store.making.cvat_images")
"""What is worth importing before there is a task."""
_ENVIRONMENT: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")


@dataclass(frozen=True, slots=True, eq=False)
class StartedWorker:
    """A process that waits for its first task."""

    process: subprocess.Popen[bytes]
    socket: socket.socket
    """Ours; it does not block."""
    stop: int
    """The eventfd by which it is asked to stop."""


class StartedWorkers:
    """A context manager, which ends those that nobody has taken."""

    def __init__(self, count: int, modules: Sequence[str]) -> None:
        """`modules` are what they import. As many as can be started."""
        self._left: list[StartedWorker] = []
        with contextlib.suppress(OSError):  # whoever needs one tries again, and says so
            for _ in range(count):
                self._left.append(start_worker(modules))

    def take(self) -> StartedWorker | None:
        """One of them, from now on the caller's; None where there are no more."""
        return self._left.pop() if self._left else None

    def __enter__(self) -> StartedWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        while self._left:
            worker = self._left.pop()
            worker.process.kill()
            worker.process.communicate()
            worker.socket.close()
            os.close(worker.stop)


def start_worker(modules: Sequence[str] = ()) -> StartedWorker:
    """Start one that imports `modules` before its first task. Raises `OSError`."""
    with contextlib.ExitStack() as failed:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        failed.callback(ours.close)
        stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        failed.callback(os.close, stop)
        ours.setblocking(False)
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, str(os.getpid()), str(stop), *modules],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(stop,),
                cwd="/",
                env=environment | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
                bufsize=0,
            )
        failed.pop_all()
    return StartedWorker(process, ours, stop)
