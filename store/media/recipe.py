"""`FramesRecipe` and `ChunksRecipe`: what a view makes of media, as it stands in a path.

    jpg                                          frames: a format, and what differs from the defaults
    jpg,quality=80,scale=640x360,start=0,step=5,stop=2999
    auto                                         chunks: frames in each, by CVAT's rule or a number
    36,order=natural,quality=50,zip=1

Keys are sorted, numbers have no leading zeros, and a default may be spelt out; `str` gives the shortest
spelling, which is the same for all that mean the same and goes into keys of products. Frames count from 0 and
`stop` is the last one, also when it is 0, which CVAT takes for the end.

Pure; any thread. `parse_…` raises `InputError`, which names the right spelling.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from store.errors import InputError
from store.media.encoding import DEFAULT_QUALITY, FORMATS, LOSSY, RGB, Encoding
from store.media.ordering import LEXICOGRAPHICAL, ORDERS

LONGEST_RECIPE: Final = 200
"""Characters; a name in a directory has 255 bytes."""
LAST_FRAME: Final = 10**9 - 1
LARGEST_CHUNK: Final = 10_000
"""Frames of a chunk: it is made at once."""
DEFAULT_CHUNK_QUALITY: Final = 70
"""What CVAT's own pages send; its database would say 50."""

_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_FRAMES: Final = "FORMAT[,colour=gray][,quality=1-100][,scale=WIDTHxHEIGHT][,start=N][,step=N][,stop=N]"
_CHUNKS: Final = "auto or FRAMES[,order=ORDER][,quality=1-100][,start=N][,step=N][,stop=N][,zip=1]"


@dataclass(frozen=True, slots=True)
class Selection:
    """Every `step`-th frame from `start` to `stop`, which is included; to the end where it is None."""

    start: int = 0
    step: int = 1
    stop: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start <= LAST_FRAME or not 1 <= self.step <= LAST_FRAME:
            raise InputError("frames count from 0, and a step is 1 or more")
        if self.stop is not None and not self.start <= self.stop <= LAST_FRAME:
            raise InputError(f"stop={self.stop} lies before start={self.start}; it is the last frame wanted")

    def words(self) -> dict[str, str]:
        """What differs from the defaults."""
        words = {"start": str(self.start)} if self.start else {}
        if self.step != 1:
            words["step"] = str(self.step)
        if self.stop is not None:
            words["stop"] = str(self.stop)
        return words


@dataclass(frozen=True, slots=True)
class FramesRecipe:
    """Frames of a video as files of their own."""

    encoding: Encoding = field(default_factory=Encoding)
    selection: Selection = field(default_factory=Selection)

    def __post_init__(self) -> None:
        if self.encoding.form not in LOSSY and self.encoding.quality != DEFAULT_QUALITY:
            raise InputError(f"{self.encoding.form} has no quality; {' and '.join(LOSSY)} have one")

    def __str__(self) -> str:
        words = self.selection.words()
        if self.encoding.colour != RGB:
            words["colour"] = self.encoding.colour
        if self.encoding.quality != DEFAULT_QUALITY:
            words["quality"] = str(self.encoding.quality)
        if self.encoding.scale is not None:
            words["scale"] = "{}x{}".format(*self.encoding.scale)
        return _join(self.encoding.form, words)


@dataclass(frozen=True, slots=True)
class ChunksRecipe:
    """Videos and folders of images in the chunks that CVAT makes.

    `size` is how many frames a chunk has, None for CVAT's rule; `order` and `quality` are of images and of
    what is compressed. With `zipped` the compressed chunks of a video are zips of JPEG files and not MP4.
    """

    size: int | None = None
    order: str = LEXICOGRAPHICAL
    quality: int = DEFAULT_CHUNK_QUALITY
    selection: Selection = field(default_factory=Selection)
    zipped: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and not 1 <= self.size <= LARGEST_CHUNK:
            raise InputError(f"a chunk has from 1 to {LARGEST_CHUNK} frames, not {self.size}")
        if self.order not in ORDERS:
            raise InputError(f"there is no order {self.order!r}; there are {', '.join(ORDERS)}")
        if not 1 <= self.quality <= 100:
            raise InputError(f"a quality is from 1 to 100, not {self.quality}")

    def __str__(self) -> str:
        words = self.selection.words()
        if self.order != LEXICOGRAPHICAL:
            words["order"] = self.order
        if self.quality != DEFAULT_CHUNK_QUALITY:
            words["quality"] = str(self.quality)
        if self.zipped:
            words["zip"] = "1"
        return _join("auto" if self.size is None else str(self.size), words)


