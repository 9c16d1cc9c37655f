"""`Storage`: what every family of remotes can do, by keys; and the limits that they keep.

`WritableStorage` is what they can do beside, so that they are written to.

A storage is a plain blocking object, entered from many worker threads at once. It asks once: whoever
calls decides about retries, other remotes and hedges (`store.fetching`). It raises `RemoteError` and its
kinds, nothing else on purpose, and no message holds a secret. Whatever it does ends within its limits:
a thread that hangs cannot be ended from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

CHUNK_BYTES: Final = 1 << 20
"""What a body hands out at a time, at most."""
SENT_AT_ONCE: Final = 8 << 20
"""Bytes of one request that is sent, at most, where a family can send an object in several."""
UPLOADS: Final = "fusefs/uploads/"
"""Below a remote: what is on its way, where a family has to give it another name until it is whole."""


class Address(NamedTuple):
    """A thing in a storage: `/`-separated below its URL, and the storage's version, empty for the newest."""

    key: str
    version: str = ""


class Listed(NamedTuple):
    """What a listing tells of a key: its length in bytes, and when it was written."""

    key: str
    size: int
    modified: float = 0.0
    """Seconds since the epoch by the storage's clock; 0 where it does not say."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. Options of a remote (`connect_timeout`, `read_timeout`, `timeout`) may lower them."""

    connect: float = 10.0
    first_byte: float = 30.0
    """From the request to the first byte of the answer."""
    stall: float = 20.0
    """Between two parts of an answer, and for one part of what is sent."""
    upload: float = 180.0
    """For a request that sends up to `SENT_AT_ONCE` bytes, where single parts cannot be told."""


class Body(Protocol):
    """An answer whose bytes are still to come. Iterating gives them, in parts of at most `CHUNK_BYTES`.

    Exactly `length` bytes come, or iterating raises: `RemoteCorrupt` where the answer ends early,
    `RemoteSlow` where it stalls, `RemoteUnreachable` where the connection breaks.
    """

    @property
    def size(self) -> int:
        """Bytes of the whole object; -1 where the server does not say (then `length` is -1, too)."""

    @property
    def length(self) -> int:
        """Bytes to come."""

    @property
    def validator(self) -> str:
        """A strong entity tag or version, empty where there is none: equal ones have equal bytes."""

    def __iter__(self) -> Iterator[bytes]: ...


class Storage(Protocol):
    """One remote's storage. Safe to be used by many threads at once."""

    @property
    def can_list(self) -> bool:
        """Whether `list` is there at all."""

    def size(self, address: Address) -> int:
        """Length in bytes. Raises `RemoteError`."""

    def read(
        self, address: Address, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> AbstractContextManager[Body]:
        """Ask for a range, by default all there is; entering the context waits for the answer's head.

        `offset` and `length` must lie within the object. With `validator` the answer comes from that state
        of the object, or `RemoteCorrupt` is raised. An answer of other bytes than those asked for is
        `RemoteCorrupt`; a server that does not do ranges is `RangeRefused`, raised without reading on.
        """

    def list(self, prefix: str) -> Iterator[Listed]:
        """Everything whose key begins with `prefix` (whole segments, ending with `/`), page by page.

        In no order that could be relied on. Raises `RemoteError`, also between two pages.
        """

    def close(self) -> None:
        """Let go of connections; calls that are under way may fail."""


class WritableStorage(Storage, Protocol):
    """A storage that is written to, too, by the same rules. An object is seen whole or not at all."""

    def put(self, key: str, parts: Iterable[bytes], size: int, *, if_absent: bool = False) -> bool:
        """Make an object of `parts`, of at most `CHUNK_BYTES` each, iterated once and in this thread.

        They are `size` bytes together: other lengths are `ValueError`, and whatever iterating raises is
        raised as it is; either way there is no new object then. The length that the storage has in the
        end is looked at. With `if_absent` an object that is there stays, and False comes back; of two
        that do so at once one has it (HTTP and objects beyond `SENT_AT_ONCE` in object stores excepted:
        there it is a look before).

        Raises `RemoteError`: `RemoteFull` where there is no room. After `RemoteSlow` and
        `RemoteUnreachable` nobody knows whether the object is there.
        """

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; one that is not there is no error. Raises `RemoteError`: some may be gone then."""


def measured(parts: Iterable[bytes], size: int) -> Iterator[bytes]:
    """`parts`, if they are as many bytes as was promised. Raises `ValueError` before the last of them."""
    left = size
    pending = b""
    for part in parts:
        if pending:
            yield pending
        left -= len(part)
        if left < 0:
            break
        pending = part
    if left:
        raise ValueError(f"{size} bytes were promised, and there are {'more' if left < 0 else size - left}")
    if pending:
        yield pending
