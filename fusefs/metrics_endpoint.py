"""The HTTP endpoint of `--metrics`: answers GET and HEAD of /metrics, and nothing else.

Bound before the mount is said to be ready, so that an address in use is the mount's own error. Whoever
connects may be anybody: a request's head is bounded, a connection has a deadline, and of too many at once the
oldest is dropped, so that clients that do nothing never keep a real one out.

Thread rule: everything runs on the event loop.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from fusefs.metrics_address import UNIX, join_host, split_host
from fusefs.metrics_text import CONTENT_TYPE
from store.errors import InputError

log = logging.getLogger(__name__)

CONNECTIONS: Final = 8
HEAD_BYTES: Final = 8 << 10
CLIENT_SECONDS: Final = 5.0
DRAIN_BYTES: Final = 64 << 10
"""What is taken from a client after the answer: data that nobody takes would make the kernel reset the
connection, and the client lose the answer."""
RECEIVE_BYTES: Final = 4 << 10
PATH: Final = b"/metrics"

_REQUEST: Final = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.[0-9]\r?\n")
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")


class MetricsEndpoint:
    """A listening socket and what is answered on it. Bound when made; raises `InputError`."""

    def __init__(self, address: str, render: Callable[[], bytes]) -> None:
        self._render = render
        self._clients: dict[int, trio.CancelScope] = {}
        self._made: os.stat_result | None = None
        """Of the socket's file, which is removed at the end if it is still ours."""
        self._path = Path(address.removeprefix(UNIX)) if address.startswith(UNIX) else None
        try:
            self._socket = self._bind_unix(self._path) if self._path else _bind_tcp(address)
        except OSError as error:
            raise InputError(
                f"--metrics {address}: {error.strerror or error}; choose another address"
            ) from error
        self.address = address if self._path else join_host(*self._socket.getsockname()[:2])
        """Where it listens; with the port that was free where any was asked for."""

    def _bind_unix(self, path: Path) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            os.fchmod(sock.fileno(), 0o600)  # the socket's file has it from its beginning
            _remove_abandoned(path)
            sock.bind(str(path))
            self._made = path.lstat()
            sock.listen(CONNECTIONS)
        except BaseException:
            sock.close()
            raise
        return sock

    async def serve(self) -> None:
        """Answer until cancelled, then stop listening. Raises nothing on a client's account."""
        try:
            async with trio.SocketListener(trio.socket.from_stdlib_socket(self._socket)) as listener:
                await trio.serve_listeners(self._serve_client, [listener])
        finally:
            self._remove_file()

    def _remove_file(self) -> None:
        if self._path is not None and self._made is not None:
            try:
                if os.path.samestat(self._path.lstat(), self._made):
                    self._path.unlink()
            except OSError as error:
                log.debug("%s: %s", self._path, error.strerror)

    async def _serve_client(self, client: trio.SocketStream) -> None:
        if len(self._clients) >= CONNECTIONS:
            self._clients.pop(next(iter(self._clients))).cancel()
        with trio.move_on_after(CLIENT_SECONDS) as scope:
            self._clients[id(scope)] = scope
            try:
                async with client:
                    await self._answer(client)
            except trio.BrokenResourceError:
                log.debug("a client of the metrics went away")
            except Exception:  # a client must not be able to end the daemon
                log.exception("the metrics could not be served")
            finally:
                self._clients.pop(id(scope), None)

    async def _answer(self, client: trio.SocketStream) -> None:
        await client.send_all(self._respond(await _read_head(client)))
        await client.send_eof()
        drained = 0
        while drained < DRAIN_BYTES and (more := await client.receive_some(RECEIVE_BYTES)):
            drained += len(more)

    def _respond(self, head: bytes) -> bytes:
        if len(head) > HEAD_BYTES:
            return _response("431 Request Header Fields Too Large")
        request = _REQUEST.match(head)
        if request is None or not _END_OF_HEAD.search(head):
            return _response("400 Bad Request")
        method, target = request.groups()
        if target.partition(b"?")[0] != PATH:
            return _response("404 Not Found")
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", allow=True)
        answer = _response("200 OK", self._render(), kind=CONTENT_TYPE)
        return answer if method == b"GET" else answer[: answer.index(b"\r\n\r\n") + 4]


def _response(status: str, body: bytes = b"", *, kind: str = "text/plain", allow: bool = False) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += ["Allow: GET, HEAD"] * allow + ["Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


async def _read_head(client: trio.SocketStream) -> bytes:
    """What a client sends up to the empty line, its end, or more than `HEAD_BYTES`."""
    head = b""
    while len(head) <= HEAD_BYTES and not _END_OF_HEAD.search(head):
        more = await client.receive_some(RECEIVE_BYTES)
        if not more:
            break
        head += more
    return head


def _bind_tcp(address: str) -> socket.socket:
    host, port = split_host(address)
    sock = socket.socket(
        socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    )
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past connections do not keep us from it
        sock.bind((host, port))
        sock.listen(CONNECTIONS)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_abandoned(path: Path) -> None:
    """Take away the socket of a daemon that was killed: its file stays, nobody listens. Raises OSError."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return  # `bind` says that it is there
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except BlockingIOError:
            pass  # somebody listens and is busy
