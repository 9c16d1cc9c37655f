"""`ShardReader`: the bytes of one shard that somebody holds open.

Headers and zeros are computed; bodies are read from the members' objects, which are opened when a read
first comes to them. A few stay open behind the reader. What remotes have to bring is asked for together:
the members of one read, and ahead of who reads on where he was as many as the bounds allow.

Thread rule: belongs to the event loop.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import trio
from numpy.typing import NDArray

from store.errors import CacheUnusable, ObjectCorrupt, StoreError
from store.open_objects import OpenObject
from store.shards.layout import Body, Header, Piece
from store.shards.samples import Rows
from store.tree_files import TreeFiles

log = logging.getLogger(__name__)

KEPT_OPEN: Final = 4
"""Members that stay open behind the last read."""
MEMBERS_AHEAD: Final = 64
BYTES_AHEAD: Final = 32 << 20
"""What is fetched ahead of one reader."""
ALL_MEMBERS_AHEAD: Final = 512
ALL_BYTES_AHEAD: Final = 128 << 20
"""What is fetched ahead of all readers of a mount, or is being kept for them."""
LARGEST_AHEAD: Final = 4 << 20
"""A member counts at most so much: larger ones are fetched as they are read."""
OVERTAKEN: Final = 2 << 20
"""Bytes by which reads of one reader may overtake each other: the kernel reads ahead in several requests."""


class Spliced(Protocol):
    """An archive of the objects of `rows`, which have `sizes`: a `Shard`, or what is laid out like one."""

    @property
    def rows(self) -> Sequence[int] | Rows: ...

    @property
    def sizes(self) -> Sequence[int] | NDArray[np.int64]: ...

    @property
    def starts(self) -> Sequence[int] | NDArray[np.int64]: ...

    @property
    def size(self) -> int: ...

    def pieces(self, offset: int, length: int) -> list[Piece]:
        """See `Shard.pieces`."""

    def place(self, offset: int) -> int:
        """See `Shard.place`."""


class Allowance:
    """What may be ahead of all readers together."""

    def __init__(self, members: int = ALL_MEMBERS_AHEAD, size: int = ALL_BYTES_AHEAD) -> None:
        self._members = members
        self._bytes = size

    def take(self, size: int) -> bool:
        """Take a member of so many bytes, if there is room for it."""
        if self._members < 1 or self._bytes < size:
            return False
        self._members -= 1
        self._bytes -= size
        return True

    def give_back(self, size: int) -> None:
        self._members += 1
        self._bytes += size


@dataclass(slots=True)
class _Member:
    """A member that is open, or being opened."""

    opened: OpenObject | None = None
    arrived: trio.Event = field(default_factory=trio.Event)
    """It is open, or is not going to be."""
    users: int = 0
    counted: int = 0
    """Bytes of the allowance that it takes while it is ahead."""
    end: int = 0
    """Where in the shard it ends, more or less, while it is ahead."""


class ShardReader:
    """Reads `shard`, which was laid out of `files`. `allowance` is what all readers have ahead; `start_soon`
    runs what must not raise in the nursery of whoever owns `files`."""

    def __init__(
        self, files: TreeFiles, shard: Spliced, allowance: Allowance, start_soon: Callable[..., object]
    ) -> None:
        self._files = files
        self._shard = shard
        self._allowance = allowance
        self._start_soon = start_soon
        self._members: OrderedDict[int, _Member] = OrderedDict()
        self._ahead: dict[int, _Member] = {}
        """Those that were opened ahead and not read yet, in the shard's order more or less."""
        self._bytes_ahead = 0
        self._furthest = 0
        self._started = 0
        """The place in the shard up to which members were opened ahead."""
        self._is_closed = False

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        """What there is from `offset`, at most `length` bytes; valid until the caller's next checkpoint.

        Raises for a member that cannot be read what `TreeFiles.open` and `read` do, with its path.
        """
        pieces = self._shard.pieces(offset, length)
        if self._files.has_remotes:
            self._look_ahead(offset, pieces)
        if len(pieces) == 1 and isinstance(pieces[0], Body):
            return await self._read_body(pieces[0])
        data = bytearray(sum(map(_length, pieces)))
        place = 0
        for piece in pieces:
            stop = place + _length(piece)
            if isinstance(piece, Header):
                data[place:stop] = piece.data
            elif isinstance(piece, Body):
                data[place:stop] = await self._read_body(piece)
            place = stop
        return memoryview(data)

    def close(self) -> None:
        """Let go of all members; of those that are being read, when they are."""
        self._is_closed = True
        self._drop_ahead(self._shard.size + 1)
        for row, member in list(self._members.items()):
            self._drop(row, member)

    async def _read_body(self, body: Body) -> bytes | memoryview:
        member = await self._hold(body.row, body.size)
        try:
            assert member.opened is not None  # it is held
            data = await self._files.read(body.row, member.opened, body.offset, body.length)
            if len(data) != body.length:
                raise ObjectCorrupt(f"{self._path(body.row)!r} ended before its end")
        except OSError as error:
            raise CacheUnusable(f"{self._path(body.row)!r} cannot be read: {error.strerror}") from None
        finally:
            member.users -= 1
            self._tidy()
        return data

    async def _hold(self, row: int, size: int) -> _Member:
        """The open member, which is not closed while it has users."""
        while True:
            member = self._members.get(row)
            if member is None:
                member = self._members[row] = _Member(users=1)
                await self._open(row, size, member)
                return member
            if member.opened is not None:
                break
            await member.arrived.wait()
        member.users += 1
        self._members.move_to_end(row)
        self._arrive(row, member)
        return member

    async def _open(self, row: int, size: int, member: _Member) -> None:
        try:
            opened = await self._files.open(row)
            if opened.size != size:  # which has been corrected meanwhile
                self._files.close(opened)
                raise ObjectCorrupt(
                    f"{self._path(row)!r} has {opened.size} bytes and not {size}, as its shard was told "
                    "when it was opened; open it again"
                )
            member.opened = opened
        except OSError as error:
            raise CacheUnusable(f"{self._path(row)!r} cannot be opened: {error.strerror}") from None
        finally:
            if member.opened is None and self._members.get(row) is member:
                del self._members[row]
            member.arrived.set()

    # Ahead

    def _look_ahead(self, offset: int, pieces: list[Piece]) -> None:
        """Have the members opened that these pieces are of, and those behind for a reader who reads on."""
        bodies = [piece for piece in pieces if isinstance(piece, Body)]
        reads_on = abs(offset - self._furthest) <= OVERTAKEN
        if not reads_on:
            self._drop_ahead(self._shard.size + 1)
            self._started = 0
        end = offset + sum(map(_length, pieces))
        self._furthest = max(end, self._furthest) if reads_on else end
        self._drop_ahead(offset - OVERTAKEN)  # what was passed over, as `tar t` does
        for body in bodies if len(bodies) > 1 else ():
            self._start(body.row, body.size, end)
        if self._files.prefetcher is None or not reads_on:
            return
        rows, sizes, starts = self._shard.rows, self._shard.sizes, self._shard.starts
        place = max(self._shard.place(self._furthest), self._started)
        while place < len(rows) and self._has_room():
            size, end = int(sizes[place]), int(starts[place + 1])
            if size and not self._start(int(rows[place]), size, end):  # an empty one is never read
                break
            place += 1
        self._started = place

    def _has_room(self) -> bool:
        return len(self._ahead) < MEMBERS_AHEAD and self._bytes_ahead < BYTES_AHEAD

    def _start(self, row: int, size: int, end: int) -> bool:
        """Begin to open a member; False where that would be too many."""
        if row in self._members:
            return True
        counted = min(size, LARGEST_AHEAD)
        if not self._allowance.take(counted):
            return False
        self._bytes_ahead += counted
        member = self._members[row] = self._ahead[row] = _Member(counted=counted, end=end)
        self._start_soon(self._bring, row, size, member)
        return True

    async def _bring(self, row: int, size: int, member: _Member) -> None:
        try:
            await self._open(row, size, member)
        except StoreError as error:
            log.debug("not opened ahead of its reader: %s", error)  # who is told when he comes to it
        except Exception:  # a bug costs what was to be ahead, not the daemon
            log.exception("%r could not be opened ahead of its reader", self._path(row))
        finally:
            if member.opened is None:
                self._arrive(row, member)
        if member.opened is not None and self._members.get(row) is not member:
            self._files.close(member.opened)

    def _arrive(self, row: int, member: _Member) -> None:
        """A member is not ahead any more: it is being read, or will not be."""
        if self._ahead.get(row) is member:
            del self._ahead[row]
            self._bytes_ahead -= member.counted
            self._allowance.give_back(member.counted)

    def _drop_ahead(self, place: int) -> None:
        """Close what is ahead and ends before a place in the shard."""
        for row, member in list(self._ahead.items()):
            if member.end >= place:
                break
            self._arrive(row, member)
            self._drop(row, member)

    # Behind

    def _tidy(self) -> None:
        """Close what was read longest ago, but for a few."""
        excess = len(self._members) - (0 if self._is_closed else len(self._ahead) + KEPT_OPEN)
        if excess <= 0:
            return
        for row, member in list(self._members.items()):
            if row not in self._ahead and self._drop(row, member):
                excess -= 1
                if not excess:
                    return

    def _drop(self, row: int, member: _Member) -> bool:
        """Close a member that nobody uses. One that is being opened closes itself when it comes too late."""
        if member.users:
            return False
        self._members.pop(row, None)
        if member.opened is not None:
            self._files.close(member.opened)
        return True

    def _path(self, row: int) -> str:
        return self._files.tree.path(row)


def _length(piece: Piece) -> int:
    return len(piece.data) if isinstance(piece, Header) else piece.length
