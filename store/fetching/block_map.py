"""`BlockMap`: which blocks of a partial are there, and what their bytes must hash to. Any thread; blocking.

A file of 8 bytes a block, the xxh3-64 of the block's bytes or 0 where it is absent, behind a header. It is
shared by processes through plain reads and writes of it: were it mapped into memory, whoever may write to
the cache could end a daemon by making the file shorter. An entry is written after the block's bytes; which
of the two reaches the disk first is open, so after a crash an entry is a claim and the hash is the proof.

The header names the object's size and the size of a block; a map that is damaged, or of another size, is
no map and is begun anew. It also keeps the entity tag of the first remote that gave one, and an end: once
a partial has been admitted to the cache or quarantined, others that have it open must know.
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Iterator
from typing import Final

import xxhash

BLOCK_BYTES: Final = 1 << 20
MOST_BLOCKS: Final = 1 << 24
"""16 TiB, which is as large as a file of ext4 gets."""

_HEADER: Final = struct.Struct("<8sIQQQH200s")
"""Magic, version, object's size, block's size, hash of the remote's name, its tag's length and text."""
_SEAL: Final = struct.Struct("<Q")
_END: Final = struct.Struct("<I")
_END_OFFSET: Final = 252
"""By itself, so that no other write to the header can take it back."""
HEADER_BYTES: Final = 256
_MAGIC: Final = b"fusefsBM"
_VERSION: Final = 1
_LONGEST_TAG: Final = 200
_ENTRIES_AT_ONCE: Final = 1 << 16


class End(enum.IntEnum):
    """What has become of a partial."""

    NONE = 0
    ADMITTED = 1
    """Its file is the cache's now, whole and hashed."""
    DISCARDED = 2
    """Its bytes are not the object's, or not of one state of it."""


class BlockMap:
    """The map in an open file. Does not own the descriptor. All calls raise `OSError`."""

    def __init__(self, descriptor: int, size: int) -> None:
        """`size` is the object's, in bytes."""
        self._descriptor = descriptor
        self._size = size
        self.blocks = count_blocks(size)

    def is_sound(self) -> bool:
        """Is this a map of an object of our size?"""
        if os.fstat(self._descriptor).st_size != HEADER_BYTES + 8 * self.blocks:
            return False
        head = os.pread(self._descriptor, _HEADER.size + _SEAL.size, 0)
        if len(head) != _HEADER.size + _SEAL.size:
            return False
        fields, seal = head[: _HEADER.size], head[_HEADER.size :]
        magic, version, size, block_bytes, _, tag_length, _ = _HEADER.unpack(fields)
        return (
            (magic, version, size, block_bytes) == (_MAGIC, _VERSION, self._size, BLOCK_BYTES)
            and tag_length <= _LONGEST_TAG
            and seal == _SEAL.pack(xxhash.xxh3_64_intdigest(fields))
        )

    def begin(self) -> None:
        """Make it a map of no blocks."""
        os.ftruncate(self._descriptor, 0)
        os.ftruncate(self._descriptor, HEADER_BYTES + 8 * self.blocks)
        self._write_head(0, b"")

    def get(self, block: int) -> int:
        """The hash of the block's bytes; 0 where it is absent."""
        entry = os.pread(self._descriptor, 8, HEADER_BYTES + 8 * block)
        return _SEAL.unpack(entry)[0] if len(entry) == 8 else 0

    def put(self, block: int, digest: int) -> None:
        """Say that the block is there, after it has been written. `digest` as `hash_entry` gives it."""
        os.pwrite(self._descriptor, _SEAL.pack(digest), HEADER_BYTES + 8 * block)

    def drop(self, block: int) -> None:
        """Say that the block is absent."""
        self.put(block, 0)

    def is_complete(self) -> bool:
        """Is there an entry for every block?"""
        return next(self.absent(), None) is None

    def absent(self) -> Iterator[int]:
        """The blocks that have no entry, in order."""
        for first in range(0, self.blocks, _ENTRIES_AT_ONCE):
            count = min(_ENTRIES_AT_ONCE, self.blocks - first)
            data = os.pread(self._descriptor, 8 * count, HEADER_BYTES + 8 * first)
            entries = struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8])
            for index in range(count):
                if index >= len(entries) or entries[index] == 0:
                    yield first + index

    def end(self) -> End:
        """Whether the partial is over, by this process or by another. A map that cannot be read is."""
        data = os.pread(self._descriptor, _END.size, _END_OFFSET)
        if len(data) != _END.size or (value := _END.unpack(data)[0]) not in iter(End):
            return End.DISCARDED
        return End(value)

    def set_end(self, end: End) -> None:
        os.pwrite(self._descriptor, _END.pack(end), _END_OFFSET)

    def validator(self, remote_name: str) -> str:
        """The entity tag that the remote gave when it was first asked; empty where none is known."""
        remote, tag = self._read_tag()
        return tag.decode("latin-1") if remote == _hash_name(remote_name) else ""

    def set_validator(self, remote_name: str, validator: str) -> None:
        """Keep the first remote's tag, if it can be kept."""
        tag = validator.encode("latin-1", "replace")
        remote, _ = self._read_tag()
        if remote == 0 and tag.decode("latin-1") == validator and len(tag) <= _LONGEST_TAG:
            self._write_head(_hash_name(remote_name), tag)

    def _read_tag(self) -> tuple[int, bytes]:
        head = os.pread(self._descriptor, _HEADER.size, 0)
        if len(head) != _HEADER.size:
            return 0, b""
        *_, remote, length, tag = _HEADER.unpack(head)
        return remote, tag[:length]

    def _write_head(self, remote: int, tag: bytes) -> None:
        fields = _HEADER.pack(_MAGIC, _VERSION, self._size, BLOCK_BYTES, remote, len(tag), tag)
        os.pwrite(self._descriptor, fields + _SEAL.pack(xxhash.xxh3_64_intdigest(fields)), 0)


def count_blocks(size: int) -> int:
    """How many blocks an object of `size` bytes has."""
    return -(-size // BLOCK_BYTES)


def hash_entry(digest: int) -> int:
    """An entry for a block whose bytes have the xxh3-64 `digest`: 0 means absent, so it is not one."""
    return digest or 1


def _hash_name(name: str) -> int:
    return hash_entry(xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogateescape")))
