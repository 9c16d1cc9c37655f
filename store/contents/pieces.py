"""`PiecesBody`: a range of a content in parts, as an answer like any other; each piece is verified.

A part is less than a large request brings, so a few pieces are asked for ahead of the one that is handed out.
What was brought last is kept for a moment (`KeptPieces`): readers that go on where another one ended want
the piece between them, too.

`PiecesBody` belongs to one thread; `KeptPieces` to any.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from store.contents.index import Piece
from store.errors import RemoteError, RemoteSlow, RemoteUnreachable
from store.remotes.storage import CHUNK_BYTES

AHEAD: Final = 4
"""Pieces that a body asks for at a time, its own included."""
ASKERS: Final = 32
"""Threads that ask one remote ahead. Where none is left, a body asks for one piece after the other."""
KEPT_BYTES: Final = 16 << 20
WAIT_SECONDS: Final = 60.0
"""For a request of another thread, which ends by itself within the storage's limits."""


Bring = Callable[[Piece], bytes]
"""Asks for a piece, and verifies it. Raises `RemoteError`. Any thread."""


class KeptPieces:
    """The pieces of one remote that were brought last."""

    def __init__(self, budget: int = KEPT_BYTES) -> None:
        self._budget = budget
        self._lock = threading.Lock()
        self._bytes = 0
        self._pieces: OrderedDict[tuple[str, int, bytes], bytes] = OrderedDict()

    def get(self, piece: Piece, bring: Bring) -> bytes:
        """A piece's bytes. Raises what `bring` raises."""
        key = (piece.part, piece.length, piece.sum)
        with self._lock:
            data = self._pieces.get(key)
            if data is not None:
                self._pieces.move_to_end(key)
                return data
        data = bring(piece)
        with self._lock:
            if key not in self._pieces:
                self._pieces[key] = data
                self._bytes += len(data)
            while self._bytes > self._budget:
                self._bytes -= len(self._pieces.popitem(last=False)[1])
        return data


@dataclass(slots=True, eq=False)
class _Asked:
    piece: Piece
    ready: threading.Event = field(default_factory=threading.Event)
    data: bytes = b""
    error: RemoteError | None = None

    def ask(self, bring: Bring) -> None:
        try:
            self.data = bring(self.piece)
        except RemoteError as error:
            self.error = error
        except Exception as error:
            self.error = RemoteUnreachable(f"{type(error).__name__} in our own code")
        finally:
            self.ready.set()

    def ask_aside(self, bring: Bring, askers: threading.Semaphore) -> None:
        try:
            self.ask(bring)
        finally:
            askers.release()

    def take(self) -> bytes:
        if not self.ready.wait(WAIT_SECONDS):
            raise RemoteSlow(f"part {self.piece.part} has not come within {WAIT_SECONDS:.0f} s")
        if self.error is not None:
            raise self.error
        return self.data


class PiecesBody:
    """The bytes from `offset` on, `length` of them, of a content of `size` bytes. `pieces` cover them."""

    validator: Final = ""
    """What is named by its hash has one state only."""

    def __init__(
        self,
        size: int,
        offset: int,
        length: int,
        pieces: Sequence[Piece],
        bring: Bring,
        askers: threading.Semaphore,
    ) -> None:
        """`askers` bounds the threads of all bodies that share it."""
        self.size = size
        self.length = length
        self._offset = offset
        self._pieces = pieces
        self._bring = bring
        self._askers = askers

    def __iter__(self) -> Iterator[bytes]:
        end = self._offset + self.length
        waiting = deque(self._pieces)
        asked: deque[_Asked] = deque()
        while waiting or asked:
            while waiting and len(asked) < AHEAD:
                asked.append(self._ask(waiting.popleft(), first=not asked and not waiting))
            head = asked.popleft()
            data, piece = head.take(), head.piece
            start = max(self._offset, piece.offset) - piece.offset
            stop = min(end, piece.offset + piece.length) - piece.offset
            for at in range(start, stop, CHUNK_BYTES):
                yield data[at : min(at + CHUNK_BYTES, stop)]

    def _ask(self, piece: Piece, *, first: bool) -> _Asked:
        asked = _Asked(piece)
        if first or not self._askers.acquire(blocking=False):
            asked.ask(self._bring)
        else:
            # A daemon thread: a command that is ended does not wait for a server that stalls.
            threading.Thread(target=asked.ask_aside, args=(self._bring, self._askers), daemon=True).start()
        return asked
