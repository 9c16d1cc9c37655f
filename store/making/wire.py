"""`Wire`: messages between the process that serves and a worker, and what the two say to each other.

A message is a list of msgpack's, sent in packets of a local socket that keeps their bounds; descriptors go
with the last one. The worker asks, and waits for what it asked for:

    [MAKE, maker, arguments, sources, begin, seconds, delay]
                                  to the worker, with a descriptor: a task. The maker is [module, function],
                                  sources are [identity, name], what is made is written from `begin` on, and
                                  takes at most so many seconds of the processor; nobody minds if a piece
                                  is told of `delay` seconds after it was made
    [OPEN, source]                → [OPEN, handle, size, begin] with a descriptor, or without: then it is read
    [READ, handle, begin, length] → [READ, bytes] the bytes of a range
    [CLOSE, handle]
    [PIECES, [number, begin, length, digest], …]  are in the file; digest is a piece's xxh3-64
    [REFUSED, number, reason]                     the content does not allow that piece
    [ALIVE]                                       nothing came of it yet
    [DONE, count]                                 the task has ended: pieces in all, -1 when it was stopped
    [FAILED, kind, reason]                        the task has ended: a `StoreError`

Where an answer is [FAILED, kind, reason], the task fails of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from array import array
from typing import Any, Final

import msgpack

MAKE: Final = 0
OPEN: Final = 1
READ: Final = 2
CLOSE: Final = 3
PIECES: Final = 4
REFUSED: Final = 5
ALIVE: Final = 6
DONE: Final = 7
FAILED: Final = 8

PACKET: Final = 64 << 10
LARGEST_READ: Final = 4 << 20
"""Bytes that are asked for at a time."""
LARGEST: Final = 64 << 20
"""Bytes of a message."""
_MORE: Final = b"+"
_LAST: Final = b"."


class WireBroken(Exception):
    """The other end has gone, or says what cannot be."""


def packets_of(message: list[object]) -> list[bytes]:
    """The packets of a message."""
    data: bytes = msgpack.packb(message, unicode_errors="surrogateescape")
    if len(data) > LARGEST:
        raise WireBroken(f"a message of {len(data)} bytes")
    if len(data) <= PACKET:
        return [_LAST + data]
    parts = [data[at : at + PACKET] for at in range(0, len(data), PACKET)]
    return [*(_MORE + part for part in parts[:-1]), _LAST + parts[-1]]


class Assembly:
    """Packets become messages again."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, packet: bytes) -> list[Any] | None:
        """The message, when it is complete. Raises `WireBroken`; an empty packet is the end."""
        if not packet:
            raise WireBroken("it has ended")
        self._parts.append(packet[1:])
        self._length += len(packet)
        if packet[:1] == _MORE and self._length <= LARGEST:
            return None
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._length = [], 0
        message = None
        with contextlib.suppress(ValueError, msgpack.UnpackException):
            message = msgpack.unpackb(data, unicode_errors="surrogateescape")
        if not isinstance(message, list) or not message:
            raise WireBroken("it says what cannot be")
        return message


class Wire:
    """The worker's end. Blocking; one thread."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._assembly = Assembly()

    def send(self, *message: object) -> None:
        """Raises `WireBroken` where the other end has gone."""
        try:
            for packet in packets_of(list(message)):
                self._socket.send(packet)
        except OSError as error:
            raise WireBroken(error.strerror) from None

    def receive(self) -> tuple[list[Any], list[int]]:
        """The next message and the descriptors that came with it. Raises `WireBroken`."""
        descriptors: list[int] = []
        while True:
            try:
                packet, came, _, _ = socket.recv_fds(self._socket, PACKET + 1, 1)
            except OSError as error:
                raise WireBroken(error.strerror) from None
            for descriptor in came:
                os.set_inheritable(descriptor, False)
            descriptors += came
            message = self._assembly.add(packet)
            if message is not None:
                return message, descriptors


def ancillary(descriptor: int | None) -> list[tuple[int, int, bytes]]:
    """What sends a descriptor along."""
    if descriptor is None:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]).tobytes())]
