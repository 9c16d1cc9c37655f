"""The socket by which a mount's owner tells its daemon something: to switch versions, what will be read next.

A Unix socket with an abstract name that nobody can guess and that is gone with the daemon, however
that ends; the status tells it. One JSON object a line goes in, one comes out. The kernel says who is
on the other end: only the owner and root are heard.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import trio

log = logging.getLogger(__name__)

LINE_BYTES: Final = 1 << 16
CLIENT_SECONDS: Final = 600.0
CLIENTS: Final = 8
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def new_name() -> str:
    """A name for a socket, written with `@` for the zero byte that it begins with."""
    return f"@fusefs-{secrets.token_hex(16)}"


def ask(name: str, request: dict[str, Any], seconds: float = CLIENT_SECONDS) -> dict[str, Any]:
    """Put a request to the daemon that listens at `name`; blocking. Raises OSError, and ValueError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        client.connect("\0" + name.removeprefix("@"))
        with suppress(BrokenPipeError):  # whoever is not heard is told so at once, and no more is read
            client.sendall(json.dumps(request).encode() + b"\n")
        with client.makefile("rb") as answers:
            line = answers.readline(LINE_BYTES)
    if not line:
        raise ConnectionError("it ended before it had done what was asked; look at the mount")
    answer = json.loads(line)
    if not isinstance(answer, dict):
        raise ValueError("the daemon's answer is not an object")
    return answer


def listen(name: str) -> socket.socket:
    """A socket at which clients can wait for an answer from now on. Raises OSError.

    To be made before anybody can read the name: a connection that comes earlier would be refused.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind("\0" + name.removeprefix("@"))
        sock.listen(CLIENTS)
    except OSError:
        sock.close()
        raise
    return sock


async def serve_control(listening: socket.socket, handle: Handler) -> None:
    """Answer clients until cancelled; one that is slow or wrong costs nobody else."""
    limit = trio.CapacityLimiter(CLIENTS)
    with trio.socket.from_stdlib_socket(listening) as sock:
        async with trio.open_nursery() as nursery:
            while True:
                async with limit:
                    client, _ = await sock.accept()
                nursery.start_soon(_serve_client, client, handle, limit)


async def _serve_client(client: trio.socket.SocketType, handle: Handler, limit: trio.CapacityLimiter) -> None:
    with client:
        async with limit:
            try:
                with trio.move_on_after(CLIENT_SECONDS):
                    await _converse(client, handle)
            except OSError as error:
                log.debug("a client of the control socket is gone: %s", error)
            except Exception:  # a client must not be able to end the daemon
                log.exception("a control request failed")


async def _converse(client: trio.socket.SocketType, handle: Handler) -> None:
    raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    if uid not in (0, os.geteuid()):
        log.warning("user %d may not control this mount", uid)
        answer: dict[str, Any] = {"error": "only the mount's owner and root may do that", "denied": True}
    else:
        answer = await _answer(client, handle)
    data = json.dumps(answer).encode() + b"\n"
    while data:
        data = data[await client.send(data) :]


async def _answer(client: trio.socket.SocketType, handle: Handler) -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        more = await client.recv(LINE_BYTES)
        line += more
        if not more or len(line) > LINE_BYTES:
            return {"error": "that is not a request"}
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        return {"error": "that is not a request"}
    return await handle(request)
