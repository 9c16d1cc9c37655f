"""What CVAT makes of images: members of compressed chunks and sizes; and the checksums that a zip needs.

Makers over images in their order. A product follows from contents alone and not from names, so what is wrong
with an image is told without its name, by whoever knows where it lies.

Blocking; worker processes. Raise as sources do.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgpack

from store.errors import MediaInvalid
from store.making.makers import Piece
from store.making.zipped import zipped
from store.media.encode import encoder
from store.media.images import compressed_member, image_size
from store.media.source import MediaSource
from store.media.zips import pack_checksums

IMAGES_VERSION: Final = f"1 {encoder()}"
"""Of `make_members` and `measure_images`."""
CHECKSUMS_VERSION: Final = "1"

_BLOCK: Final = 1 << 20


def make_members(arguments: Mapping[str, Any], sources: Sequence[MediaSource]) -> Iterator[Piece]:
    """Each image as it stands in a compressed chunk, by the `quality`; see `store.making.zipped`.

    Raises `MediaInvalid`.
    """
    return zipped(compressed_member(source, arguments["quality"]) for source in sources)


def measure_images(arguments: Mapping[str, Any], sources: Sequence[MediaSource]) -> Iterator[bytes]:
    """Width and height of all images as they are displayed, in one piece; see `sizes_of`."""
    sizes: list[tuple[int, int]] = []
    for source in sources:
        try:
            sizes.append(image_size(source))
        except MediaInvalid:
            sizes.append((0, 0))
    yield msgpack.packb(sizes)


def sizes_of(piece: bytes) -> list[tuple[int, int]]:
    """What `measure_images` made: widths and heights, 0 for what is no image that can be read."""
    return [(width, height) for width, height in msgpack.unpackb(piece)]


def checksum_members(arguments: Mapping[str, Any], sources: Sequence[MediaSource]) -> Iterator[bytes]:
    """The CRC-32 of each source, in one piece; see `store.media.zips.checksums_of`."""
    yield pack_checksums([_checksum(source) for source in sources])


def _checksum(source: MediaSource) -> int:
    value = 0
    for start in range(0, source.size, _BLOCK):
        value = zlib.crc32(source.read_at(start, min(_BLOCK, source.size - start)), value)
    return value
