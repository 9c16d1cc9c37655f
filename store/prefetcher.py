"""`Prefetcher`: brings a version's files ahead of their readers, in the order in which those will read them.

The order is that of a file, of hints, or of the last epoch (`store.traces`). What was brought is held until
it is read, and handed to its reader as it is: so it is there although the cache had no room for it. What the
cache has already is passed over.

All prefetchers of a daemon share a `Window` (`store.prefetch_window`). They are driven by opens and arrivals
alone. Belongs to the event loop.
"""

from __future__ import annotations

import logging
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

import trio

from store.errors import StoreError
from store.oid import Oid
from store.open_objects import Brought, OpenObject
from store.prefetch_window import Window
from store.reading_order import Follower
from store.threads import Threads
from store.traces import EpochRecorder, is_worth_keeping, read_trace, write_trace
from store.tree import UNKNOWN, Tree

log = logging.getLogger(__name__)

Order = Literal["file", "hint", "trace", "none"]
"""Where an order comes from."""

GUESSED_BYTES: Final = 64 << 10
"""What a file counts whose size is not known yet."""
LOOKED_AT: Final = 256
"""Files that the cache is asked for together."""
STALLED: Final = 64
"""Opens that found nothing though the window is full: what is in it is not what is read."""
FAILURES: Final = 16
"""In a row; then nothing more is brought until the readers are found again."""
MOST_ROWS: Final = 1 << 22
"""In a larger tree nothing is recorded: it would take too much of the daemon's memory."""
MOST_HINTED: Final = 1 << 20
"""Files that hints may be ahead."""
WRITE_PAUSE: Final = 5.0
REPLAYED: Final = 64
"""Opens that are looked at again when an order becomes known a little late."""


class Files(Protocol):
    """The files of a version (`store.tree_files`)."""

    tree: Tree

    @property
    def sizes(self) -> Sequence[int]: ...

    async def bring(self, row: int, largest: int) -> Brought | None:
        """Bring a file's object into the cache, and open it; None where it has more than `largest` bytes."""

    async def missing(self, rows: Sequence[int]) -> list[int]:
        """Those of the rows whose objects the cache does not have."""


@dataclass(frozen=True, slots=True)
class PrefetchReport:
    """What a prefetcher has done."""

    order: Order
    """Where the order comes from that readers are expected to follow."""
    ahead: int
    """Files that were brought and wait for their readers."""
    fetching: int
    """Files that are on their way."""
    fetched: int
    """Files that were brought so far."""
    hits: int
    """Opens that found theirs brought."""


@dataclass(slots=True)
class _Ahead:
    """A file that was brought and waits for its reader."""

    oid: Oid
    opened: OpenObject | None
    """None for what the reader will find in the cache, or on its way there."""
    size: int
    memory: int


