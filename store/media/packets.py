"""`Packets`: the packets of a video stream as columns, and the order in which their frames are shown.

Packets stand in the order in which a demuxer gives them, which is the order of decoding. A packet is a frame,
but for those that an edit list discards, those that a codec hides, and those at the beginning of a stream
that lack what they refer to: what no decoder shows is not counted.

Pure; any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

Longs = np.ndarray[Any, np.dtype[np.int64]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]

UNKNOWN: Final = -(1 << 63)
"""For a time or an offset that the container does not tell."""
KEY: Final = 1
DISCARD: Final = 2
"""Decoded, as others refer to it, and not shown: an edit list leaves it out."""
HIDDEN: Final = 4
"""Shows nothing by its codec: only others refer to it."""
MOST_PACKETS: Final = 10_000_000
"""Of a video: eleven hours at 240 a second, 330 MB of columns."""

_LENIENT: Final = frozenset(
    ("mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "h263", "h263p", "flv1", "rv10", "rv20")
)
"""Codecs whose decoders show something before the first key packet."""


@dataclass(frozen=True, slots=True, eq=False)
class Packets:
    """Columns of one length; `flags` is made of `KEY`, `DISCARD` and `HIDDEN`."""

    offsets: Longs
    sizes: Longs
    pts: Longs
    dts: Longs
    flags: Bytes

    def __post_init__(self) -> None:
        if len({len(self.offsets), len(self.sizes), len(self.pts), len(self.dts), len(self.flags)}) != 1:
            raise ValueError("the columns of packets differ in length")

    def __len__(self) -> int:
        return len(self.flags)

    @property
    def keys(self) -> Longs:
        """The numbers of the key packets, those that are discarded among them: decoding may begin there."""
        return np.flatnonzero(self.flags & KEY).astype(np.int64)


def has_display_times(packets: Packets, *, reorders: bool) -> bool:
    """Whether the packets' pts tell the order in which frames are shown.

    Where a codec `reorders`, some containers (AVI, raw streams) have none.
    """
    if not reorders:
        return True
    shown = (packets.flags & (DISCARD | HIDDEN)) == 0
    return bool((packets.pts[shown] != UNKNOWN).all())


def shown_packets(packets: Packets, codec: str, *, by_time: bool) -> Longs:
    """The packets that are frames, by the number of the frame: in order of time, or as they are decoded.

    Times start again where a stream was put together from several: order holds only within such parts.
    """
    shown = (packets.flags & (DISCARD | HIDDEN)) == 0
    keys = packets.keys
    if len(keys):
        first = int(keys[0])
        if codec not in _LENIENT:
            shown[:first] = False
        if by_time and packets.pts[first] != UNKNOWN:
            after = int(keys[1]) if len(keys) > 1 else len(packets)
            shown[first + 1 : after] &= packets.pts[first + 1 : after] >= packets.pts[first]
    numbers = np.flatnonzero(shown).astype(np.int64)
    if not by_time or (packets.pts[numbers] == UNKNOWN).any():
        return numbers
    return numbers[np.lexsort((packets.pts[numbers], parts(packets)[numbers]))]


def parts(packets: Packets) -> Longs:
    """For every packet the number of its part: a new one begins at a key packet whose dts goes back."""
    goes_back = np.zeros(len(packets), bool)
    # UNKNOWN is the least of numbers: nothing goes back from it, and it is asked for on the other side.
    goes_back[1:] = (packets.dts[1:] < packets.dts[:-1]) & (packets.dts[1:] != UNKNOWN)
    return np.cumsum(goes_back & ((packets.flags & KEY) != 0)).astype(np.int64)
