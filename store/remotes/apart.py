"""`Apart`: storages that are used by a process of their own, for one that cannot read them itself any more.

obstore's threads do not survive a fork, and a forked child cannot start others: whatever it asks of obstore
waits for ever. So a child whose parent had it loaded has a helper (`store.remotes.apart_server`) read and
write the object stores. Each call has a connection to the helper, a socket pair whose other end is handed to
it: there is no name that others could connect to, and the helper ends with us. Blocking; any thread.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgpack

from store import errors
from store.errors import RemoteCorrupt, RemoteError, RemoteSlow, RemoteUnreachable
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from store.remotes.storage import CHUNK_BYTES, Address, Body, Limits, Listed, measured

COMMAND: Final = (sys.executable, "-P", "-m", "store.remotes.apart_server")
HEADER: Final = struct.Struct(">BI")
"""Before each message: its kind, and how many bytes follow."""
VALUE: Final = 0
DATA: Final = 1
END: Final = 2
ERROR: Final = 3
MESSAGE_LIMIT: Final = CHUNK_BYTES + 4096
_LIMITS: Final = Limits()
PATIENCE: Final = 3 * (_LIMITS.connect + _LIMITS.first_byte) + _LIMITS.stall + _LIMITS.upload + 60.0
"""Seconds between two messages: more than the helper's storages may take."""
MOST_IDLE: Final = 64
DELETED_AT_ONCE: Final = 64


class Apart:
    """The helper of this process, started when it is first needed, and connections to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._door: socket.socket | None = None
        self._idle: list[Connection] = []

    def open_remote(self, spec: RemoteSpec) -> Remote:
        """As `store.remotes.opening.open_remote`; what is wrong with the spec is told by the first call."""
        return Remote(spec.name, ApartStorage(self, spec), spec.layout, spec.addresses)

    def close(self) -> None:
        """End the helper. Calls that are under way fail."""
        with self._lock:
            self._end()

    def disown(self) -> None:
        """In a forked child: the helper is the parent's, and must end with that."""
        if self._door is not None:
            self._door.close()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection for one call; kept for another one if its answer was read to the end.

        Raises `RemoteUnreachable`.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._end()
            found = self._idle.pop() if self._idle else self._connect()
        try:
            yield found
        except BaseException:
            found.is_reusable = False
            raise
        finally:
            with self._lock:
                keep = found.is_reusable and self._door is not None and len(self._idle) < MOST_IDLE
                if keep:
                    self._idle.append(found)
            if not keep:
                found.close()

    def _connect(self) -> Connection:
        try:
            if self._door is None:
                self._start()
            assert self._door is not None  # it was started
            ours, theirs = socket.socketpair()
            with theirs:
                connection = Connection(ours)
                socket.send_fds(self._door, [b"c"], [theirs.fileno()])
        except OSError as error:
            raise RemoteUnreachable(f"no process can be started that reads remotes: {error}") from None
        return connection

    def _start(self) -> None:
        self._door, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                COMMAND, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, start_new_session=True
            )

    def _end(self) -> None:
        for one in (self._door, *self._idle):
            if one is not None:
                one.close()
        self._door = None
        self._idle.clear()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class HelperGone(RemoteUnreachable):
    """The other end listens no more; it may have said something before."""


