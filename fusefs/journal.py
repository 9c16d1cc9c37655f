"""`Journal`: what another daemon has to know in order to go on in a mount where one was killed.

Whatever an inode follows from that is not in the plan: which version has which number, where it stands, what
is shown. A record is appended before the kernel is told of what it says, to memory that the supervisor holds
(`fusefs.supervisor`); the next daemon does the same again, in the same order. Where that fails, a number
stays without a space, and whoever comes with its inodes gets ESTALE.

A record is its length and crc32 (u32 each, little-endian) and msgpack: a kind, and a map. One that is cut
short was of no consequence yet. Lives on the event loop.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgpack

from store.errors import StoreError

log = logging.getLogger(__name__)

MOST_BYTES: Final = 256 << 20
_HEAD: Final = struct.Struct("<II")


class Journal:
    """In the memory file `descriptor`; without one (-1) nothing is kept."""

    def __init__(self, descriptor: int = -1) -> None:
        self._descriptor = descriptor
        self._end = 0
        self.is_replaying = False
        """While records are done again, none are appended."""

    def append(self, kind: str, /, **values: object) -> None:
        """Keep a record. Raises `StoreError` where it cannot be kept: then nobody may be told of it."""
        if self._descriptor < 0 or self.is_replaying:
            return
        packed = msgpack.packb([kind, values], unicode_errors="surrogateescape")
        record = _HEAD.pack(len(packed), zlib.crc32(packed)) + packed
        try:
            if self._end + len(record) > MOST_BYTES:
                raise OSError(0, "it is full")
            written = os.pwrite(self._descriptor, record, self._end)
            if written != len(record):
                raise OSError(0, "it is cut short")
        except OSError as error:
            raise StoreError(f"the journal of the mount cannot be written: {error.strerror}") from None
        self._end += len(record)

    def replay(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The records of the daemons before. What is done meanwhile is not appended; afterwards it is."""
        if self._descriptor < 0:
            return
        size = os.fstat(self._descriptor).st_size
        self.is_replaying = True
        try:
            while self._end + _HEAD.size <= size:
                length, checksum = _HEAD.unpack(os.pread(self._descriptor, _HEAD.size, self._end))
                packed = os.pread(self._descriptor, length, self._end + _HEAD.size)
                if len(packed) != length or zlib.crc32(packed) != checksum:
                    break
                kind, values = msgpack.unpackb(packed, unicode_errors="surrogateescape")
                yield kind, values
                self._end += _HEAD.size + length
        finally:
            self.is_replaying = False
