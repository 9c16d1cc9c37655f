"""The maker `frames`: some frames of a video, each encoded as a file. In a worker.

The most urgent frame is made first. Those that were decoded on the way to it are held meanwhile, as far as
they are wanted and `HELD` allows, and encoded next; then come the frames behind it, and in the end the
earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from store.errors import MediaInvalid
from store.making.makers import MISSING, Made, Piece
from store.making.readers import reading
from store.media.encode import encode
from store.media.encoding import Encoding
from store.media.frames import Frame, FrameReader
from store.media.index import VideoIndex
from store.media.recipe import parse_frames
from store.media.source import MediaSource

HELD: Final = 64 << 20
"""Bytes of pictures that wait to be encoded, about."""


def make(arguments: Mapping[str, Any], sources: Sequence[MediaSource]) -> Iterator[Made]:
    """Frame `range(*arguments["frames"])[n]` is piece n. Sources: the video and its index.

    Raises as the source does.
    """
    encoding = parse_frames(arguments["recipe"]).encoding
    with reading(*sources) as (reader, index):
        yield from _Chunk(reader, index, range(*arguments["frames"]), encoding).make(arguments[MISSING])


class _Chunk:
    """Frames that are made together; piece n is frame `frames[n]`."""

    def __init__(self, reader: FrameReader, index: VideoIndex, frames: range, encoding: Encoding) -> None:
        self._reader = reader
        self._index = index
        self._frames = frames
        self._encoding = encoding

    def make(self, missing: Sequence[int]) -> Iterator[Piece]:
        """All that is missing, beginning with the first that is named."""
        urgent = missing[0]
        left = sorted(set(missing))
        held = self._hold(urgent, [number for number in left if number < urgent])
        yield self._piece(urgent)
        for number in held:
            yield self._encoded(number, held[number])
            held[number] = None
        left = [number for number in left if number != urgent and number not in held]
        yield from map(self._piece, [number for number in left if number > urgent])
        yield from map(self._piece, [number for number in left if number < urgent])

    def _hold(self, urgent: int, earlier: list[int]) -> dict[int, Frame | None]:
        """Frames that decoding passes on its way to the urgent one."""
        begin = self._index.first_from(self._index.start_of(self._frames[urgent]))
        passed = [number for number in earlier if self._frames[number] >= begin]
        most = HELD // max(2 * self._index.width * self._index.height, 1)
        held: dict[int, Frame | None] = {}
        for number in passed[-most:] if most else ():
            try:
                held[number] = self._decode(number)
            except MediaInvalid:
                break  # its turn comes; the urgent one does not wait for the tries that it takes
        return held

    def _piece(self, number: int) -> Piece:
        try:
            return self._encoded(number, self._decode(number))
        except MediaInvalid as error:
            return Piece(number, error)

    def _encoded(self, number: int, frame: Frame | None) -> Piece:
        assert frame is not None  # each is encoded once
        try:
            return Piece(number, encode(frame.image(), self._encoding))
        except MediaInvalid as error:
            return Piece(number, error)

    def _decode(self, number: int) -> Frame:
        return next(self._reader.decode(self._frames[number], 1))
