"""`FramesTable`: the file `frames.json`, which says what the frames beside it are.

A head of one line a key, then one line a frame, all of the same length: numbers are padded with spaces, which
JSON allows. So the file's size follows from the index, any part of it is made without the rest, and nothing
is kept of a table of millions of frames. Pure; on the event loop, a read of 128 KiB takes some milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from store.making.frame_chunks import FrameChunks
from store.making.frame_chunks import version as frames_version
from store.media.index import VideoIndex
from store.media.packets import KEY, UNKNOWN

VERSION: Final = 1
"""Of the keys and their meaning."""
_TAIL: Final = b"]\n}\n"
_NULL: Final = "null"


def frame_name(number: int, form: str) -> str:
    """What the file of an absolute frame is called: six digits, and more from a million on."""
    return f"{number:06d}.{form}"


class FramesTable:
    """`frames.json` of a video's selected frames.

    `path` and `oid` are the source's. `seconds` are rounded to nanoseconds; times are null where the
    container does not tell them.
    """

    def __init__(self, chunks: FrameChunks, path: str, oid: str) -> None:
        index = chunks.index
        self._frames = chunks.frames
        self._index = index
        self._form = chunks.recipe.encoding.form
        head = json.dumps(_facts(chunks, path, oid), indent=0)
        self._head = (head.removesuffix("\n}") + ',\n"frames": [\n').encode("ascii")
        last = self._frames[-1] if self._frames else 0
        times = index.packets.pts[index.order][self._frames.start : self._frames.stop : self._frames.step]
        times = times[times != UNKNOWN] if index.by_time else times[:0]
        extremes = [int(times.min()), int(times.max())] if len(times) else []
        self._widths = (
            len(str(last)),
            len(frame_name(last, self._form)) + 2,
            max(len(_NULL), *(len(str(pts)) for pts in extremes), 0),
            max(len(_NULL), *(len(_seconds(index, pts)) for pts in extremes), 0),
        )
        self._line = len(self._write(0, 1)) if self._frames else 0
        self.size: Final = len(self._head) + self._line * len(self._frames) + len(_TAIL)
        """Bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """The bytes of a range, fewer at the end."""
        end = min(offset + length, self.size)
        lines = len(self._head)
        tail = self.size - len(_TAIL)
        pieces = [self._head[offset:end]]
        first, stop = max(offset, lines), min(end, tail)
        if first < stop:
            begin = (first - lines) // self._line
            made = self._write(begin, -(-(stop - lines) // self._line))
            skipped = first - lines - begin * self._line
            pieces.append(made[skipped : skipped + stop - first])
        if end > tail:
            pieces.append(_TAIL[max(offset - tail, 0) : end - tail])
        return b"".join(pieces)

    def _write(self, begin: int, end: int) -> bytes:
        """The lines of some places."""
        index, numbers = self._index, self._frames[begin:end]
        packets = index.order[numbers.start : numbers.stop : numbers.step]
        times = index.packets.pts[packets].tolist()
        keys = (index.packets.flags[packets] & KEY).tolist()
        number_width, name_width, pts_width, seconds_width = self._widths
        lines: list[str] = []
        for number, pts, key in zip(numbers, times, keys, strict=True):
            is_known = index.by_time and pts != UNKNOWN
            name = f'"{frame_name(number, self._form)}"'
            lines.append(
                f'{{"frame": {number:{number_width}}, "file": {name:>{name_width}}, '
                f'"pts": {pts if is_known else _NULL:>{pts_width}}, '
                f'"seconds": {_seconds(index, pts) if is_known else _NULL:>{seconds_width}}, '
                f'"key": {"true" if key else "false":>5}}},\n'
            )
        if end == len(self._frames):
            lines[-1] = lines[-1].removesuffix(",\n") + " \n"
        return "".join(lines).encode("ascii")


def _seconds(index: VideoIndex, pts: int) -> str:
    return f"{pts * index.time_base.numerator / index.time_base.denominator:.9f}"


def _facts(chunks: FrameChunks, path: str, oid: str) -> Mapping[str, object]:
    index = chunks.index
    return {
        "version": VERSION,
        "source": path,
        "oid": oid,
        "recipe": str(chunks.recipe),
        "container": index.stream.container,
        "codec": index.codec,
        "width": index.width,
        "height": index.height,
        "rotation": index.rotation,
        "rate": str(index.rate),
        "time_base": str(index.time_base),
        "duration": round(index.duration(), 9),
        "frame_count": index.frame_count,
        "index": index.method,
        "decoder": index.decoder,
        "materializer": frames_version(),
    }
