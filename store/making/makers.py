"""The registry of makers: what a worker runs for a task, by the task's `maker`.

A maker is a function of `arguments` and `sources`, an iterator that gives the pieces in their order: bytes,
or the `MediaInvalid` of a piece that its source does not allow (a damaged frame). It runs in a worker
process, which imports its module when it is first needed; it may be killed at any time.

A maker that `goes_on` can be stopped between two pieces and asked for the rest later. `arguments[MISSING]`
are then the numbers that are still wanted, the most urgent first, and it gives `Piece`s, in whatever order.

Pure; any thread or process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from store.errors import MediaInvalid
from store.media.source import MediaSource

MISSING: Final = "missing"


class Piece(NamedTuple):
    """One piece out of its turn."""

    number: int
    data: bytes | MediaInvalid


Made = bytes | MediaInvalid | Piece
Make = Callable[[Mapping[str, Any], Sequence[MediaSource]], Iterator[Made]]


@dataclass(frozen=True, slots=True)
class Registered:
    """A maker: where its function is."""

    module: str
    function: str = "make"
    goes_on: bool = False


MAKERS: Final[Mapping[str, Registered]] = {
    "index": Registered("store.making.index_maker"),
    "frames": Registered("store.making.frames_maker", goes_on=True),
    "image": Registered("store.making.image_maker"),
    "thumbnails": Registered("store.making.thumbnails_maker"),
    "chunk-mp4": Registered("store.making.cvat_video", "make_mp4"),
    "chunk-jpegs": Registered("store.making.cvat_video", "make_jpegs"),
    "chunk-pngs": Registered("store.making.cvat_video", "make_pngs"),
    "chunk-images": Registered("store.making.cvat_images", "make_members"),
    "image-sizes": Registered("store.making.cvat_images", "measure_images"),
    "checksums": Registered("store.making.cvat_images", "checksum_members"),
}