class Prefetcher:
    """Of one version. `kept` is where its trace is kept: a private place."""

    def __init__(
        self,
        files: Files,
        window: Window,
        threads: Threads,
        start_soon: Callable[..., object],
        kept: Path,
    ) -> None:
        self._files = files
        self._tree = files.tree
        self._window = window
        self._threads = threads
        self._start_soon = start_soon
        self._kept = kept
        self._recorder = EpochRecorder(self._tree.rows)
        self._records = self._tree.rows <= MOST_ROWS
        self._has_begun = False
        self._trace: array[int] | None = None
        self._is_written = True
        self._is_writing = False
        self._given: array[int] | None = None
        self._order: Order = "none"
        self._follower: Follower | None = None
        self._losses = 0
        self._held: dict[int, _Ahead] = {}
        self._here: dict[int, Oid] = {}
        self._queue: deque[int] = deque()
        self._running = 0
        self._is_looking = False
        self._stalled = 0
        self._failures = 0
        self._fetched = 0
        self._hits = 0

    # What others tell it

    def follow(self, rows: array[int]) -> None:
        """Readers will read these rows in this order, in every epoch."""
        self._given = rows
        self._set_order("file", rows, searching=False)
        self._pump()

    def hint(self, rows: Sequence[int]) -> int:
        """Readers will read these next; how many of them are taken note of."""
        follower = self._follower
        if self._order != "hint" or follower is None or not follower.is_following:
            self._set_order("hint", (), searching=False)
            follower = self._follower
        assert follower is not None  # just set
        taken = rows[: max(0, MOST_HINTED - len(follower))]
        follower.extend(taken)
        self._pump()
        return len(taken)

    def opened(self, row: int, oid: Oid) -> OpenObject | None:
        """A reader opens a file: what was brought of it, for the reader to close. None where there is
        nothing, or it is to be had from the cache."""
        if self._records:
            if not self._has_begun:
                self._has_begun = True
                self._start_soon(self._load)
            ended = self._recorder.opened(row)
            if ended is not None:
                self._end_epoch(ended)
        ahead = self._held.pop(row, None)
        if ahead is not None:
            self._release(ahead)
            self._window.unwant(oid)
            self._hits += 1
        elif row in self._here:
            self._window.unwant(self._here.pop(row))
        if self._follower is not None:
            self._follow(self._follower, row, oid, is_hit=ahead is not None)
        return None if ahead is None else ahead.opened

    def report(self) -> PrefetchReport:
        return PrefetchReport(self._order, len(self._held), self._running, self._fetched, self._hits)

    def keep_now(self) -> None:
        """Keep the trace for the next mount. Blocking, for the daemon's end."""
        if not self._records or not self._has_begun:
            return
        order = self._recorder.order
        if is_worth_keeping(order, self._trace, ended=False):
            self._trace, self._is_written = order, False
        if not self._is_written and self._trace is not None:
            try:
                write_trace(self._kept, self._tree, self._trace)
            except OSError as error:
                log.warning("the order in which files were read cannot be kept: %s", error.strerror)

    def rest(self) -> None:
        """Readers are expected elsewhere: let others have the window until they are back."""
        self._drop()
        if self._follower is not None:
            self._follower.search()
            self._losses = self._follower.losses

    def stop(self) -> None:
        """Bring no more, and let go of everything that waits for readers."""
        self._drop()
        self._follower = None
        self._order = "none"

    # The order

    def _set_order(self, order: Order, rows: Iterable[int], *, searching: bool) -> None:
        self._drop()
        self._order = order
        self._follower = Follower(self._tree.rows, rows, searching=searching)
        self._losses = self._follower.losses

    def _set_usual_order(self) -> None:
        """The one that is followed where there are no hints."""
        if self._given is not None:
            self._set_order("file", self._given, searching=True)
        elif self._trace is not None:
            self._set_order("trace", self._trace, searching=True)

    def _follow(self, follower: Follower, row: int, oid: Oid, *, is_hit: bool) -> None:
        follower.note(row)
        while self._held and follower.is_behind(first := next(iter(self._held))):
            self._let_go(first)
            follower.stray()
        while self._here and follower.is_behind(first := next(iter(self._here))):
            self._window.unwant(self._here.pop(first))
        if follower.is_following:
            self._window.spend(oid)
            is_stalled = not is_hit and bool(self._held) and self._window.is_full(GUESSED_BYTES)
            self._stalled = self._stalled + 1 if is_stalled else 0
            if self._stalled >= STALLED:
                follower.lose()
        if follower.losses != self._losses:
            self._losses = follower.losses
            self._drop()
            if self._order == "hint" and follower.is_at_end and not follower.is_following:
                self._set_usual_order()
        self._pump()

    def _end_epoch(self, ended: array[int]) -> None:
        """All has been read, and the readers have begun anew."""
        if is_worth_keeping(ended, self._trace, ended=True):
            self._trace, self._is_written = ended, False
            if not self._is_writing:
                self._is_writing = True
                self._start_soon(self._write)
        if self._order != "hint":
            self._set_usual_order()
            self._replay()

    def _replay(self) -> None:
        """Look at the last opens again: the order was not known then."""
        if self._follower is not None:
            for row in self._recorder.order[-REPLAYED:]:
                self._follower.note(row)
            self._losses = self._follower.losses
            self._pump()

    async def _load(self) -> None:
        try:
            trace = await self._threads.on_disk(read_trace, self._kept, self._tree)
        except StoreError as error:
            log.warning("the order in which files were read last cannot be had: %s", error)
            return
        if self._trace is None and trace is not None:
            self._trace = trace
            if self._order == "none":
                self._set_usual_order()
                self._replay()

    async def _write(self) -> None:
        try:
            while not self._is_written and (trace := self._trace) is not None:
                await self._threads.on_disk(write_trace, self._kept, self._tree, trace)
                self._is_written = self._trace is trace  # only now: a mount that ends does not wait for us
                await trio.sleep(WRITE_PAUSE)
        except (StoreError, OSError) as error:
            log.warning("the order in which files were read cannot be kept: %s", error)
        finally:
            self._is_writing = False

    # Bringing

    def _pump(self) -> None:
        """Begin what may be begun now. Called whenever something has changed."""
        follower, window = self._follower, self._window
        if follower is None or not follower.is_following:
            return
        while self._queue and not window.is_busy:
            row = self._queue[0]
            known = self._files.sizes[row]
            size = GUESSED_BYTES if known == UNKNOWN else known
            is_too_large = size > window.most_bytes // 2
            if not is_too_large and not follower.is_passed(row) and window.is_full(size):
                return
            self._queue.popleft()
            if is_too_large or follower.is_passed(row):
                continue
            window.running += 1
            window.files += 1
            window.bytes += size
            self._running += 1
            self._start_soon(self._bring, row, size, self._losses)
        if not self._is_looking and len(self._queue) < LOOKED_AT:
            rows = follower.take(LOOKED_AT)
            if rows:
                self._is_looking = True
                self._start_soon(self._look, rows, self._losses)

    async def _look(self, rows: list[int], losses: int) -> None:
        """Find out which of these rows are missing, and have them brought."""
        missing: list[int] = []
        try:
            missing = await self._files.missing(rows)
        except StoreError as error:
            log.debug("the cache does not tell what it has: %s", error)
        except Exception:  # a bug costs these rows, not the mount
            log.exception("the cache cannot be asked what it has")
        finally:
            self._is_looking = False
        if losses == self._losses and self._follower is not None:
            lacking = set(missing)
            for row in rows:
                if row not in lacking and not self._follower.is_passed(row):
                    oid = self._here[row] = self._tree.oid(row)
                    self._window.want(oid)
            self._queue.extend(missing)
        self._pump()

    async def _bring(self, row: int, size: int, losses: int) -> None:
        brought: Brought | None = None
        try:
            brought = await self._files.bring(row, self._window.most_bytes // 2)
            self._failures = 0
        except StoreError as error:
            # Whoever reads it will be told; this is only one try.
            log.debug("%r cannot be brought ahead of its readers: %s", self._tree.path(row), error)
            self._failures += 1
        except Exception:
            log.exception("%r cannot be brought ahead of its readers", self._tree.path(row))
            self._failures += 1
        finally:
            window = self._window
            window.running -= 1
            window.files -= 1
            window.bytes -= size
            self._running -= 1
        follower = self._follower
        if brought is not None:
            self._fetched += brought.came
            if losses != self._losses or follower is None or follower.is_passed(row) or row in self._held:
                brought.opened.close()
            else:
                self._hold(row, brought)
        if follower is not None and self._failures >= FAILURES and follower.is_following:
            self._failures = 0
            follower.lose()
            self._losses = follower.losses
            self._drop()
        self._pump()

    def _hold(self, row: int, brought: Brought) -> None:
        window, opened = self._window, brought.opened
        ahead = self._held[row] = _Ahead(opened.oid, opened, opened.size, brought.memory)
        if brought.kept and not window.has_memory(brought.memory):
            opened.close()
            ahead.opened, ahead.memory = None, 0
        window.files += 1
        window.bytes += ahead.size
        window.memory += ahead.memory
        window.want(ahead.oid)

    def _release(self, ahead: _Ahead) -> None:
        window = self._window
        window.files -= 1
        window.bytes -= ahead.size
        window.memory -= ahead.memory

    def _let_go(self, row: int) -> None:
        ahead = self._held.pop(row)
        self._release(ahead)
        self._window.unwant(ahead.oid)
        if ahead.opened is not None:
            ahead.opened.close()

    def _drop(self) -> None:
        """What was expected to be read is not any more."""
        self._queue.clear()
        self._stalled = 0
        for row in list(self._held):
            self._let_go(row)
        for oid in self._here.values():
            self._window.unwant(oid)
        self._here.clear()
        self._window.forget_spent()
