"""Open files of the view `chunks`: manifests, MP4 chunks, and zips of what was made. On the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fusefs.views.held import HeldBytes
from store.errors import ObjectCorrupt
from store.making.maker import Maker
from store.making.tasks import Task
from store.making.zipped import CHECKSUMS_PIECE, FIRST_MEMBER
from store.media.zips import Zip, ZipLayout, checksums_of
from store.shards.reader import ShardReader


class ShardFile:
    """A zip of objects."""

    direct: Final = False

    def __init__(self, reader: ShardReader) -> None:
        self._reader = reader

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        return await self._reader.read(offset, length)

    def close(self) -> None:
        self._reader.close()


class Pieces:
    """The pieces of a product, held between reads: many files may be open."""

    def __init__(self, maker: Maker, held: HeldBytes, task: Task) -> None:
        self._maker = maker
        self._held = held
        self.task = task

    async def get(self, number: int) -> bytes:
        """Raises as `Maker.piece`."""
        return await self._held.get((self.task.key, number), lambda: self._maker.piece(self.task, number))

    async def make(self) -> Sequence[int]:
        """Have all of them made; their sizes. Raises as `Maker.product`, and what is wrong with a piece."""
        sizes = (await self._maker.product(self.task)).sizes
        for number in [number for number, size in enumerate(sizes) if size < 0]:
            await self.get(number)
        if not sizes or min(sizes) < 0:
            raise ObjectCorrupt(f"{self.task} is not whole")
        return sizes


class PieceFile:
    """A product of one piece as a file."""

    direct: Final = False

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    async def read(self, offset: int, length: int) -> memoryview:
        return memoryview(await self._pieces.get(0))[offset : offset + length]

    def close(self) -> None:
        pass


class ZipFile:
    """A zip around the pieces of a product."""

    direct: Final = False

    def __init__(self, pieces: Pieces, whole: Zip) -> None:
        self._pieces = pieces
        self._zip = whole

    async def read(self, offset: int, length: int) -> bytes:
        parts = []
        for part in self._zip.parts(offset, length):
            if isinstance(part, bytes):
                parts.append(part)
            else:
                member = await self._pieces.get(FIRST_MEMBER + part.number)
                parts.append(member[part.offset : part.offset + part.length])
                if len(parts[-1]) != part.length:
                    raise ObjectCorrupt(f"{self._pieces.task} has another length than it had")
        return b"".join(parts)

    def close(self) -> None:
        pass


async def open_zip(pieces: Pieces, extensions: tuple[str, ...]) -> tuple[ZipFile, int]:
    """The zip of a product and its size. Raises as `Pieces.make`, and `InputError` for too large a one."""
    sizes = (await pieces.make())[FIRST_MEMBER:]
    layout = ZipLayout(extensions, tuple(sizes))
    return ZipFile(pieces, Zip(layout, checksums_of(await pieces.get(CHECKSUMS_PIECE)))), layout.size
