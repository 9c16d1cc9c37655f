"""The maker `thumbnails`: small pictures of a video's frames or of an image, upright, as PNG. In a worker.

What cannot be decoded is the `MediaInvalid` of its piece.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from PIL import Image

from store.errors import MediaInvalid, ObjectCorrupt
from store.making.indexes import index_task
from store.making.makers import Made
from store.making.tasks import Origin, Task
from store.media.containers import DECODER
from store.media.encode import encoder
from store.media.frames import COLOUR_VERSION, FrameReader
from store.media.images import thumbnail
from store.media.index_file import INDEX_VERSION, from_bytes
from store.media.source import MediaSource

NAME: Final = "thumbnails"
VERSION: Final = f"1 {COLOUR_VERSION} {INDEX_VERSION} {DECODER} {encoder()}"


def frames_task(origin: Origin, numbers: Sequence[int], width: int, height: int) -> Task:
    """Frames of a video, each made to fit into a box of so many pixels; piece n is frame `numbers[n]`."""
    recipe = f"{width}x{height},{'+'.join(map(str, numbers))}"
    arguments = {"box": [width, height], "numbers": list(numbers)}
    return Task(NAME, VERSION, recipe, (origin,), 0, arguments, len(numbers), (index_task(origin),))


def image_task(origin: Origin, width: int, height: int) -> Task:
    """An image, the same; one piece."""
    return Task(NAME, VERSION, f"{width}x{height}", (origin,), 0, {"box": [width, height]}, 1)


def make(arguments: Mapping[str, Any], sources: Sequence[MediaSource]) -> Iterator[Made]:
    """Sources: a video and its index, or an image. Raises as they do."""
    width, height = arguments["box"]
    if "numbers" not in arguments:
        yield _png(thumbnail(sources[0], width, height))
        return
    video, kept = sources
    index = from_bytes(kept.read_at(0, kept.size))
    if index is None:
        raise ObjectCorrupt(f"the index of {video.name} is damaged")
    with FrameReader(video, index) as reader:
        for number in arguments["numbers"]:
            try:
                (frame,) = reader.decode(number, 1)
                picture = frame.image(upright=True)
            except MediaInvalid as error:
                yield error
                continue
            picture.thumbnail((width, height))
            yield _png(picture)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
