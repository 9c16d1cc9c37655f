"""The supervisor: a small process that holds `/dev/fuse`, so that a mount outlives the daemon that serves it.

Started by `fusefs.launch` as `python -m fusefs.supervisor`, in the background or, exec-ed in place, in the
foreground. It forks the daemon before anything large is imported, and waits. A daemon that ends by itself
ends the mount, and us with it; in the place of one that was killed or has failed comes another one, which
goes on with the session that was agreed upon with the kernel (`fusefs.relay`) and with what stands in the
journal. Readers wait meanwhile. When daemons die too fast, or one does not come to serve, we end, and the
connection with us: then readers get an error.

When we are killed, the daemon goes on, and nobody takes its place.

Thread rule: one thread, for it forks. Imports cost memory for as long as the mount lives.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENDING_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

MOST_RESTARTS: Final = 3
RESTART_WINDOW: Final = 60.0
"""Seconds in which so many daemons that served may die, and no more; and so many in a row that never did."""
SERVING_SECONDS: Final = 30.0
"""How long another daemon may take until it serves."""
MESSAGE_BYTES: Final = 1 << 16

TOLD: Final = b"ready"
SERVING: Final = b"serving"
ENDING: Final = b"ending"
NOTIFY: Final = b"notify "
"""What a daemon says, a line each: the command was told that the mount is ready; another daemon could go on
from here; nobody is to take its place; and assignments for the service manager, separated by zero bytes."""


class Supervision(NamedTuple):  # no dataclass: what makes one is larger than all of us
    """What a daemon has of its supervisor."""

    journal: int
    """The memory file of `fusefs.journal`."""
    handles: int
    """The memory file of `fusefs.handles`."""
    told: int
    """Where it says something to us."""
    alive: int
    """Readable when we are gone."""
    supervisor: int
    """Our process."""
    restarts: int
    cause: str
    """What became of the one before; empty for the first one."""


class Child(NamedTuple):
    """A daemon that was forked."""

    pid: int
    told: int
    alive: int


class Supervisor:
    """Of one mount. `given` are the options of the command line."""

    def __init__(self, given: Mapping[str, str], mountpoint: str) -> None:
        self._device = int(given["fuse-fd"])
        self._session = int(given.get("session-fd", -1))
        self._log = given.get("log", "")
        self._foreground = "foreground" in given
        self._private = "private" in given
        self._mountpoint = mountpoint
        self._journal = os.memfd_create("fusefs-journal")
        self._handles = os.memfd_create("fusefs-handles")
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        self._restarts: list[float] = []
        self._count = 0
        self._was_told = self._is_serving = self._is_ending = self._was_late = False

    def run(self) -> Supervision | int:
        """Our exit status, or, in the process that is to be the daemon, what it has of us."""
        signal.set_wakeup_fd(self._wake)
        cause = ""
        while True:
            started = self._start(cause)
            if isinstance(started, Supervision):
                return started
            status = self._watch(started)
            if not status or self._is_ending:
                return status
            if not self._was_told:
                return 1  # the command says why
            cause = self._explain(status)
            if not _is_connected(self._device):
                self._say("INFO", f"the daemon {cause} when the mount was gone")
                return 1
            if not self._may_go_on():
                self._say("ERROR", f"the daemon {cause}: the mount ends, and its readers get an error")
                self._clear_away()
                return 1

    def _may_go_on(self) -> bool:
        """May another daemon take the place of the one that died now? Counts it."""
        now = time.monotonic()
        if self._is_serving:  # else it is the same trouble still, however long it takes
            self._restarts = [at for at in self._restarts if now - at < RESTART_WINDOW]
        if len(self._restarts) >= MOST_RESTARTS or not (self._is_serving or self._count):
            return False
        self._restarts.append(now)
        self._count += 1
        return True

    def _start(self, cause: str) -> Child | Supervision:
        told, tell = os.pipe()
        alive, keep = os.pipe()
        # The daemon lets signals in when it can obey; a terminal's are for us alone.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            for number in ENDING_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            for descriptor in (told, keep, self._woken, self._wake):
                os.close(descriptor)
            _name_process("fusefs-daemon")
            if self._foreground:
                os.setpgid(0, 0)
                signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # it logs to the terminal
            if cause:
                self._log_output()
            return Supervision(self._journal, self._handles, tell, alive, os.getppid(), self._count, cause)
        for number in ENDING_SIGNALS:
            signal.signal(number, lambda *_: None)  # `set_wakeup_fd` tells us
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
        os.close(tell)
        os.close(alive)
        if self._session >= 0:  # or the session would go on when the overlay is unmounted
            os.close(self._session)
            self._session = -1
        return Child(pid, told, keep)

    def _watch(self, child: Child) -> int:
        """Wait for a daemon's end, and do what it says: its exit status, or minus the signal that ended
        it."""
        self._is_serving = self._was_late = False
        ended = os.pidfd_open(child.pid)
        poll = select.poll()
        for descriptor in (ended, child.told, self._woken):
            poll.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + SERVING_SECONDS
        while True:
            waits = self._count and not self._is_serving and not self._was_late
            ready = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000 if waits else None))
            if waits and not ready:
                self._was_late = True
                os.kill(child.pid, signal.SIGKILL)
            if child.told in ready:
                said = os.read(child.told, MESSAGE_BYTES)
                for line in said.splitlines():
                    self._hear(line)
                if said:
                    continue
                poll.unregister(child.told)
            if self._woken in ready:
                self._pass_on(child.pid, os.read(self._woken, MESSAGE_BYTES))
            if ended in ready:
                break
        for descriptor in (ended, child.told, child.alive):
            os.close(descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])

    def _hear(self, line: bytes) -> None:
        if line == TOLD:
            self._was_told = True
            if not self._foreground:
                detach_output()
        elif line == SERVING:
            self._is_serving = True
        elif line == ENDING:
            self._is_ending = True
        elif line.startswith(NOTIFY):
            from fusefs.notify import notify  # for a service manager: few mounts have one

            notify(*os.fsdecode(line.removeprefix(NOTIFY)).split("\0"))

    def _pass_on(self, pid: int, numbers: bytes) -> None:
        """Pass signals on to the daemon."""
        for number in numbers:
            if number in ENDING_SIGNALS:
                self._is_ending |= number != signal.SIGHUP or self._foreground
                os.kill(pid, number)

    def _explain(self, status: int) -> str:
        """What became of a daemon."""
        if self._was_late:
            return f"did not serve within {SERVING_SECONDS:.0f} s"
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        return f"failed with status {status}"

    def _say(self, level: str, text: str) -> None:
        """A line in the daemon's log, in its form (`fusefs.logs`); a log that cannot be written is no reason
        to fail."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        try:
            descriptor = _open_log(self._log) if self._log else os.dup(2)
            os.write(descriptor, f"{when} {level} fusefs.supervisor: {text}\n".encode())
            os.close(descriptor)
        except OSError:
            pass

    def _log_output(self) -> None:
        """Have what a daemon says before it has a log of its own in the log."""
        if self._log:
            try:
                descriptor = _open_log(self._log)
                os.dup2(descriptor, 2, inheritable=True)
                os.close(descriptor)
            except OSError:
                pass

    def _clear_away(self) -> None:
        if self._private:
            try:
                os.rmdir(self._mountpoint)  # noqa: PTH106  # pathlib is larger than all of us
            except OSError:
                pass  # the runner was faster


