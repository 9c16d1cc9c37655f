"""A server that says word for word what a test wants, for what real servers do not do."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Script = Callable[[socket.socket], None]
"""Answers one request on a connection, which is closed afterwards."""

OBJECT_HEADERS = 'Last-Modified: Tue, 15 Nov 1994 12:45:26 GMT\r\nETag: "abc"\r\n'


@dataclass(slots=True)
class RawServer:
    """A server that runs. `script` may change between requests."""

    script: Script
    choose: Callable[[str], Script] | None = None
    """Picks a script by the head of a request, in place of `script`."""
    port: int = 0
    reads_bodies: bool = False
    """Take the body of a request before it is answered."""
    requests: list[str] = field(default_factory=list)
    """The heads of the requests that came, in order."""
    released: threading.Event = field(default_factory=threading.Event)
    """Set when the test is over: a script that is to hang waits for it."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stall(self, *parts: str | bytes) -> Script:
        """Say the parts and then nothing until the test is over."""

        def script(connection: socket.socket) -> None:
            for part in parts:
                connection.sendall(part.encode() if isinstance(part, str) else part)
            self.released.wait()

        return script


def say(status: str, body: bytes = b"", headers: str = "") -> Script:
    """A whole answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return lambda connection: connection.sendall(head.encode() + body)


def say_raw(text: str, body: bytes = b"") -> Script:
    """Just that, and the end of the connection."""
    return lambda connection: connection.sendall(text.encode() + body)


def reset(connection: socket.socket) -> None:
    """Break the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _take_body(connection: socket.socket, request: str, got: int) -> None:
    found = re.search(r"^content-length: (\d+)", request, re.IGNORECASE | re.MULTILINE)
    left = (int(found[1]) if found else 0) - got
    while left > 0 and (part := connection.recv(min(left, 65536))):
        left -= len(part)


@contextmanager
def raw_server(script: Script) -> Iterator[RawServer]:
    """Serve on a free port until the context is left."""
    server = RawServer(script)
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        server.port = listener.getsockname()[1]

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                head = b""
                while b"\r\n\r\n" not in head:
                    received = connection.recv(65536)
                    if not received:
                        return
                    head += received
                head, _, body = head.partition(b"\r\n\r\n")
                request = head.decode("latin-1") + "\r\n\r\n"
                if server.reads_bodies:
                    _take_body(connection, request, len(body))
                server.requests.append(request)
                choose = server.choose  # which the test may take away at any moment
                (choose(request) if choose else server.script)(connection)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threads.append(threading.Thread(target=answer, args=[connection]))
                    threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield server
        finally:
            server.released.set()
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for thread in threads:
                thread.join()
