"""`OriginalZip`: images of a version as they are, in a zip around them: nothing of it is made or kept.

Its size follows from theirs; its other bytes need their checksums as well. `store.shards.reader` reads it.
Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from store.media.images import original_extension
from store.media.zips import MemberRange, Zip, ZipLayout
from store.shards.layout import Body, Header, Piece
from store.tree import Tree


def lay_out(tree: Tree, rows: Sequence[int], sizes: Sequence[int]) -> ZipLayout:
    """Where images of these sizes lie in their zip. Raises `InputError` for more than it can hold."""
    return ZipLayout(tuple(original_extension(_name(tree, row)) for row in rows), tuple(sizes))


class OriginalZip:
    """The zip of the files of `rows`, given their sizes and checksums."""

    def __init__(self, rows: Sequence[int], layout: ZipLayout, checksums: Sequence[int]) -> None:
        """Raises `InputError` where there are not as many of each."""
        self.rows: Final = rows
        self.sizes: Final = layout.sizes
        self.size: Final = layout.size
        ends = (offset + size for offset, size in zip(layout.offsets, layout.sizes, strict=True))
        self.starts: Final[Sequence[int]] = [0, *ends]
        """Where each member begins with its header, and where the last one ends."""
        self._zip = Zip(layout, checksums)

    def pieces(self, offset: int, length: int) -> list[Piece]:
        """What the bytes from `offset` on are, in order."""
        return [self._piece(part) for part in self._zip.parts(offset, length)]

    def place(self, offset: int) -> int:
        """The member that the byte at `offset` belongs to; behind the last one how many there are."""
        return bisect_right(self.starts, offset) - 1

    def _piece(self, part: bytes | MemberRange) -> Piece:
        if isinstance(part, bytes):
            return Header(part)
        return Body(self.rows[part.number], part.offset, part.length, self.sizes[part.number])


def _name(tree: Tree, row: int) -> str:
    return tree.name(row).decode("utf-8", "surrogateescape")
