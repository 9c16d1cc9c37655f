"""`fusefs run TARGET -- COMMAND…`: a mount for one command only, of which nothing is left behind."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

from fusefs import kernel_mount, namespaces
from fusefs.cli import print_error
from fusefs.cli.mount import make_plan
from fusefs.dataset import open_dataset
from fusefs.kernel_mount import Mounted
from fusefs.launch import Launch, end_daemon, start_background
from fusefs.logs import default_log
from fusefs.mount_options import MountOptions, add_flags, read_options
from fusefs.private_mount import OURS, Child, Command, NamespaceRefused, forward_signals
from store.errors import StoreError

FORWARDED: Final = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
        signal.SIGWINCH,
    }
)

EPILOG = """\
COMMAND finds the mountpoint in $FUSEFS_MOUNT; {} in its arguments is replaced by it. The exit
status is COMMAND's, 128+n if a signal ended it, 125 if fusefs failed, 126 or 127 if COMMAND cannot
be executed or found.

examples:
  fusefs run data.dvc -- ls -l {}
  fusefs run data.dvc -- sh -c 'cd "$FUSEFS_MOUNT" && exec python train.py'
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "run",
        help="run a command with a version mounted for it alone",
        usage="fusefs run [options] TARGET -- COMMAND [ARGUMENT...]",
        description="Mount a version for one command only; no other process sees the mount.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="TARGET", help="what to mount")
    add_flags(parser, of_the_process=False)
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    if not options.command_line:
        options.usage_error("say what to run: fusefs run TARGET -- COMMAND")
    try:
        return run_command(options.target, options.command_line, read_options(vars(options)))
    except StoreError as error:
        print_error(str(error))
    except OSError as error:
        print_error(str(error))
    return OURS


class _Interrupted(Exception):
    """A signal came before COMMAND was started."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise _Interrupted(number)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Signals that end a process raise `_Interrupted`, so that what was begun is undone."""
    before = {}
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            before[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_command(target: str, arguments: Sequence[str], options: MountOptions) -> int:
    """Mount `target`, run the command, clean up; the exit status. Raises `StoreError`."""
    dataset = open_dataset(target, cache=options.cache)
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    place = os.path.realpath(
        tempfile.mkdtemp(prefix="fusefs-", dir=runtime if os.access(runtime, os.W_OK) else None)
    )
    run = _Run(place)
    try:
        with _interruptible():
            plan = make_plan(dataset, place, options, options.log or default_log("run"))
            command = Command(
                arguments=[argument.replace("{}", place) for argument in arguments],
                environment={**os.environ, "FUSEFS_MOUNT": place},
                mountpoint=place,
                mask=frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            )
            child = run.mount(target, command, options)
            lifeline, run.lifeline = os.pipe()
            assert run.mounted is not None  # mount() gave it
            launch = Launch(
                plan,
                run.mounted,
                verbose=options.verbose,
                read_ahead=options.read_ahead,
                lifeline_fd=lifeline,
                private=True,
            )
            run.daemon = start_background(launch)
            os.close(lifeline)
            os.close(run.mounted.fd)
            child.await_readable()
            kernel_mount.tune(run.mounted.mount.device, options.read_ahead)
            sys.stdout.flush()
            signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED | {signal.SIGCHLD})
        run.child = None  # from here on it is COMMAND: it ends by itself, or with us
        child.release()
        status = os.waitstatus_to_exitcode(forward_signals(child.pid, FORWARDED))
        if run.daemon.poll():
            print_error(f"the daemon failed while the command ran; see {plan.log}")
    except _Interrupted as interrupted:
        return 128 + interrupted.number
    finally:
        run.clean_up()
    return status if status >= 0 else 128 - status


class _Run:
    """What has been begun, and how it is undone, in whatever state it is."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.child: Child | None = None
        self.mounted: Mounted | None = None
        self.daemon: subprocess.Popen[bytes] | None = None
        self.lifeline = -1
        self._in_sight = False

    def mount(self, target: str, command: Command, options: MountOptions) -> Child:
        """Mount in the child's own namespace, else here where only we may look. Raises `MountFailed`."""

        def mount_here() -> Mounted:
            return kernel_mount.mount_fuse(
                self.place, target, allow_other=options.allow_other, noexec=options.noexec
            )

        def mount_privately() -> Mounted:
            namespaces.enter_private_namespace()
            return mount_here()

        self.child = Child.fork(command, mount_privately)
        try:
            self.mounted = self.child.receive_mount()
        except NamespaceRefused as refusal:
            self.child.kill()
            self.child = None
            self.mounted = mount_here()
            self._in_sight = True
            print_error(f"no private mount namespace ({refusal}): mounted on {self.place} for the time being")
            self.child = Child.fork(command, None)
        return self.child

    def clean_up(self) -> None:
        if self.child is not None:
            self.child.kill()
        if self._in_sight and self.mounted is not None:
            try:
                kernel_mount.unmount(self.mounted.mount, lazy=True)
            except StoreError as error:
                print_error(str(error))
        if self.lifeline >= 0:
            os.close(self.lifeline)
        # Where the mount is in another namespace, this detaches it there.
        with contextlib.suppress(OSError):
            Path(self.place).rmdir()
        if self.daemon is not None:
            end_daemon(self.daemon)
        if Path(self.place).exists():
            print_error(f"{self.place} could not be removed")
