"""`HeldFiles`: files that were opened while the kernel looked for their bytes, for the `open` that comes
next.

What is read through us has been opened once by then, and what is not kept would be fetched a second time.
They are held for some seconds, and only so many. Lives on the event loop.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

from store.open_objects import OpenObject
from store.tree_files import TreeFiles

HELD_SECONDS: Final = 5.0
MOST_HELD: Final = 256


class HeldFiles:
    """By tree and row. What is given here is closed here, unless somebody takes it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._held: dict[tuple[TreeFiles, int], OpenObject] = {}
        self._due: deque[tuple[float, tuple[TreeFiles, int], OpenObject]] = deque()
        """When each is let go of, if nobody has taken it."""

    def put(self, files: TreeFiles, row: int, opened: OpenObject) -> None:
        """Hold it for whoever opens that file next."""
        key = (files, row)
        if key in self._held or len(self._held) >= MOST_HELD:
            files.close(opened)
            return
        self._held[key] = opened
        self._due.append((trio.current_time() + HELD_SECONDS, key, opened))
        if len(self._due) == 1:
            self._nursery.start_soon(self._let_go)

    def take(self, files: TreeFiles, row: int) -> OpenObject | None:
        """What is held for that file; whoever takes it closes it."""
        return self._held.pop((files, row), None)

    def close_all(self) -> None:
        while self._held:
            (files, _), opened = self._held.popitem()
            files.close(opened)

    async def _let_go(self) -> None:
        while self._due:
            due, key, opened = self._due[0]
            if self._held.get(key) is not opened:
                self._due.popleft()
                continue
            await trio.sleep_until(due)
            if self._held.get(key) is opened:
                del self._held[key]
                key[0].close(opened)
