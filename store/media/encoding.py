"""`Encoding`: which files are made of pictures, and how long those are whose format tells it.

Pure; any thread or process. It imports nothing that decodes: recipes are parsed by commands that make none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from store.errors import InputError

FORMATS: Final = ("jpg", "png", "bmp", "npy", "webp")
LOSSY: Final = ("jpg", "webp")
EXACT: Final = ("bmp", "npy")
"""Formats whose files' length follows from the picture's size."""
RGB: Final = "rgb"
GRAY: Final = "gray"
DEFAULT_QUALITY: Final = 90
LARGEST_SIDE: Final = 16384
"""Pixels; of what is scaled to. A picture that is not scaled may be as large as its source's."""

_BMP_HEADER: Final = 54
_PALETTE: Final = 1024
NPY_HEAD: Final = 128
"""Numpy itself pads by its version; any multiple of 64 that the description fits into is right."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """What a picture is made to.

    `quality`, 1 to 100, counts for `jpg` and `webp` only; `scale` is width and height, None for the
    picture's own.
    """

    form: str = "jpg"
    quality: int = DEFAULT_QUALITY
    scale: tuple[int, int] | None = None
    colour: str = RGB

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise InputError(f"there is no picture format {self.form!r}; there are {', '.join(FORMATS)}")
        if self.colour not in (RGB, GRAY):
            raise InputError(f"there is no colour {self.colour!r}; there are rgb and gray")
        if not 1 <= self.quality <= 100:
            raise InputError(f"a quality is from 1 to 100, not {self.quality}")
        if self.scale is not None and not all(1 <= side <= LARGEST_SIDE for side in self.scale):
            width, height = self.scale
            raise InputError(f"pictures are scaled to sides of 1 to {LARGEST_SIDE}, not to {width}x{height}")


def exact_size(encoding: Encoding, width: int, height: int) -> int | None:
    """How long the file of a picture of that size is; None where only encoding tells."""
    if encoding.scale is not None:
        width, height = encoding.scale
    channels = 1 if encoding.colour == GRAY else 3
    if encoding.form == "bmp":
        row = (width * channels + 3) // 4 * 4
        return _BMP_HEADER + (_PALETTE if encoding.colour == GRAY else 0) + row * height
    if encoding.form == "npy":
        return NPY_HEAD + width * height * channels
    return None
