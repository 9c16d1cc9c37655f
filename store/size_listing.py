"""`SizeListing`: the directories of one remote, listed side by side, those that somebody waits for first.

Who looks at a file whose size is not known costs a question; a listing of the directory that has its object
takes about as long, if it is no more than a page, and tells of all that is there. So while a survey lists
them (`store.size_survey`), nobody asks for single sizes.

Thread rule: belongs to the event loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Generic, NamedTuple, TypeVar

import trio

from store.errors import StoreError

T = TypeVar("T")

AT_ONCE: Final = 8
"""Half of the threads for questions; the others are for who waits."""
AWAITED_AT_ONCE: Final = 14
"""As long as somebody waits for them."""
PATIENCE: Final = 1.0
"""Seconds, and who waits for a listing had better ask, as all who come later."""


class Directory(NamedTuple):
    """One of the 256 for the objects of an algorithm."""

    algorithm: str
    prefix: str
    """The first two hex digits of its objects."""


class SizeListing(Generic[T]):
    """Of what `work` does for each directory."""

    def __init__(self, work: Callable[[T], Awaitable[object]]) -> None:
        self._work = work
        self._waiting: OrderedDict[Directory, T] = OrderedDict()
        self._listed: dict[Directory, trio.Event] = {}
        self._nursery: trio.Nursery | None = None
        self._workers = 0
        self._failure: StoreError | None = None
        self._is_slow = False

    async def run(self, parts: Iterable[tuple[Directory, T]]) -> None:
        """List all. The first failure ends it, and is raised as it is."""
        self._waiting.update(parts)
        self._listed = {directory: trio.Event() for directory in self._waiting}
        try:
            async with trio.open_nursery() as self._nursery:
                for _ in range(AT_ONCE):
                    self._start()
        finally:
            self._nursery = None
            self._waiting.clear()
            for listed in self._listed.values():
                listed.set()
        if self._failure is not None:
            raise self._failure

    async def await_listed(self, directory: Directory) -> None:
        """Have a directory listed before others, and wait for that, unless it is not to be or takes long."""
        listed = self._listed.get(directory)
        if listed is None or listed.is_set() or self._is_slow:
            return
        if directory in self._waiting:
            self._waiting.move_to_end(directory, last=False)
            if self._workers < AWAITED_AT_ONCE:
                self._start()
        with trio.move_on_after(PATIENCE):
            await listed.wait()
        self._is_slow |= not listed.is_set()

    def _start(self) -> None:
        if self._nursery is not None:
            self._workers += 1
            self._nursery.start_soon(self._list_next)

    async def _list_next(self) -> None:
        try:
            while self._waiting:
                directory, part = self._waiting.popitem(last=False)
                await self._work(part)
                self._listed[directory].set()
        except StoreError as error:
            assert self._nursery is not None  # it is what runs this
            self._failure = self._failure or error
            self._waiting.clear()
            self._nursery.cancel_scope.cancel()
        finally:
            self._workers -= 1
