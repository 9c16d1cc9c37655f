"""What an edit list makes of a track's samples, as libav does it: which are read, which shown, and when.

An edit shows a range of the track's time. What precedes it back to a key sample is decoded and discarded, and
so is what follows it up to a key sample. Only lists of one range, with or without emptiness before it, are
done here; `NotSimple` leaves the others to libav. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from store.media.mp4_boxes import NotSimple, fields
from store.media.packets import DISCARD, KEY, Longs, Packets

_EMPTY: Final = -1
_MOST_EDITS: Final = 16
Flags = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Edit:
    """A range of a track's time, after an emptiness; all in units of the track's time scale."""

    empty: int
    start: int
    duration: int


def parse_edits(elst: memoryview, film_scale: int, track_scale: int) -> Edit | None:
    """The content of an `elst` as one edit; None for a list of none. Raises `NotSimple`."""
    version, count = fields(elst, "B3xI")
    form, length = (("Qqi", 20), ("Iii", 12))[version == 0]
    if len(elst) - 8 != count * length or count > _MOST_EDITS or film_scale <= 0:
        raise NotSimple
    entries = [fields(elst, form, 8 + length * number)[:2] for number in range(count)]
    if not entries:
        return None
    *empty, (duration, start) = entries
    if start < 0 or duration <= 0 or any(time != _EMPTY for _, time in empty):
        raise NotSimple
    if max(start, *(length for length, _ in entries)) >= 1 << 50:
        raise NotSimple
    return Edit(
        sum(_rescale(length, track_scale, film_scale) for length, _ in empty),
        start,
        _rescale(duration, track_scale, film_scale),
    )


def apply_edit(samples: Packets, shift: int, edit: Edit, *, reordered: bool) -> Packets:
    """The packets that libav gives: `samples` have pts = dts + `shift` + offset, and strictly increasing dts.

    `reordered` says that the track has a table of such offsets. Raises `NotSimple` where nothing is shown.
    """
    is_key = (samples.flags & KEY) != 0
    times = samples.pts  # the track's own times of display
    first = _first(samples, is_key, shift, edit, reordered=reordered)
    durations = np.append(np.diff(samples.dts), edit.duration)
    end = edit.start + edit.duration
    ends = np.flatnonzero(is_key[first:] & (times[first:] + durations[first:] >= end))
    # With reordering the key sample after that one is waited for: pictures that follow the first in the file
    # may be shown before it.
    ends = ends[1 if reordered else 0 :]
    last = first + int(ends[0]) + 1 if len(ends) else len(samples)

    taken = slice(first, last)
    times = times[taken]
    shown = (times >= edit.start) & (times < end)
    if not shown.any():
        raise NotSimple
    dts = samples.dts[taken] - samples.dts[taken][int(shown.argmax())] + edit.empty - max(shift, 0)
    offsets = times - samples.dts[taken]
    earliest = _earliest((dts + offsets)[shown]) - edit.empty
    if earliest > 0:
        dts = dts - earliest
    flags = samples.flags[taken] | np.where(shown, 0, DISCARD).astype(np.uint8)
    return Packets(samples.offsets[taken], samples.sizes[taken], dts + offsets, dts, flags)


def _first(samples: Packets, is_key: Flags, shift: int, edit: Edit, *, reordered: bool) -> int:
    """The sample to begin with: the last key sample at or before the edit's start, in both orders."""
    upto = int(np.searchsorted(samples.dts, edit.start - max(shift, 0), "right"))
    candidates = np.flatnonzero(is_key[:upto])
    if reordered:
        candidates = candidates[samples.pts[candidates] <= edit.start + shift - max(shift, 0)]
    elif not len(candidates) and upto:
        return upto - 1
    return int(candidates[-1]) if len(candidates) else 0


def _earliest(times: Longs) -> int:
    """The least of the times after the last negative one; libav takes those for "none yet"."""
    negative = np.flatnonzero(times[:-1] < 0)
    return int(times[negative[-1] + 1 if len(negative) else 0 :].min())


def _rescale(value: int, numerator: int, denominator: int) -> int:
    """Rounded to the nearest, halves away from zero."""
    return (2 * value * numerator + denominator) // (2 * denominator)
