"""From a mounted `/dev/fuse` to a daemon that serves it: in the background, or exec-ed in place.

Called by `fusefs mount` and `fusefs run`. The daemon is a fresh process, forked by a supervisor that is one,
too (`fusefs.supervisor`): a session of their own, working directory `/`, none of the caller's descriptors but
the two or three that are given. No wait is without a deadline, and a launch that fails leaves no process
behind; the mount is the caller's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import site
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from fusefs.kernel_mount import Mounted, MountFailed
from fusefs.plan import MountPlan
from fusefs.supervisor import ENDING_SIGNALS

READY: Final = b"ready\n"
FAILED: Final = b"failed: "
"""How the daemon begins its two reports; anything else on the pipe is the end of a crash."""
READY_SECONDS: Final = 60.0
END_SECONDS: Final = 10.0
REPORT_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Launch:
    """A daemon to be started. `lifeline_fd` is a pipe's reading end, or -1; see `fusefs.daemon`."""

    plan: MountPlan
    mounted: Mounted
    verbose: bool
    read_ahead: int
    lifeline_fd: int = -1
    private: bool = False
    opens_fd: int = -1
    """An inotify descriptor, of watches that somebody adds where the mount is to be seen."""
    image_fd: int = -1
    """A socket on which whoever mounts in native mode gets the version's image, if there is one, before the
    daemon is ready (`fusefs.native.overlay`)."""


def start_background(launch: Launch) -> subprocess.Popen[bytes]:
    """Start the daemon and wait until it answers requests; its supervisor. Raises `MountFailed` with its
    error."""
    plan_fd = _write_plan(launch.plan)
    mounted = launch.mounted
    given = (plan_fd, mounted.fd, mounted.session, launch.lifeline_fd, launch.opens_fd, launch.image_fd)
    fds = [fd for fd in given if fd >= 0]
    try:
        daemon = subprocess.Popen(
            _command(launch, plan_fd, foreground=False),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=fds,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise MountFailed(f"cannot start the daemon: {error}") from error
    finally:
        os.close(plan_fd)
    try:
        _await_ready(daemon)
    except BaseException:
        end_daemon(daemon, 0)
        raise
    return daemon


def exec_foreground(launch: Launch) -> NoReturn:
    """Become the daemon: what compiling took of memory is given back. Raises `MountFailed`."""
    plan_fd = _write_plan(launch.plan)
    os.set_inheritable(plan_fd, True)
    os.set_inheritable(launch.mounted.fd, True)
    if launch.mounted.session >= 0:
        os.set_inheritable(launch.mounted.session, True)
    command = _command(launch, plan_fd, foreground=True)
    # A signal must not find a half-started interpreter, which would leave a dead mount: the daemon
    # lets them in when it can obey.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        os.execve(command[0], command, _environment())
    except OSError as error:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
        raise MountFailed(f"cannot start the daemon: {error}") from error


def leave_running(daemon: subprocess.Popen[bytes]) -> None:
    """Let go of a daemon that is to outlive us."""
    if daemon.stdout is not None:
        daemon.stdout.close()
    daemon.returncode = 0  # Popen must not warn that we did not wait


def end_daemon(daemon: subprocess.Popen[bytes], seconds: float = END_SECONDS) -> None:
    """Wait for a daemon that has every reason to end; after `seconds` it is killed."""
    if daemon.stdout is not None:
        daemon.stdout.close()
    try:
        daemon.wait(seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)  # the supervisor, the daemon and its children
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.wait(END_SECONDS)


def _write_plan(plan: MountPlan) -> int:
    fd = os.memfd_create("fusefs-plan")  # unlike a pipe, it takes a plan of any size at once
    with open(fd, "wb", closefd=False) as file:
        file.write(plan.to_bytes())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _command(launch: Launch, plan_fd: int, *, foreground: bool) -> list[str]:
    # -P: the working directory `/` must not be searched for modules.
    command = [sys.executable, "-P", "-m", "fusefs.supervisor"]
    command += [f"--plan-fd={plan_fd}", f"--fuse-fd={launch.mounted.fd}"]
    command += [f"--read-ahead={launch.read_ahead}"]
    if launch.mounted.mount is not None:
        command += [f"--mount-id={launch.mounted.mount.mount_id}"]
    command += [f"--session-fd={launch.mounted.session}"] if launch.mounted.session >= 0 else []
    command += [f"--lifeline-fd={launch.lifeline_fd}"] if launch.lifeline_fd >= 0 else []
    command += [f"--opens-fd={launch.opens_fd}"] if launch.opens_fd >= 0 else []
    command += [f"--image-fd={launch.image_fd}"] if launch.image_fd >= 0 else []
    command += [f"--log={launch.plan.log}"] if launch.plan.log else []
    command += ["--foreground"] * foreground + ["--private"] * launch.private
    return [*command, *(["--verbose"] * launch.verbose), "--", launch.plan.mountpoint]


def _environment() -> dict[str, str]:
    """Ours, so that the daemon finds what we found, also when we run from a checkout."""
    environment = dict(os.environ)
    home = str(Path(__file__).resolve().parent.parent)
    if home not in site.getsitepackages():
        paths: Sequence[str] = [home, *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def _await_ready(daemon: subprocess.Popen[bytes]) -> None:
    assert daemon.stdout is not None  # it was made with a pipe
    pipe = daemon.stdout.fileno()
    deadline = time.monotonic() + READY_SECONDS
    report = b""
    while READY not in report:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            raise MountFailed(f"the daemon was not ready after {READY_SECONDS:.0f} s")
        data = os.read(pipe, REPORT_BYTES)
        if not data:
            raise MountFailed(_read_failure(report))
        report = (report + data)[-REPORT_BYTES:]


def _read_failure(report: bytes) -> str:
    lines = [line for line in report.splitlines() if line.strip()]
    for line in lines:
        if line.startswith(FAILED):
            return line.removeprefix(FAILED).decode(errors="replace")
    last = lines[-1].decode(errors="replace").strip() if lines else "it said nothing"
    return f"the daemon ended before it was ready: {last}"
