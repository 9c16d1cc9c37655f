"""Sources made of bytes, which count what is read of them."""

from __future__ import annotations

from store.errors import ObjectCorrupt


class BytesSource:
    """Bytes as a `MediaSource`; a read outside of them fails the test."""

    def __init__(self, data: bytes, name: str = "clip.mp4") -> None:
        self._data = data
        self.name = name
        self.oid = ""
        self.bytes_read = 0
        self.reads = 0

    @property
    def size(self) -> int:
        return len(self._data)

    def read_at(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= len(self._data)
        self.bytes_read += length
        self.reads += 1
        return self._data[offset : offset + length]


class FailingSource(BytesSource):
    """One whose reads fail from some byte on, as those of a remote that is gone."""

    def __init__(self, data: bytes, fails_at: int) -> None:
        super().__init__(data)
        self.fails_at = fails_at

    def read_at(self, offset: int, length: int) -> bytes:
        if offset + length > self.fails_at:
            raise ObjectCorrupt(f"{self.name} cannot be read at {offset}")
        return super().read_at(offset, length)
