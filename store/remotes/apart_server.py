"""`python -m store.remotes.apart_server`: uses storages for a process that cannot (`store.remotes.apart`).

Standard input is a socket through which connections come, until it ends, and with it this process. A
connection is served by a thread: a request, then its answer, and so on. Storages are opened once and kept.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgpack

from store.errors import InputError, RemoteError, RemoteSlow
from store.remotes.apart import DATA, END, ERROR, Connection
from store.remotes.opening import open_remote
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Address, WritableStorage

PAGE: Final = 1000


class Storages:
    """Opened by their specs, once. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[bytes, WritableStorage] = {}

    def get(self, wire: dict[str, Any]) -> WritableStorage:
        """Raises `RemoteError`."""
        key: bytes = msgpack.packb(wire)
        with self._lock:
            if key not in self._open:
                try:
                    self._open[key] = open_remote(RemoteSpec.from_wire(wire)).storage
                except InputError as error:
                    raise RemoteError(str(error)) from None
            return self._open[key]


def serve(connection: Connection, storages: Storages) -> None:
    """Answer requests until the other end has gone."""
    try:
        while True:
            wire, call, arguments = connection.receive_value()
            try:
                answer(connection, storages.get(wire), call, arguments)
            except RemoteError as error:
                tell(connection, error)
    except (RemoteError, Over):
        pass  # whoever asked does not want to know any more
    finally:
        connection.close()


class Over(Exception):
    """The connection is of no more use."""


def tell(connection: Connection, error: RemoteError) -> None:
    """What went wrong, to whoever asked. Raises `RemoteError` where nobody listens."""
    retry_after = error.retry_after if isinstance(error, RemoteSlow) else 0.0
    connection.send(ERROR, msgpack.packb([type(error).__name__, str(error), retry_after]))


def received(connection: Connection) -> Iterator[bytes]:
    """The parts that are sent after a `put`, to their end. Raises `RemoteError`."""
    while True:
        kind, data = connection.receive()
        if kind != DATA:
            return
        yield data


def answer(connection: Connection, storage: WritableStorage, call: str, arguments: Sequence[Any]) -> None:
    """Answer one request. Raises `RemoteError`, its own where nobody listens."""
    if call == "can_list":
        connection.send_value(storage.can_list)
    elif call == "size":
        connection.send_value(storage.size(Address(*arguments)))
    elif call == "put":
        key, size, if_absent = arguments
        try:
            done = storage.put(key, received(connection), size, if_absent=if_absent)
        except RemoteError as error:
            tell(connection, error)
            raise Over from None  # what is still on its way is not read
        connection.send_value(done)
        if not done:
            raise Over
    elif call == "delete":
        storage.delete(arguments)
        connection.send_value(True)
    elif call == "read":
        key, version, offset, length, validator = arguments
        with storage.read(Address(key, version), offset, length, validator) as body:
            connection.send_value([body.size, body.length, body.validator])
            for part in body:
                connection.send(DATA, part)
        connection.send(END)
    else:
        listed = storage.list(*arguments)
        while page := list(itertools.islice(listed, PAGE)):
            connection.send_value(page)
        connection.send(END)


def main() -> None:
    storages = Storages()
    door = socket.socket(fileno=0)
    while True:
        told, descriptors, _, _ = socket.recv_fds(door, 1, 1)
        if not told:
            # Threads that still read for somebody must not keep us.
            os._exit(0)
        for descriptor in descriptors:
            # It may be long until the next request.
            connection = Connection(socket.socket(fileno=descriptor), patience=None)
            threading.Thread(target=serve, args=(connection, storages), daemon=True).start()


if __name__ == "__main__":
    main()
