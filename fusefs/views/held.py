"""`HeldBytes`: what was made last, while its readers are likely to come for the rest of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable

import trio


class HeldBytes:
    """At most `most` bytes, or one thing that is larger. Lives on the event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0
        self._held: OrderedDict[Hashable, bytes] = OrderedDict()
        self._coming: dict[Hashable, trio.Event] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """What is held by a key; made where nothing is, once for all who ask meanwhile. Raises as `make`."""
        while (found := self._held.get(key)) is None and key in self._coming:
            await self._coming[key].wait()  # the kernel asks for several parts of a file at a time
        if found is not None:
            self._held.move_to_end(key)
            return found
        came = self._coming[key] = trio.Event()
        try:
            made = await make()
            self._hold(key, made)
            return made
        finally:
            del self._coming[key]
            came.set()

    def clear(self) -> None:
        """Hold nothing any more."""
        self._held.clear()
        self._bytes = 0

    def _hold(self, key: Hashable, made: bytes) -> None:
        self._held[key] = made
        self._bytes += len(made)
        while len(self._held) > 1 and self._bytes > self._most:
            self._bytes -= len(self._held.popitem(last=False)[1])