class Connection:
    """Messages, one way and the other. One thread at a time."""

    def __init__(self, connected: socket.socket, patience: float | None = PATIENCE) -> None:
        self.is_reusable = True
        self._socket = connected
        self._socket.settimeout(patience)

    def close(self) -> None:
        self._socket.close()

    def send(self, kind: int, data: bytes = b"") -> None:
        """Raises `RemoteSlow` and `RemoteUnreachable` where the other end does not take it."""
        try:
            self._socket.sendall(HEADER.pack(kind, len(data)))
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise HelperGone(str(_failure(error))) from None
        except OSError as error:
            raise _failure(error) from None

    def send_value(self, value: object) -> None:
        """As `send`."""
        self.send(VALUE, msgpack.packb(value))

    def receive(self) -> tuple[int, bytes]:
        """The next message: its kind and its bytes. Raises the `RemoteError` that it tells, and its own."""
        try:
            kind, length = HEADER.unpack(self._receive_fully(HEADER.size))
            if length > MESSAGE_LIMIT:
                raise RemoteCorrupt("the process that reads remotes sends what cannot be")
            data = self._receive_fully(length)
        except OSError as error:
            raise _failure(error) from None
        if kind == ERROR:
            raise _told(*msgpack.unpackb(data))
        return kind, data

    def receive_value(self) -> Any:
        """The next message's value; None for an end. Raises as `receive`."""
        kind, data = self.receive()
        return msgpack.unpackb(data) if kind == VALUE else None

    def _receive_fully(self, length: int) -> bytes:
        data = bytearray(length)
        view, got = memoryview(data), 0
        while got < length:
            part = self._socket.recv_into(view[got:])
            if not part:
                raise ConnectionResetError("it has ended")
            got += part
        return bytes(data)


class ApartStorage:
    """A `Storage` that is read by the helper."""

    def __init__(self, apart: Apart, spec: RemoteSpec) -> None:
        self._apart = apart
        self._spec = spec.to_wire()

    @property
    def can_list(self) -> bool:
        return bool(self._ask("can_list"))

    def size(self, address: Address) -> int:
        return int(self._ask("size", *address))

    @contextmanager
    def read(
        self, address: Address, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> Iterator[Body]:
        with self._apart.connection() as connection:
            connection.send_value([self._spec, "read", [*address, offset, length, validator]])
            body = _ApartBody(connection, *connection.receive_value())
            connection.is_reusable = False  # until all of it is read
            yield body

    def put(self, key: str, parts: Iterable[bytes], size: int, *, if_absent: bool = False) -> bool:
        with self._apart.connection() as connection:
            connection.send_value([self._spec, "put", [key, size, if_absent]])
            connection.is_reusable = False  # until all of it is read
            try:
                for part in measured(parts, size):
                    connection.send(DATA, part)
                connection.send(END)
            except HelperGone:
                pass  # the helper has an answer already
            done = bool(connection.receive_value())
            connection.is_reusable = done
            return done

    def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), DELETED_AT_ONCE):
            self._ask("delete", *keys[start : start + DELETED_AT_ONCE])

    def list(self, prefix: str) -> Iterator[Listed]:
        with self._apart.connection() as connection:
            connection.send_value([self._spec, "list", [prefix]])
            while (page := connection.receive_value()) is not None:
                for listed in page:
                    yield Listed(*listed)

    def close(self) -> None:
        """The helper keeps what it has open for as long as it lives."""

    def _ask(self, call: str, *arguments: object) -> Any:
        with self._apart.connection() as connection:
            connection.send_value([self._spec, call, arguments])
            return connection.receive_value()


class _ApartBody:
    """An answer whose bytes the helper hands on."""

    def __init__(self, connection: Connection, size: int, length: int, validator: str) -> None:
        self._connection = connection
        self.size = size
        self.length = length
        self.validator = validator

    def __iter__(self) -> Iterator[bytes]:
        while not self._connection.is_reusable:
            kind, data = self._connection.receive()
            if kind == DATA:
                yield data
            else:
                self._connection.is_reusable = True


def _failure(error: OSError) -> RemoteError:
    if isinstance(error, TimeoutError):
        return RemoteSlow("the process that reads remotes does not answer")
    return RemoteUnreachable(f"the process that reads remotes: {error}")


def _told(name: str, message: str, retry_after: float) -> RemoteError:
    kind = getattr(errors, name, None)
    if kind is RemoteSlow:
        return RemoteSlow(message, retry_after)
    known = isinstance(kind, type) and issubclass(kind, RemoteError)
    return kind(message) if known else RemoteError(message)  # type: ignore[misc]
