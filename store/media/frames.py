"""`FrameReader`: frame n of a video, with exactly the pixels that frame n has in a full decode.

Decoding begins with a key packet (`VideoIndex.start_of`). Every packet is given its number, which the
decoder hands on to the frame that it makes, so a frame is known by its packet and not by a time that may be
missing, doubled or rounded; where times do not tell the order of frames, they are counted from a key packet
on. A decoder that does not show what was asked for (its key packet was none, or it recovers gradually) is
started further back, in the end with the first packet. What is wrong with a container costs time, and gives
no other frame.

A frame that is not there raises `MediaInvalid`: the decoder refused its packet.

Blocking; one thread at a time. Memory: what the decoder keeps, at most some 16 pictures, and what it gave at
once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, TypeVar

import numpy as np
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image as Pictures

from store.errors import MediaInvalid
from store.media.demuxed import right_rotation
from store.media.index import MOST_REORDERED, VideoIndex
from store.media.packet_cursor import Lost, Numbered, PacketCursor
from store.media.source import MediaSource

COLOUR_VERSION: Final = 1
"""Of the way from a decoder's planes to RGB; part of what products are named by."""
Image = np.ndarray[Any, np.dtype[np.uint8]]
T = TypeVar("T")

_SOUND_BACK: Final = 3
"""Key packets further back from which a frame is asked for, when the decoder took the first as one."""
_SCALING: Final = (
    Interpolation.BILINEAR
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
)
_NO_MATRIX: Final = 2
_BY_PLANES: Final = ("yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p", "yuv420p10le")
"""Formats of which swscale makes RGB faster as planes."""
_CHANNELS: Final = (1, 2, 0)
"""Those of the planes, which are green, blue and red."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A frame and its number; `native` is as the decoder made it, in its own size and colours."""

    number: int
    pts: int | None
    time_base: Fraction
    native: VideoFrame

    @property
    def rotation(self) -> int:
        """Degrees counter-clockwise by which the picture is to be turned to stand upright."""
        return right_rotation(self.native)

    def rgb(self, *, upright: bool = False) -> Image:
        """Height × width × 3 bytes; `upright` turns it as its rotation says, to the nearest right angle.

        The planes' own matrix and range are honoured (BT.601 and the narrow range where nothing is said, or
        what swscale does not know), and swscale works by its exact, portable code: the same bytes on every
        machine. Raises `MediaInvalid` for planes that it cannot convert.
        """
        picture = self._converted(_to_array)
        if upright:
            picture = np.rot90(picture, round(self.rotation / 90) % 4)
        return np.ascontiguousarray(picture)

    def image(self, *, upright: bool = False) -> Pictures.Image:
        """As `rgb`, for Pillow, which takes planes without the two passes over all pixels of an array."""
        if upright and round(self.rotation / 90) % 4:
            return Pictures.fromarray(self.rgb(upright=True))
        return self._converted(_to_image)

    def _converted(self, convert: Callable[[VideoFrame], T]) -> T:
        try:
            return convert(self.native)
        except FFmpegError:
            self.native.colorspace = _NO_MATRIX
            try:
                return convert(self.native)
            except (FFmpegError, ValueError) as error:
                raise MediaInvalid(
                    f"frame {self.number} has colours that cannot be converted: {error}"
                ) from error


def _to_array(native: VideoFrame) -> Image:
    planes = _to_planes(native)
    if planes is None:
        return _reformat(native, "rgb24").to_ndarray().astype(np.uint8, copy=False)
    picture = np.empty((planes.height, planes.width, 3), np.uint8)
    for plane, channel in zip(planes.planes, _CHANNELS, strict=True):
        rows = _bytes_of(plane).reshape(-1, plane.line_size)
        picture[..., channel] = rows[: planes.height, : planes.width]
    return picture


def _to_image(native: VideoFrame) -> Pictures.Image:
    planes = _to_planes(native)
    if planes is None:
        return Pictures.fromarray(_to_array(native))
    size = planes.width, planes.height
    bands = {
        channel: Pictures.frombuffer("L", size, _bytes_of(plane), "raw", "L", plane.line_size, 1)
        for plane, channel in zip(planes.planes, _CHANNELS, strict=True)
    }
    return Pictures.merge("RGB", [bands[channel] for channel in range(3)])


def _bytes_of(plane: VideoPlane) -> Image:
    return np.frombuffer(memoryview(plane), np.uint8)


def _to_planes(native: VideoFrame) -> VideoFrame | None:
    """A plane for each colour, where that gives the same picture sooner."""
    # Of its exact code, swscale has only that for planes for the processor's vectors. It gives the same,
    # unless the height is odd: then chroma is of two rows, and the code for whole pixels rounds otherwise.
    if native.format.name not in _BY_PLANES or native.height % 2:
        return None
    return _reformat(native, "gbrp")


class _Kept(threading.local):
    """What swscale has set up for the frames before: a frame that is like them costs a fifth less by it."""

    def __init__(self) -> None:
        self.reformatter = VideoReformatter()


_kept = _Kept()


def _reformat(native: VideoFrame, form: str) -> VideoFrame:
    return _kept.reformatter.reformat(native, format=form, interpolation=int(_SCALING), threads=1)