def parse_frames(text: str) -> FramesRecipe:
    """Read `FORMAT[,key=value…]`. Raises `InputError`."""
    with_reason = _reasons(text, _FRAMES)
    head, words = _split(text, ("colour", "quality", "scale", "start", "step", "stop"), with_reason)
    if head not in FORMATS:
        raise with_reason(f"there is no picture format {head[:40]!r}; there are {', '.join(FORMATS)}")
    if "quality" in words and head not in LOSSY:
        raise with_reason(f"{head} has no quality; {' and '.join(LOSSY)} have one")
    scale = None
    if "scale" in words:
        sides = words["scale"].split("x")
        if len(sides) != 2:
            raise with_reason("a scale is spelt WIDTHxHEIGHT, like 640x360")
        scale = (_number(sides[0], with_reason), _number(sides[1], with_reason))
    quality = _number(words.get("quality", str(DEFAULT_QUALITY)), with_reason)
    try:
        encoding = Encoding(head, quality, scale, words.get("colour", RGB))
        return FramesRecipe(encoding, _selection(words, with_reason))
    except InputError as error:
        raise with_reason(str(error)) from error


def parse_chunks(text: str) -> ChunksRecipe:
    """Read `auto[,key=value…]` or a size in its place. Raises `InputError`."""
    with_reason = _reasons(text, _CHUNKS)
    head, words = _split(text, ("order", "quality", "start", "step", "stop", "zip"), with_reason)
    if words.get("zip", "0") not in ("0", "1"):
        raise with_reason("zip is 0 or 1")
    size = None if head == "auto" else _number(head, with_reason)
    quality = _number(words.get("quality", str(DEFAULT_CHUNK_QUALITY)), with_reason)
    try:
        order = words.get("order", LEXICOGRAPHICAL)
        return ChunksRecipe(size, order, quality, _selection(words, with_reason), words.get("zip") == "1")
    except InputError as error:
        raise with_reason(str(error)) from error


Reasons = Callable[[str], InputError]


def _reasons(text: str, spelling: str) -> Reasons:
    """Make errors that show the recipe, which may be hostile and long, and how one is spelt."""

    def with_reason(reason: str) -> InputError:
        if reason.endswith(f"spelt {spelling}"):
            return InputError(reason)
        return InputError(f"{text[:LONGEST_RECIPE]!r} is no recipe: {reason}; it is spelt {spelling}")

    return with_reason


def _split(text: str, known: tuple[str, ...], with_reason: Reasons) -> tuple[str, dict[str, str]]:
    if len(text) > LONGEST_RECIPE:
        raise with_reason(f"it is longer than {LONGEST_RECIPE} characters")
    head, *pairs = text.split(",")
    words: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in known:
            raise with_reason(f"{pair[:40]!r} is not one of its keys, {', '.join(known)}, with a value")
        if key in words:
            raise with_reason(f"{key} is given twice")
        words[key] = value
    if list(words) != sorted(words):
        raise with_reason(f"keys are sorted: {_join(head, words)}")
    return head, words


def _number(text: str, with_reason: Reasons) -> int:
    if not _NUMBER.fullmatch(text):
        raise with_reason(f"{text[:40]!r} is not a whole number below {LAST_FRAME + 1} without leading zeros")
    return int(text)


def _selection(words: dict[str, str], with_reason: Reasons) -> Selection:
    stop = words.get("stop")
    return Selection(
        _number(words.get("start", "0"), with_reason),
        _number(words.get("step", "1"), with_reason),
        None if stop is None else _number(stop, with_reason),
    )


def _join(head: str, words: dict[str, str]) -> str:
    return ",".join([head, *(f"{key}={words[key]}" for key in sorted(words))])
