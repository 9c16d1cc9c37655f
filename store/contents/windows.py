"""`Windows`: runs of an archive's members, each brought by one request for all threads that want one of them.

A reader of small files asks for one and is likely to want its neighbours next. So a window begins at the
member that is wanted, and is twice as large as the one before it where it goes on behind that, also from the
end of one archive to the beginning of another: who reads in order soon moves megabytes a request, who jumps
about never moves more than the least window for a member.

Any thread. What was brought stays in memory within `budget` bytes, for those who come a little later.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from store.errors import RemoteError, RemoteSlow, RemoteUnreachable

SMALLEST_WINDOW: Final = 256 << 10
LARGEST_WINDOW: Final = 4 << 20
BUDGET: Final = 32 << 20
MOST_MEMBERS: Final = 4096
"""Of one window."""
WAIT_SECONDS: Final = 25.0
"""For a request that another thread makes."""
_FOLLOWED: Final = 8
"""Streams of readers that are followed in one archive."""
_SLACK: Final = 32
"""Members that may be left out between two windows of one stream: they were in a cache already."""

Brought = Mapping[int, bytes | RemoteError]
"""Of each member of a window its bytes, or what is wrong with them."""


class Run(NamedTuple):
    """Members `first` to `stop - 1` of an archive, which lie side by side."""

    first: int
    stop: int


@dataclass(slots=True, eq=False)
class _Window:
    run: Run
    size: int
    ready: threading.Event = field(default_factory=threading.Event)
    brought: Brought = field(default_factory=dict)
    error: RemoteError | None = None


class Windows:
    """Those of one remote's archives, which are told apart by their names."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget = budget
        self._lock = threading.Lock()
        self._windows: OrderedDict[tuple[str, int], _Window] = OrderedDict()
        """By archive and first member; in the order of their last use."""
        self._bytes = 0
        self._followed: dict[str, OrderedDict[int, int]] = {}
        """By archive: where windows ended, and how large they were."""
        self._at_end = 0
        """How large the last window was that ended its archive; 0 where one has gone on since."""

    def read(
        self,
        archive: str,
        ends: Sequence[int],
        member: int,
        bring: Callable[[Run], Brought],
    ) -> tuple[bytes, Brought]:
        """A member's bytes; and, for the one thread that brought them, all that came along.

        `ends` are the offsets in the archive at which its members end, padding included. `bring` makes the
        request. Raises `RemoteError`: to every waiter alike, and not to who comes later.
        """
        with self._lock:
            window = self._find(archive, member)
            is_ours = window is None
            if window is None:
                window = self._begin(archive, ends, member)
        if is_ours:
            self._fill(archive, window, bring)
        elif not window.ready.wait(WAIT_SECONDS):
            raise RemoteSlow(f"archive {archive} has not come within {WAIT_SECONDS:.0f} s")
        if window.error is not None:
            raise type(window.error)(*window.error.args)
        found = window.brought[member]
        if isinstance(found, RemoteError):
            with self._lock:
                self._drop((archive, window.run.first))  # who asks again may be given something else
            raise type(found)(*found.args)
        return found, window.brought if is_ours else {}

    def forget(self, archive: str) -> None:
        """Let go of what an archive had."""
        with self._lock:
            for key in [key for key in self._windows if key[0] == archive]:
                self._drop(key)
            self._followed.pop(archive, None)

    def _find(self, archive: str, member: int) -> _Window | None:
        for (name, first), window in reversed(self._windows.items()):
            if name == archive and first <= member < window.run.stop:
                self._windows.move_to_end((name, first))
                return window
        return None

    def _begin(self, archive: str, ends: Sequence[int], member: int) -> _Window:
        size = self._wanted_size(archive, member)
        begin = ends[member - 1] if member else 0
        following = (first for name, first in self._windows if name == archive and first > member)
        most = min(len(ends), member + MOST_MEMBERS, *following)
        stop = member + 1
        while stop < most and ends[stop] - begin <= size:
            stop += 1
        followed = self._followed.setdefault(archive, OrderedDict())
        followed[stop] = size
        if stop == len(ends):
            self._at_end = size
        while len(followed) > _FOLLOWED:
            followed.popitem(last=False)
        window = _Window(Run(member, stop), ends[stop - 1] - begin)
        self._windows[archive, member] = window
        self._bytes += window.size
        for key in [key for key, old in self._windows.items() if old.ready.is_set()]:
            if self._bytes <= self._budget:
                break
            self._drop(key)
        return window

    def _wanted_size(self, archive: str, member: int) -> int:
        followed = self._followed.get(archive, OrderedDict())
        before = next((stop for stop in reversed(followed) if stop <= member <= stop + _SLACK), None)
        if before is not None:
            return min(2 * followed.pop(before), LARGEST_WINDOW)
        before, self._at_end = self._at_end if member <= _SLACK else 0, 0
        return max(SMALLEST_WINDOW, min(2 * before, LARGEST_WINDOW))

    def _fill(self, archive: str, window: _Window, bring: Callable[[Run], Brought]) -> None:
        try:
            window.brought = bring(window.run)
        except RemoteError as error:
            window.error = error
        except BaseException as error:
            window.error = RemoteUnreachable(f"{type(error).__name__} in our own code")
            raise
        finally:
            if window.error is not None:
                with self._lock:
                    self._drop((archive, window.run.first))
            window.ready.set()

    def _drop(self, key: tuple[str, int]) -> None:
        window = self._windows.pop(key, None)
        if window is not None:
            self._bytes -= window.size
