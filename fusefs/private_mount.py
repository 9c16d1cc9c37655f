"""A mount for one command only: in a mount namespace of the command's own, else in a private directory.

Called by `fusefs run`. The runner stays outside the namespace. Its child goes in, mounts, hands
the `/dev/fuse` descriptor back, waits for the daemon, and becomes COMMAND. So the daemon too is
outside, and whoever is left can remove the directory: that detaches the mount where it still is.

Thread rule: the runner has one thread (it forks).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NoReturn

import msgpack

from fusefs import namespaces
from fusefs.kernel_mount import Mounted, MountFailed
from fusefs.logs import escape
from fusefs.mountinfo import Mount
from fusefs.native.choice import Choice
from fusefs.native.inotify import watch_tree
from fusefs.native.layers import Layers, attach_layers
from store.errors import StoreError

OURS: Final = 125
CANNOT_EXECUTE: Final = 126
NOT_FOUND: Final = 127
"""Exit statuses as env(1) has them: our own failure, and COMMAND's that could not be started."""

SECONDS: Final = 60.0
MESSAGE_BYTES: Final = 1 << 16
LOOK: Final = b"look"
ATTACH: Final = b"attach "
GO: Final = b"go"


Prepare = Callable[[], tuple[Mounted, Choice]]
"""Mounts in a mode that is found out there."""


class NamespaceRefused(MountFailed):
    """There is no private mount namespace for this user, or no mount in it."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute, and the signal mask that it is to have."""

    arguments: list[str]
    environment: Mapping[str, str]
    mountpoint: str
    mask: frozenset[int]


class Child:
    """The process that becomes COMMAND: it waits for `release`, and dies with the runner."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self._channel = channel

    @classmethod
    def fork(cls, command: Command, prepare: Prepare | None) -> Child:
        """Fork a child. It runs `prepare`, if given, and hands the mount over to `receive_mount`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _become(command, prepare, theirs, parent)
        theirs.close()
        ours.settimeout(SECONDS)
        return cls(pid, ours)

    def receive_mount(self) -> tuple[Mounted, Choice]:
        """The mount that the child made, and its mode. Raises `NamespaceRefused` with the child's reason."""
        try:
            data, fds, _, _ = socket.recv_fds(self._channel, MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError as error:
            raise NamespaceRefused("it took too long") from error
        if not fds:
            raise NamespaceRefused(data.decode(errors="replace") or "the child ended")
        told = msgpack.unpackb(data, unicode_errors="surrogateescape")
        mount = Mount(**told["mount"]) if told["mount"] else None
        choice = {**told["choice"], "layers": tuple(told["choice"]["layers"])}
        return Mounted(fds[0], mount), Choice(**choice)

    def attach(self, layers: Layers, tree: str, opens: int, image: int) -> None:
        """Have the child mount the overlay over its session, which is served by now, with the image of the
        version `tree` for its names, and watch by the inotify descriptor `opens` what is opened in it; either
        may be missing (-1). Raises `MountFailed`."""
        both = {"opens": opens, "image": image}
        given = {name: descriptor for name, descriptor in both.items() if descriptor >= 0}
        question = {"layers": asdict(layers), "tree": tree, "given": list(given)}
        wire = msgpack.packb(question, unicode_errors="surrogateescape")
        socket.send_fds(self._channel, [ATTACH + wire], list(given.values()))
        try:
            answer = self._channel.recv(MESSAGE_BYTES)
        except TimeoutError as error:
            raise MountFailed("the overlay was not mounted") from error
        if answer != ATTACH:
            raise MountFailed(answer.decode(errors="replace") or "the overlay was not mounted")

    def await_readable(self) -> None:
        """Have the child look at the mount, which it alone may see. Raises `MountFailed`."""
        self._channel.send(LOOK)
        try:
            answer = self._channel.recv(MESSAGE_BYTES)
        except TimeoutError as error:
            raise MountFailed("the mount does not answer") from error
        if answer != LOOK:
            raise MountFailed(f"the mount does not answer: {answer.decode(errors='replace')}")

    def release(self) -> None:
        """Let the child become COMMAND."""
        self._channel.send(GO)
        self._channel.close()

    def kill(self) -> None:
        """End a child that is not to become COMMAND."""
        self._channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _become(command: Command, prepare: Prepare | None, channel: socket.socket, parent: int) -> NoReturn:
    status = OURS
    try:
        bounds = namespaces.bounding_set()
        session = _hand_over(prepare, channel) if prepare is not None else -1
        # After `prepare`: a change of credentials would undo it.
        namespaces.die_with_parent(signal.SIGKILL, parent)
        _await_release(command.mountpoint, channel, session)
        namespaces.drop_capabilities(bounds)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; COMMAND must not
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, command.mask)
        try:
            os.execvpe(command.arguments[0], command.arguments, command.environment)
        except (OSError, ValueError) as error:
            status = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_EXECUTE
            reason = error.strerror if isinstance(error, OSError) else str(error)
            os.write(
                2, f"fusefs: {escape(command.arguments[0])}: {reason}\n".encode(errors="backslashreplace")
            )
    finally:
        os._exit(status)  # never the parent's clean-up, whatever happened


def _hand_over(prepare: Prepare, channel: socket.socket) -> int:
    """Mount, and tell the runner; the session that is to be attached in native mode, or -1."""
    try:
        mounted, choice = prepare()
    except (StoreError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        channel.send((reason or "refused").encode(errors="replace"))
        os._exit(OURS)
    told = {"mount": asdict(mounted.mount) if mounted.mount else None, "choice": asdict(choice)}
    socket.send_fds(channel, [msgpack.packb(told, unicode_errors="surrogateescape")], [mounted.fd])
    os.close(mounted.fd)
    return mounted.session


def _attach(session: int, wire: bytes, descriptors: Sequence[int], channel: socket.socket) -> None:
    question = msgpack.unpackb(wire, unicode_errors="surrogateescape")
    given = dict(zip(question["given"], descriptors, strict=True))

    def watch(root: int) -> None:
        if "opens" in given:
            watch_tree(given["opens"], root, Path(question["tree"]))

    try:
        attach_layers(session, Layers(**question["layers"]), watch, given.get("image", -1))
    except StoreError as error:
        channel.send(str(error).encode(errors="replace"))
        os._exit(OURS)
    for descriptor in (session, *descriptors):  # or they would outlive COMMAND's last look
        os.close(descriptor)
    channel.send(ATTACH)


def _await_release(mountpoint: str, channel: socket.socket, session: int) -> None:
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        if message == GO:
            break
        if message.startswith(ATTACH):
            _attach(session, message.removeprefix(ATTACH), descriptors, channel)
            continue
        if message != LOOK:
            os._exit(OURS)  # the runner is gone, or has given up
        try:
            os.statvfs(mountpoint)
            channel.send(LOOK)
        except OSError as error:
            channel.send(str(error.strerror).encode())
    channel.close()


def forward_signals(pid: int, signals: frozenset[signal.Signals]) -> int:
    """Wait for the child `pid`, passing on the `signals` (blocked) that we get; its wait status.

    What the kernel sends because of the terminal, it sends to COMMAND as well: that is not passed
    on, except SIGHUP, which is for the leader of the session only.
    """
    while True:
        info = signal.sigwaitinfo(signals | {signal.SIGCHLD})
        if info.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return status
        elif info.si_code <= 0 or info.si_signo == signal.SIGHUP:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, info.si_signo)