class FrameReader:
    """A video that is open for decoding; `threads` of the decoder do not change what it gives."""

    def __init__(self, source: MediaSource, index: VideoIndex, threads: int = 1) -> None:
        """Opens nothing yet."""
        self._source = source
        self._index = index
        self._threads = threads
        self._cursor: PacketCursor | None = None
        self._run: _Run | None = None

    def decode(self, first: int, count: int) -> Iterator[Frame]:
        """Frames `first` to `first + count - 1`; what the last call left off at is gone on with.

        Raises `MediaInvalid` for a frame that is not there, and as the source does.
        """
        end = first + count
        if first < 0 or count < 0 or end > self._index.frame_count:
            has = f"{self._source.name} has {self._index.frame_count} frames"
            raise MediaInvalid(f"{has}, from 0 on; {first} to {end - 1} are not all there")
        return (self._frame(number) for number in range(first, end))

    def close(self) -> None:
        """Give the decoder and its memory back. The reader may be used again."""
        self._run = None
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _frame(self, number: int) -> Frame:
        back = 0
        while True:
            start = self._index.start_of(number, back)
            run = self._run
            if back or run is None or not run.reaches(number, start):
                run = self._start(start)
            try:
                native = run.advance(number)
            except Lost:
                self._run = None
                continue
            if native is not None:
                return Frame(number, self._index.pts(number), self._index.time_base, native)
            self._run = None
            if run.is_disordered and self._index.by_time:
                self._index = VideoIndex(
                    self._index.method, self._index.stream, self._index.decoder, trusts_times=False
                )
                back = 0
            elif run.start == 0 or (run.is_sound and back >= _SOUND_BACK):
                raise MediaInvalid(f"{self._source.name}: frame {number} is damaged and cannot be decoded")
            else:
                back = 2 * back + 1

    def _start(self, start: int) -> _Run:
        if self._cursor is None:
            self._cursor = PacketCursor(self._source, self._index, self._threads)
        packets = self._cursor.go_to(start)
        self._run = _Run(self._index, start, packets, self._cursor.decoder)
        return self._run


class _Run:
    """Decoding from packet `start` on, and the numbers of the frames that come."""

    def __init__(
        self, index: VideoIndex, start: int, packets: Iterator[Numbered], decoder: VideoCodecContext
    ) -> None:
        self.start = start
        self.is_disordered = False
        """Frames came in another order than their times tell."""
        self._index = index
        self._packets = packets
        self._decoder = decoder
        self._given: deque[tuple[int | None, VideoFrame]] = deque()
        self._fed = start
        self._last = -1
        self._expected = index.first_from(start)
        self._is_over = False
        self._is_false = False
        """It began with a packet that is no key."""
        self.is_sound = False
        """It began with one that is, and the decoder showed it."""
        self._anchor = -1
        self._ahead = 0
        if not index.by_time and start > 0:
            later = index.starts[index.starts > start]
            self._anchor = int(later[0]) if len(later) else -1

    def reaches(self, number: int, start: int) -> bool:
        """Whether going on gives a frame, and not later than decoding from packet `start` would."""
        return number > self._last and start <= self._fed

    def advance(self, number: int) -> VideoFrame | None:
        """Go on to a frame; None where the decoder leaves it out. Raises `Lost`."""
        while True:
            while self._given:
                packet, frame = self._given[0]
                told = self._tell(packet, frame)
                if told is not None and told > self._expected and self._index.by_time:
                    self.is_disordered = self._comes_later(told)
                if self._is_false or self.is_disordered or (told is not None and told > number):
                    return None
                self._given.popleft()
                if told is not None:
                    self._last = told
                    self._expected = told + 1
                    if told == number:
                        return frame
            if self._is_over:
                return None
            self._feed()

    def _tell(self, packet: int | None, frame: VideoFrame) -> int | None:
        """The number of the frame that came next; None for one that has none or is told already."""
        if packet == self.start:
            self.is_sound = frame.key_frame or self._decoder.codec.intra_only
            self._is_false = not self.is_sound and self.start > 0
        if not self._index.by_time:
            return self._count(packet)
        if packet is None:
            self.is_disordered = True
            return None
        number = self._index.number_of(packet)
        return None if number == self._last else number

    def _comes_later(self, told: int) -> bool:
        """Whether a frame that was left out comes after all, behind one that is later by the times.

        The first frame that is out of order is one that comes too early, so nothing wrong was given before.
        """
        while len(self._given) <= MOST_REORDERED and not self._is_over:
            self._feed()
        numbers = (self._index.number_of(packet) for packet, _ in self._given if packet is not None)
        return any(number is not None and self._expected <= number < told for number in numbers)

    def _count(self, packet: int | None) -> int | None:
        if self._anchor < 0:
            return self._last + 1
        if packet is not None and packet > self._anchor:
            self._ahead += 1
        if packet != self._anchor:
            return None
        # What is decoded before a key packet is shown before it, and so is what was seen to come ahead of it.
        number = self._index.number_of(self._anchor)
        self._anchor = -1
        return None if number is None else number + self._ahead

    def _feed(self) -> None:
        """Give the decoder its next packet, or tell it that there are none."""
        pair = next(self._packets, None)
        try:
            if pair is None:
                self._is_over = True
                frames = self._decoder.decode(None)
            else:
                self._fed, packet = pair
                # PyAV knows it by its address, until the last frame that has it is gone: each has its own.
                packet.opaque = (self._fed,)
                frames = self._decoder.decode(packet)
        except (FFmpegError, EOFError):
            return
        for frame in frames:
            opaque = frame.opaque
            self._given.append((opaque[0] if isinstance(opaque, tuple) else None, frame))
