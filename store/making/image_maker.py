"""The maker `image`: what an image is, by its header. In a worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgpack
import PIL

from store.errors import MediaInvalid
from store.making.makers import Made
from store.making.tasks import Origin, Task
from store.media.images import image_format, image_size
from store.media.source import MediaSource

NAME: Final = "image"
VERSION: Final = f"1 Pillow {PIL.__version__}"


@dataclass(frozen=True, slots=True)
class Picture:
    """Width and height in pixels as displayed; `form` is what Pillow calls the format, like `JPEG`."""

    form: str
    width: int
    height: int


def image_facts_task(origin: Origin) -> Task:
    """One piece; see `read_facts`."""
    return Task(NAME, VERSION, "", (origin,), pieces=1)


def read_facts(piece: bytes) -> Picture:
    """What was made. Raises `MediaInvalid`."""
    try:
        form, width, height = msgpack.unpackb(piece)
        return Picture(str(form), int(width), int(height))
    except (ValueError, TypeError) as error:
        raise MediaInvalid("what was kept of an image cannot be read") from error


def make(arguments: Mapping[str, Any], sources: Sequence[MediaSource]) -> Iterator[Made]:
    """Raises `MediaInvalid` for what is no image, and as the source does."""
    (source,) = sources
    yield msgpack.packb([image_format(source), *image_size(source)])
