"""`UnkeptBlocks`: the blocks that no disk took, for the reads that follow at once. Belongs to the loop."""

from __future__ import annotations

from collections import OrderedDict

from store.oid import Oid


class UnkeptBlocks:
    """The blocks that were used last, of all objects, in `budget` bytes of memory."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._bytes = 0
        self._blocks: OrderedDict[tuple[Oid, int], bytes] = OrderedDict()

    def put(self, oid: Oid, block: int, data: bytes) -> None:
        self.drop(oid, block)
        self._blocks[oid, block] = data
        self._bytes += len(data)
        while self._bytes > self._budget:
            _, oldest = self._blocks.popitem(last=False)
            self._bytes -= len(oldest)

    def get(self, oid: Oid, block: int) -> bytes:
        """The block's bytes; empty where they are not here."""
        data = self._blocks.get((oid, block), b"")
        if data:
            self._blocks.move_to_end((oid, block))
        return data

    def drop(self, oid: Oid, block: int) -> None:
        self._bytes -= len(self._blocks.pop((oid, block), b""))

    def drop_object(self, oid: Oid) -> None:
        for found, block in [key for key in self._blocks if key[0] == oid]:
            self.drop(found, block)
