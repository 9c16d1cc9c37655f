"""What a reader holds of an object: `OpenFile`, `OpenBytes`, or one that is fetched as it is read.

Belongs to the event loop, as `ContentStore` does, which makes them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from store.fetching.download import Fetched
from store.fetching.remote_set import RemoteSet
from store.oid import Oid


@dataclass(slots=True)
class OpenFile:
    """An object that a reader holds open as a file: it keeps its bytes whatever happens in the cache."""

    oid: Oid
    descriptor: int
    size: int
    owner: Fetched | None = None
    """Who closes the descriptor when all have let go of it; None: who opened the object."""

    def close(self) -> None:
        if self.owner is None:
            os.close(self.descriptor)
        self.owner = None


@dataclass(slots=True)
class OpenBytes:
    """A small object that was fetched and is in memory until it is in the cache, or nobody reads it."""

    oid: Oid
    data: bytes
    size: int
    owner: Fetched | None
    """Who accounts for the memory."""

    async def read(self, offset: int, length: int) -> memoryview:
        return memoryview(self.data)[offset : offset + length]

    def close(self) -> None:
        self.owner = None
        self.data = b""


class RangedObject(Protocol):
    """An object that is fetched as it is read (`store.fetching.ranged_object`)."""

    @property
    def oid(self) -> Oid: ...

    @property
    def size(self) -> int: ...

    async def read(self, offset: int, length: int) -> bytes | memoryview: ...

    async def bring(self) -> None: ...

    def close(self) -> None: ...


class RangedObjects(Protocol):
    """Opens objects that are too large to be fetched before they are open."""

    async def await_kept(self, oid: Oid) -> bool: ...

    async def open(self, oid: Oid, size: int, remotes: RemoteSet) -> RangedObject: ...

    def proof(self, oid: Oid) -> str:
        """What speaks for the bytes of one that is open: `hash` or `length`; empty for one that is not."""


OpenObject = OpenFile | OpenBytes | RangedObject
"""What a reader holds; to be given to `ContentStore.read` and `close`."""


class Brought(NamedTuple):
    """An object that was brought ahead of its readers."""

    opened: OpenObject
    """To be closed, or handed to a reader (`ContentStore.hand_over`)."""
    came: bool
    """From a remote, just now."""
    kept: bool
    """It is in the cache, or on its way there."""
    memory: int
    """Bytes of memory that it takes until it is closed."""


def open_fetched(found: Fetched) -> OpenFile | OpenBytes:
    """What was fetched, or found in a cache meanwhile."""
    if found.data is not None:
        return OpenBytes(found.oid, found.data, found.size, found)
    return OpenFile(found.oid, found.descriptor, found.size, found)
