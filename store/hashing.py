"""`Hasher`: does a stream of bytes have the hash that DVC named it by? Blocking; one thread at a time.

`md5` is the hash of the bytes as they are. `md5-dos2unix`, of DVC 0.x to 2.x, turns CRLF into LF where a
heuristic takes the bytes for text, a block of 1 MiB at a time; a CRLF that two blocks share stays. DVC 2
looked at the file's beginning once, DVC 3 looks at every block's. Both wrote names that are in use, so a
file that has either hash is the object.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final

from store.oid import DVC_ALGORITHMS, MD5, Oid

_BLOCK_BYTES: Final = 1 << 20
_HEAD_BYTES: Final = 512
_TEXT: Final = bytes(range(32, 127)) + b"\n\r\t\f\b"
_LARGEST_SHARE: Final = 0.30
"""Of bytes in a text's head that are not text."""
_PIECE_BYTES: Final = 1 << 20
_AT_ONCE_BYTES: Final = 2047
"""That `hashlib` hashes without letting go of the interpreter."""


class Hasher:
    """A hash under way. Memory: at most one block of 1 MiB."""

    def __init__(self, algorithm: str) -> None:
        """`algorithm` is one of DVC's; git's blobs are hashed by `store.git`."""
        if algorithm not in DVC_ALGORITHMS:
            raise ValueError(f"{algorithm} is not a hash that DVC names objects by")
        self._is_plain = algorithm == MD5
        self._hash = hashlib.md5(usedforsecurity=False)
        self._fresh_hash = self._hash
        """As DVC 3 has it; the very same object for as long as both agree."""
        self._pending = bytearray()
        self._begins_as_text: bool | None = None

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take in the bytes that come next, however many."""
        if self._is_plain:
            self._hash.update(data)
            return
        view = memoryview(data).cast("B")
        if self._pending:
            taken = _BLOCK_BYTES - len(self._pending)
            self._pending += view[:taken]
            view = view[taken:]
            if len(self._pending) < _BLOCK_BYTES:
                return
            self._take_block(bytes(self._pending))
            self._pending.clear()
        whole = len(view) - len(view) % _BLOCK_BYTES
        for start in range(0, whole, _BLOCK_BYTES):
            self._take_block(bytes(view[start : start + _BLOCK_BYTES]))
        self._pending += view[whole:]

    def matches(self, oid: Oid) -> bool:
        """Whether all that was taken in has the hash of `oid`. To be asked once, at the end."""
        if self._pending:
            self._take_block(bytes(self._pending))
            self._pending.clear()
        return oid.digest in (self._hash.hexdigest(), self._fresh_hash.hexdigest())

    def _take_block(self, block: bytes) -> None:
        is_text = _is_text(block[:_HEAD_BYTES])
        if self._begins_as_text is None:
            self._begins_as_text = is_text
        converted = block.replace(b"\r\n", b"\n")
        if is_text != self._begins_as_text and converted != block and self._fresh_hash is self._hash:
            self._fresh_hash = self._hash.copy()
        self._hash.update(converted if self._begins_as_text else block)
        if self._fresh_hash is not self._hash:
            self._fresh_hash.update(converted if is_text else block)


def bytes_match(data: bytes, oid: Oid) -> bool:
    """Whether `data` are the object's bytes. For small objects: it never lets go of the interpreter,
    which would take longer to have back than the work."""
    hasher = Hasher(oid.algorithm)
    for start in range(0, len(data), _AT_ONCE_BYTES):
        hasher.update(data[start : start + _AT_ONCE_BYTES])
    return hasher.matches(oid)


def file_matches(descriptor: int, oid: Oid) -> bool:
    """Whether the open file's bytes, from its beginning to its end, are the object's. Raises `OSError`."""
    hasher = Hasher(oid.algorithm)
    buffer = memoryview(bytearray(_PIECE_BYTES))
    offset = 0
    while got := os.preadv(descriptor, [buffer], offset):
        hasher.update(buffer[:got])
        offset += got
    return hasher.matches(oid)


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    return len(head.translate(None, _TEXT)) <= _LARGEST_SHARE * len(head)