def _is_connected(device: int) -> bool:
    poll = select.poll()
    poll.register(device, 0)
    return not any(events & select.POLLERR for _, events in poll.poll(0))


def _open_log(path: str) -> int:
    # O_NONBLOCK: a FIFO without a reader must fail, not block.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    return os.open(path, flags, 0o600)


def _name_process(name: str) -> None:
    """Have `ps` and `top` tell us from each other."""
    try:
        with open("/proc/self/comm", "w") as file:
            file.write(name)
    except OSError:
        pass


def detach_output() -> None:
    """Let go of the report pipe, which somebody reads to its end."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def main(argv: Sequence[str]) -> int:
    *options, _, mountpoint = argv
    given = {name: value for name, _, value in (option[2:].partition("=") for option in options)}
    for name in ("fuse-fd", "plan-fd", "session-fd", "lifeline-fd"):
        if name in given:
            os.set_inheritable(int(given[name]), False)
    os.chdir("/")
    _name_process("fusefs")
    outcome = Supervisor(given, mountpoint).run()
    if isinstance(outcome, int):
        for number in ENDING_SIGNALS:  # one that comes now is no failure any more
            signal.signal(number, signal.SIG_IGN)
        return outcome if outcome >= 0 else 128 - outcome
    from fusefs.daemon import main as serve  # in the daemon, and only there

    return serve(argv, outcome)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
