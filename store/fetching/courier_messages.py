"""What a daemon and its courier (`store.fetching.courier`) say to each other: one message, one datagram.

The socket keeps messages apart and in order, and hands each to one of the threads that wait for one. Orders
are msgpack; reports begin with a fixed head, so that an object's bytes are copied as seldom as can be.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgpack

MESSAGE_BYTES: Final = 384 << 10
"""No message is longer: what a socket takes at once, for whoever may not raise its bounds."""
DATA_BYTES: Final = 256 << 10
"""Of an object that is sent in a message; a longer one comes as a file."""
BATCH: Final = 256
"""Objects that are published together, at most."""

ORDER_BYTES: Final = 64 << 10
"""No order is longer."""
LINE_BYTES: Final = 4 << 10
"""No line for the log is longer."""

READY: Final = 0
"""The process takes orders. No payload, as with `LARGE`."""
DATA: Final = 1
"""The bytes of an object."""
FILE: Final = 2
"""An object's file, whose descriptor comes along; the payload is its path, empty where it cannot be kept."""
LARGE: Final = 3
ERROR: Final = 4
"""The name of a `StoreError` and its arguments; of something else, which is a bug, what it says."""
PUBLISHED: Final = 5
"""For each object of the order what went wrong, or nothing."""
LOG: Final = 6
"""A line for the log; its level is the number."""
HERE: Final = 7
"""A cache has the object: its file, whose descriptor comes along. No payload."""

SETTINGS: Final = 0
BRING: Final = 1
PUBLISH: Final = 2
"""A number, and those of the orders that brought what is to be published together."""
ASK: Final = 4
"""As `BRING`, but only the object's length is wanted: a report is `LARGE`."""
FORGET: Final = 3
"""The numbers of orders whose objects are not to be kept."""

_HEAD: Final = struct.Struct("<bqqq")
HEAD_BYTES: Final = _HEAD.size


class Settings(NamedTuple):
    """The first message: where objects go, and whether they are hashed."""

    root: str
    below: str
    verify: bool
    threads: int
    """That may ask remotes at a time."""


class Bring(NamedTuple):
    """An object is to be brought; `number` is this order's."""

    number: int
    wire: bytes
    """The remote's spec, as msgpack."""
    generation: int
    """A higher one: the remote is to be opened anew."""
    digest: str
    algorithm: str
    is_directory: bool
    key: str
    version: str
    limit: int
    keep: bool
    in_memory: int
    """An object of no more bytes may come as such; larger ones come as files."""
    until: float
    known: int
    """The object's length, or `UNKNOWN`."""
    places: Sequence[str]
    """The caches that are to be looked into first."""


class Report(NamedTuple):
    """What a message from the courier says, but for its payload."""

    kind: int
    number: int
    """Of the order."""
    received: int
    """Bytes that the remote has sent for it."""
    size: int
    """The object's."""


def head(report: Report) -> bytes:
    return _HEAD.pack(*report)


def parse_head(message: memoryview) -> Report:
    return Report(*_HEAD.unpack_from(message))


def pack(kind: int, *values: object) -> bytes:
    """An order, or the settings."""
    packed: bytes = msgpack.packb((kind, *values), unicode_errors="surrogateescape")
    return packed


def unpack(message: bytes | memoryview) -> Sequence[Any]:
    values: Sequence[Any] = msgpack.unpackb(message, unicode_errors="surrogateescape", use_list=False)
    return values


def pack_map(fields: Mapping[str, object]) -> bytes:
    packed: bytes = msgpack.packb(dict(fields), unicode_errors="surrogateescape")
    return packed


def unpack_map(packed: bytes) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = msgpack.unpackb(packed, unicode_errors="surrogateescape")
    return fields
