"""Commands that are killed at their k-th operation: `Killer`. No tests.

One process imports the command line once and forks for each run; a run counts what it asks of the file system
and sends itself SIGKILL before the k-th.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

OPERATIONS = (
    *("open", "write", "pread", "preadv", "rename", "replace"),
    *("unlink", "rmdir", "mkdir", "link", "fsync", "fchmod"),
)


@dataclass(frozen=True, slots=True)
class Killer:
    """Runs commands of ours, here or to where they are killed."""

    _process: subprocess.Popen[str]
    said: Path
    """What commands said."""

    def run(self, *arguments: object, stop: int = 0) -> int:
        """The exit status; minus SIGKILL where the run was killed before its `stop`-th operation."""
        order, answer = self._process.stdin, self._process.stdout
        assert order is not None
        assert answer is not None
        order.write(json.dumps({"stop": stop, "arguments": [str(argument) for argument in arguments]}) + "\n")
        order.flush()
        return int(answer.readline())

    def each(self, *arguments: object, step: int = 1) -> Iterator[None]:
        """After each kill, at every `step`-th operation, until a run comes to its end by itself."""
        stop = 1
        while (status := self.run(*arguments, stop=stop)) == -signal.SIGKILL:
            yield
            stop += step
        assert status == 0, self.said.read_text()
        assert stop > 10  # or nothing was counted


@contextmanager
def new_killer(environment: Mapping[str, str], directory: Path) -> Iterator[Killer]:
    """In `directory`."""
    with (
        (directory / "said").open("w") as said,
        subprocess.Popen(
            [sys.executable, "-m", "tests.backup.killing"],
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as process,
    ):
        yield Killer(process, directory / "said")
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


def _count(stop: int) -> None:
    lock = threading.Lock()
    left = stop

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def work(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            with lock:
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
            return operation(*arguments, **named)

        return work

    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))


def _serve(orders: IO[str]) -> None:
    from fusefs.cli import backup, main, restore  # noqa: F401

    for line in orders:
        order = json.loads(line)
        child = os.fork()
        if not child:
            os.dup2(2, 1)
            _count(order["stop"])
            status = 70
            try:
                status = main(order["arguments"])
            except SystemExit as error:
                status = int(error.code or 0)
            finally:
                sys.stdout.flush()
                os._exit(status)
        _, waited = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(waited), flush=True)


if __name__ == "__main__":
    _serve(sys.stdin)
