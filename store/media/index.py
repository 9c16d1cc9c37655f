"""`VideoIndex`: which frames a video has, when they are shown, and where decoding must begin for each.

Made once per content, without decoding: from the sample tables of an MP4 or MOV, of whose payload nothing is
read, or else by one demuxing pass; `method` says which. Kept by `store.media.index_file`.

An index tells what can be told without decoding. Frames that a decoder refuses, since their bytes are
damaged, are counted and asked for in vain; the others keep their numbers. The two fields of a picture in
packets of their own (some broadcasts) are counted as two. What the end of a broken file lacks is not counted.

Blocking, any thread; an index is frozen, and a few bytes a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

import numpy as np

from store.errors import MediaInvalid
from store.media.containers import DECODER
from store.media.demuxed import Stream, demux
from store.media.limits import LARGEST_PICTURE
from store.media.mp4_boxes import NotSimple
from store.media.mp4_tables import read_tables
from store.media.packets import KEY, UNKNOWN, Longs, Packets, has_display_times, shown_packets
from store.media.source import MediaSource

SAMPLE_TABLES: Final = "sample tables"
DEMUXING: Final = "demuxing"
MOST_REORDERED: Final = 16
"""Frames by which a codec may show one later or earlier than it decodes it: H.264's bound, the largest."""


@dataclass(frozen=True, slots=True, eq=False)
class VideoIndex:
    """The frames of a video stream, numbered from 0 in the order in which a full decode shows them.

    `rotation` is in degrees, counter-clockwise, as the display matrix has it: pictures are stored unrotated,
    and `np.rot90(picture, rotation // 90)` sets them upright. Width and height are those of the stored
    picture. `rate` is frames a second on average, 0 where unknown. `decoder` names the versions that counted.
    """

    method: str
    stream: Stream
    decoder: str = DECODER
    trusts_times: bool = True
    """False where decoding has shown that pts are in another order than frames."""
    by_time: bool = field(init=False)
    """Whether pts tell the order of frames; else frames are counted from key packets on, while decoding."""
    order: Longs = field(init=False)
    """Frame → its packet; where not `by_time`, only the counts between key packets are right."""
    numbers: Longs = field(init=False)
    """Packet → its frame, -1 for what is not shown."""
    starts: Longs = field(init=False)
    """Key packets."""

    def __post_init__(self) -> None:
        packets = self.stream.packets
        by_time = self.trusts_times and has_display_times(packets, reorders=self.stream.reorders)
        object.__setattr__(self, "by_time", by_time)
        order = shown_packets(packets, self.stream.codec, by_time=by_time)
        numbers = np.full(len(packets), -1, np.int64)
        numbers[order] = np.arange(len(order))
        object.__setattr__(self, "order", order)
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "starts", packets.keys)

    @property
    def packets(self) -> Packets:
        return self.stream.packets

    @property
    def frame_count(self) -> int:
        return len(self.order)

    @property
    def codec(self) -> str:
        return self.stream.codec

    @property
    def width(self) -> int:
        return self.stream.width

    @property
    def height(self) -> int:
        return self.stream.height

    @property
    def rotation(self) -> int:
        return self.stream.rotation

    @property
    def time_base(self) -> Fraction:
        return self.stream.time_base

    @property
    def rate(self) -> Fraction:
        return self.stream.rate

    def pts(self, number: int) -> int | None:
        """When a frame is shown, in units of the time base; None where the container does not tell."""
        pts = int(self.packets.pts[self.order[number]])
        return pts if self.by_time and pts != UNKNOWN else None

    def seconds(self, number: int) -> float | None:
        """The same in seconds."""
        pts = self.pts(number)
        return None if pts is None else float(pts * self.time_base)

    def duration(self) -> float:
        """Seconds from the first frame's beginning to the last one's end, as far as it is known; else 0."""
        if not self.frame_count:
            return 0.0
        first, last = self.seconds(0), self.seconds(self.frame_count - 1)
        one = float(1 / self.rate) if self.rate else 0.0
        return self.frame_count * one if first is None or last is None else last - first + one

    def key_frames(self) -> Longs:
        """The numbers of the frames that are key packets; about, where pts are missing."""
        is_key = np.zeros(len(self.packets), bool)
        is_key[self.starts] = True
        return np.flatnonzero(is_key[self.order]).astype(np.int64)

    def number_of(self, packet: int) -> int | None:
        """The frame that a packet is; None for one that is not shown."""
        number = int(self.numbers[packet]) if packet < len(self.numbers) else -1
        return None if number < 0 else number

    def start_of(self, number: int, back: int = 0) -> int:
        """The packet with which decoding begins for a frame: a key packet, or 0 where none comes before.

        A picture that is decoded after a key packet and shown before it refers to what precedes that:
        decoding begins one key packet earlier. `back` goes as many further back.
        """
        packet = int(self.order[number])
        if self.by_time:
            place = int(np.searchsorted(self.starts, packet, "right")) - 1
            while place >= 0 and self._is_shown_later(int(self.starts[place]), packet):
                place -= 1
        else:
            anchor = int(self.order[max(number - MOST_REORDERED, 0)])
            # One before the anchor: only from there it is seen how many pictures are shown before the anchor.
            place = int(np.searchsorted(self.starts, anchor, "right")) - 2
        place -= back
        return int(self.starts[place]) if place > 0 else 0

    def first_from(self, start: int) -> int:
        """The first frame that decoding from a packet on gives, where pts tell the order."""
        first = self.numbers[start : start + 2 * MOST_REORDERED]
        if self.packets.flags[start] & KEY:
            first = first[self.packets.pts[start : start + len(first)] >= self.packets.pts[start]]
        shown = first[first >= 0]
        return int(shown.min()) if len(shown) else 0

    def cost_of(self, number: int) -> int:
        """How many packets are decoded for a frame that nothing was decoded for yet."""
        return max(int(self.order[number]) - self.start_of(number) + 1, 1)

    def _is_shown_later(self, key: int, packet: int) -> bool:
        pts = self.packets.pts
        return bool(pts[key] == UNKNOWN or pts[key] > pts[packet])


def build_index(source: MediaSource) -> VideoIndex:
    """The index of a video.

    Raises `MediaInvalid` for what is none or has no frame, and as the source does.
    """
    try:
        index = VideoIndex(SAMPLE_TABLES, read_tables(source))
    except NotSimple:
        index = VideoIndex(DEMUXING, demux(source))
    if not index.frame_count:
        raise MediaInvalid(f"{source.name} has a video stream without a single frame")
    if index.width * index.height > LARGEST_PICTURE:
        size = f"{index.width}x{index.height}"
        raise MediaInvalid(
            f"{source.name} has pictures of {size}; at most {LARGEST_PICTURE} pixels are decoded"
        )
    return index
