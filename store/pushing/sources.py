"""The bytes of objects that are pushed: from a cache, hashed on their way, so that no wrong byte goes out.

The last part is given only when all of them together have proved to be the object; an upload that lacks it
becomes nothing. Blocking; any thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from store.errors import CacheUnusable, ObjectCorrupt
from store.hashing import Hasher
from store.oid import Oid
from store.remotes.storage import CHUNK_BYTES


def verified(descriptor: int, size: int, oid: Oid, sent: Callable[[int], object]) -> Iterator[bytes]:
    """The open file's bytes in parts. `sent` is told how many have gone.

    Raises `ObjectCorrupt` before the last part, `CacheUnusable` where the disk does not give them.
    """
    hasher = Hasher(oid.algorithm)
    offset = 0
    while offset < size:
        try:
            part = os.pread(descriptor, min(CHUNK_BYTES, size - offset), offset)
        except OSError as error:
            raise CacheUnusable(f"object {oid} in the cache: {error.strerror}") from None
        if not part:
            break
        hasher.update(part)
        offset += len(part)
        if offset == size and not hasher.matches(oid):
            raise _corrupt(oid)
        yield part
        sent(len(part))
    if offset != size or (not size and not hasher.matches(oid)):
        raise _corrupt(oid)


def _corrupt(oid: Oid) -> ObjectCorrupt:
    return ObjectCorrupt(
        f"object {oid} in the cache has other bytes than its name says; nothing of it was sent"
    )
