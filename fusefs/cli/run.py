"""`fusefs run TARGET -- COMMAND…`: a mount for one command only, of which nothing is left behind."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from fusefs import kernel_mount, mountinfo, namespaces
from fusefs.cli import print_error
from fusefs.cli.mount import make_mount, make_plan, make_request, settle_plan
from fusefs.dataset import open_dataset
from fusefs.interruption import Interrupted, held_back, interruptible
from fusefs.kernel_mount import Mounted
from fusefs.launch import Launch, end_daemon, start_background
from fusefs.logs import default_log
from fusefs.mount_options import MountOptions, add_flags, read_options
from fusefs.mountinfo import Mount
from fusefs.native.choice import NATIVE, Choice, prefer, settle
from fusefs.native.inotify import new_inotify
from fusefs.native.layers import IMAGE, make_layers
from fusefs.plan import MountPlan
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
WAITED_FOR: Final = FORWARDED | {signal.SIGCHLD}

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


def run_command(target: str, arguments: Sequence[str], options: MountOptions) -> int:
    """Mount `target`, run the command, clean up; the exit status. Raises `StoreError`."""
    mask = frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    try:
        with interruptible():
            request = make_request(target, options)
            dataset = open_dataset(request)
            for warning in dataset.warnings:
                print_error(f"warning: {warning}")
            with held_back() as let_go:
                run = _Run(_make_directory(), mask)
                try:
                    let_go()
                    log = options.log or default_log("run")
                    choice = prefer(dataset, options)
                    plan = make_plan(request, dataset, run.place, options, log, choice)
                    run.start(plan, choice, arguments, options)
                    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
                    status = run.wait()
                    if run.daemon_failed():
                        print_error(f"the daemon failed while the command ran; see {log}")
                finally:
                    run.clean_up()
    except Interrupted as interrupted:
        return interrupted.status
    return status if status >= 0 else 128 - status


def _make_directory() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    parent = runtime if runtime and os.access(runtime, os.W_OK) else None
    return os.path.realpath(tempfile.mkdtemp(prefix="fusefs-", dir=parent))


def _see_opens(plan: MountPlan, mounted: Mounted) -> int:
    """A descriptor for what is opened in the child's namespace, in native mode, where that is of use; -1."""
    if mounted.mount is not None or mounted.session >= 0 or not plan.remotes:
        return -1
    try:
        return new_inotify()
    except OSError:  # the daemon does without
        return -1


def _open_channel(mounted: Mounted) -> tuple[socket.socket, socket.socket] | None:
    """Where the daemon hands over the image of the version, in native mode in a namespace where images can be
    mounted: that of root."""
    is_private = mounted.mount is None and mounted.session < 0
    if not is_private or not kernel_mount.has_capability(kernel_mount.CAP_SYS_ADMIN):
        return None
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _take_image(ours: socket.socket) -> int:
    """The image's descriptor, or -1; a daemon that is ready has said what it has to say."""
    with ours:
        ours.setblocking(False)
        try:
            _, descriptors, _, _ = socket.recv_fds(ours, len(IMAGE), 1, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return -1
    return descriptors[0] if descriptors else -1


class _Run:
    """What has been begun, and how it is undone, in whatever state it is."""

    def __init__(self, place: str, mask: frozenset[int]) -> None:
        self.place = place
        self._mask = mask
        self._child: Child | None = None
        self._mount_here: Mount | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        self._lifeline = -1

    def start(self, plan: MountPlan, choice: Choice, arguments: Sequence[str], options: MountOptions) -> None:
        """Mount, start the daemon, and have COMMAND ready to go. Raises `MountFailed`."""
        command = Command(
            arguments=[argument.replace("{}", self.place) for argument in arguments],
            environment={**os.environ, "FUSEFS_MOUNT": self.place},
            mountpoint=self.place,
            mask=self._mask,
        )
        self._child, mounted, choice = self._mount(command, plan.target, options, choice)
        plan = settle_plan(plan, choice)
        lifeline, self._lifeline = os.pipe()
        opens = _see_opens(plan, mounted)
        channel = _open_channel(mounted)
        self._daemon = start_background(
            Launch(
                plan,
                mounted,
                verbose=options.verbose,
                read_ahead=options.read_ahead,
                lifeline_fd=lifeline,
                private=True,
                opens_fd=opens,
                image_fd=channel[1].fileno() if channel is not None else -1,
            )
        )
        os.close(lifeline)
        if channel is not None:
            channel[1].close()
        image = _take_image(channel[0]) if channel is not None else -1
        os.close(mounted.fd)
        if mounted.session >= 0:  # in native mode, and here: the daemon has attached it
            os.close(mounted.session)
            self._mount_here = mountinfo.mount_at(self.place, mountinfo.read_mounts())
        elif mounted.mount is None:
            self._child.attach(make_layers(plan, options.read_ahead), plan.tree, opens, image)
        for descriptor in (opens, image):
            if descriptor >= 0:
                os.close(descriptor)
        self._child.await_readable()
        if mounted.mount is not None:
            kernel_mount.tune(mounted.mount.device, options.read_ahead)

    def _mount(
        self, command: Command, source: str, options: MountOptions, choice: Choice
    ) -> tuple[Child, Mounted, Choice]:
        """Mount in the child's own namespace, else here, where only we may look."""

        def mount_here() -> tuple[Mounted, Choice]:
            settled = settle(choice, options)
            return make_mount(self.place, source, options, settled), settled

        def mount_privately() -> tuple[Mounted, Choice]:
            namespaces.enter_private_namespace()
            return mount_here()

        child = self._child = Child.fork(command, mount_privately)
        try:
            return child, *child.receive_mount()
        except NamespaceRefused as refusal:
            child.kill()
            self._child = None
            if options.mode == NATIVE:  # which needs the rights that a namespace gives
                raise
            with held_back():
                mounted, choice = mount_here()
                self._mount_here = mounted.mount
            print_error(f"no private mount namespace ({refusal}): mounted on {self.place} for the time being")
            return Child.fork(command, None), mounted, choice

    def wait(self) -> int:
        """Let COMMAND go and wait for it: its exit status, or minus the signal that ended it."""
        assert self._child is not None  # start() made it
        child, self._child = self._child, None  # from here on it is COMMAND, and ends by itself or with us
        child.release()
        return os.waitstatus_to_exitcode(forward_signals(child.pid, FORWARDED))

    def daemon_failed(self) -> bool:
        return self._daemon is not None and bool(self._daemon.poll())

    def clean_up(self) -> None:
        if self._child is not None:
            self._child.kill()
        if self._mount_here is not None:
            try:
                kernel_mount.unmount(self._mount_here, lazy=True)
            except StoreError as error:
                print_error(str(error))
        if self._lifeline >= 0:
            os.close(self._lifeline)
        # Where the mount is in another namespace, this detaches it there.
        with contextlib.suppress(OSError):
            Path(self.place).rmdir()
        if self._daemon is not None:
            end_daemon(self._daemon)
        if Path(self.place).exists():
            print_error(f"{self.place} could not be removed")
