"""Packets of a video by one demuxing pass: for containers whose tables are not read here, or that have none.

Every packet is read and none decoded, but for the first frame, which tells the rotation and that a decoder is
there. Blocking; any thread.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from store.errors import MediaInvalid
from store.media.containers import open_container
from store.media.packets import DISCARD, HIDDEN, KEY, MOST_PACKETS, UNKNOWN, Longs, Packets
from store.media.source import MediaSource

_MOST_TRIED: Final = 64
"""Packets that may be decoded until the first frame comes."""


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """What a container says of a video stream. `stream_id` is None where libav's choice is the one meant."""

    packets: Packets
    stream_id: int | None
    container: str
    codec: str
    width: int
    height: int
    rotation: int
    time_base: Fraction
    rate: Fraction
    reorders: bool


def demux(source: MediaSource) -> Stream:
    """Read all packets of the best video stream. Raises `MediaInvalid`, and as the source does."""
    opened = open_container(source)
    try:
        stream = opened.stream
        codec = stream.codec_context.codec
        offsets, sizes, pts, dts, flags = array("q"), array("q"), array("q"), array("q"), array("B")
        frame: VideoFrame | None = None
        for packet in opened.packets():
            if len(flags) >= MOST_PACKETS:
                raise MediaInvalid(f"{source.name} has more than {MOST_PACKETS} frames")
            offsets.append(UNKNOWN if packet.pos is None else packet.pos)
            sizes.append(packet.size)
            pts.append(UNKNOWN if packet.pts is None else packet.pts)
            dts.append(UNKNOWN if packet.dts is None else packet.dts)
            flags.append(_flags(packet, codec.canonical_name))
            if frame is None and len(flags) <= _MOST_TRIED:
                frame = _try(packet)
        frame = frame or _first_of_rest(stream)
        packets = Packets(
            _column(offsets), _column(sizes), _column(pts), _column(dts), np.array(flags, np.uint8)
        )
        if not stream.time_base:
            raise MediaInvalid(f"{source.name} has no time base")
        container = opened.container.format.name
        reorders = codec.reorder and stream.codec_context.has_b_frames
        return Stream(
            packets=_without_times(packets) if reorders and _has_false_times(packets, container) else packets,
            stream_id=None,
            container=container,
            codec=codec.canonical_name,
            width=frame.width if frame else stream.codec_context.width,
            height=frame.height if frame else stream.codec_context.height,
            rotation=right_rotation(frame) if frame else 0,
            time_base=stream.time_base,
            rate=stream.average_rate or stream.guessed_rate or Fraction(0),
            reorders=reorders,
        )
    finally:
        opened.close()


def right_rotation(frame: VideoFrame) -> int:
    """Degrees counter-clockwise, -180 to 180; 0 for a matrix that turns nothing, or is none."""
    return frame.rotation if abs(frame.rotation) <= 180 else 0


def _flags(packet: Packet[VideoStream], codec: str) -> int:
    hidden = codec == "vp8" and not bytes(memoryview(packet)[:1])[0] >> 4 & 1  # its show_frame
    return KEY * packet.is_keyframe | DISCARD * packet.is_discard | HIDDEN * hidden


def _try(packet: Packet[VideoStream]) -> VideoFrame | None:
    try:
        return next(iter(packet.decode()), None)
    except FFmpegError:
        return None


def _first_of_rest(stream: VideoStream) -> VideoFrame | None:
    """What the decoder still had when there were no more packets."""
    try:
        return next(iter(stream.decode(None)), None)
    except (FFmpegError, EOFError):
        return None


def _has_false_times(packets: Packets, container: str) -> bool:
    """AVI has no times of display; libav makes some up from the order of decoding."""
    return container == "avi" and bool((np.diff(packets.pts) >= 0).all())


def _without_times(packets: Packets) -> Packets:
    unknown = np.full(len(packets), UNKNOWN)
    return Packets(packets.offsets, packets.sizes, unknown, packets.dts, packets.flags)


def _column(values: array[int]) -> Longs:
    return np.array(values, np.int64)
