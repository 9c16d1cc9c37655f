"""`ReadAhead`: which blocks a reader will want next, from where it has read so far. Pure; one owner.

A reader is a few streams, each a position that moves on. What a stream is offered ahead is as much as it has
read by then, so a sequential reader's window doubles with each time it is used up, to `LARGEST_WINDOW`, and a
reader that jumps never moves more than twice what it reads, and a block at each end. The kernel asks for
pieces of 128 KiB, several at once and not in order, so a stream goes on a little before and behind its
position, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from store.fetching.block_map import BLOCK_BYTES

STREAMS: Final = 4
"""Of one open handle; the one that was not used for longest makes room."""
LARGEST_WINDOW: Final = 32 << 20
LARGEST_REQUEST: Final = 8 << 20
_REQUESTS: Final = 4
"""How many a window is made of: while one is read, the others come."""
_SLACK: Final = 1 << 20


@dataclass(slots=True)
class _Stream:
    position: int
    """Where its furthest read ended."""
    consumed: int
    """Bytes that it has read, each counted once."""
    asked: int
    """The block up to which it has been offered all."""


class ReadAhead:
    """The streams of one open handle of an object of `size` bytes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._streams: list[_Stream] = []
        """The one used last stands last."""

    def note(self, offset: int, length: int) -> list[range]:
        """The reader wants these bytes, which are within the object; the blocks to fetch ahead of it.

        What is returned is not returned again. The blocks that are read themselves are not among them.
        """
        end = offset + length
        after = -(-end // BLOCK_BYTES)
        stream = self._find(offset)
        if stream is None:
            stream = _Stream(end, length, after)
            if len(self._streams) == STREAMS:
                self._streams.pop(0)
        else:
            self._streams.remove(stream)
            stream.consumed += min(length, max(0, end - stream.position))
            stream.position = max(stream.position, end)
            stream.asked = max(stream.asked, after)
        self._streams.append(stream)
        return self._extend(stream)

    def _find(self, offset: int) -> _Stream | None:
        for stream in reversed(self._streams):
            if stream.position - _SLACK <= offset <= stream.position + _SLACK:
                return stream
        return None

    def _extend(self, stream: _Stream) -> list[range]:
        window = min(LARGEST_WINDOW, stream.consumed)
        target = stream.position + window
        until = -(-self._size // BLOCK_BYTES) if target >= self._size else target // BLOCK_BYTES
        request = max(1, min(LARGEST_REQUEST, window // _REQUESTS) // BLOCK_BYTES)
        runs = []
        while until - stream.asked >= request or (target >= self._size and until > stream.asked):
            stop = min(stream.asked + request, until)
            runs.append(range(stream.asked, stop))
            stream.asked = stop
        return runs
