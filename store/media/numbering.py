"""Which frames are in which chunk, by CVAT's arithmetic.

An absolute frame is one of the source, a relative one of those that a `Selection` leaves; both count from 0.
Pure; any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from store.errors import InputError
from store.media.recipe import Selection

VIDEO_CHUNK: Final = 36
"""Frames of a video's chunk where nobody says."""
_LEAST: Final = 2
_MOST: Final = 72
_PIXELS: Final = 36 * 1920 * 1080


def image_chunk_size(width: int, height: int) -> int:
    """Images in a chunk where nobody says, from the size in which the first one is displayed."""
    return max(_LEAST, min(_MOST, _PIXELS // max(width * height, 1)))


@dataclass(frozen=True, slots=True)
class Numbering:
    """The frames of a source of `total`, as they are selected and cut into chunks of `chunk_size`."""

    total: int
    chunk_size: int
    selection: Selection = field(default_factory=Selection)

    def __post_init__(self) -> None:
        if self.total < 0 or self.chunk_size < 1:
            raise InputError("a source has no less than 0 frames, and a chunk no less than 1")

    @property
    def frames(self) -> range:
        """Absolute numbers by relative ones."""
        chosen = self.selection
        end = self.total if chosen.stop is None else min(chosen.stop + 1, self.total)
        return range(chosen.start, end, chosen.step)

    @property
    def size(self) -> int:
        """How many relative frames there are."""
        return len(self.frames)

    @property
    def chunk_count(self) -> int:
        return -(-self.size // self.chunk_size)

    def absolute(self, relative: int) -> int:
        """Raises `IndexError` when there is no such frame."""
        if relative < 0:
            raise IndexError(relative)
        return self.frames[relative]

    def relative(self, absolute: int) -> int:
        """Raises `IndexError` for a frame that is not selected: CVAT would name the selected one before."""
        try:
            return self.frames.index(absolute)
        except ValueError as error:
            raise IndexError(absolute) from error

    def place(self, relative: int) -> tuple[int, int]:
        """The chunk that holds a relative frame, and where in it. Raises `IndexError`."""
        self.absolute(relative)
        return divmod(relative, self.chunk_size)

    def chunk(self, number: int) -> range:
        """The absolute frames of a chunk; the last one may be short. Raises `IndexError`."""
        if not 0 <= number < self.chunk_count:
            raise IndexError(number)
        begin = number * self.chunk_size
        return self.frames[begin : begin + self.chunk_size]
