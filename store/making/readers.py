"""Videos that a worker has open, so that whoever goes straight on decodes every packet once. In a worker."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from store.errors import ObjectCorrupt
from store.media.frames import FrameReader
from store.media.index import VideoIndex
from store.media.index_file import from_bytes
from store.media.source import MediaSource

READERS: Final = 3
"""Videos that are open at a time: a decoder may keep a dozen pictures."""

_readers: OrderedDict[MediaSource, tuple[FrameReader, VideoIndex]] = OrderedDict()


@contextmanager
def reading(video: MediaSource, kept: MediaSource) -> Iterator[tuple[FrameReader, VideoIndex]]:
    """A video, given its index as it is kept; open already where it was read last.

    Raises `ObjectCorrupt` for what is no index, and as the sources do.
    """
    found = _readers.get(video)
    if found is None:
        index = from_bytes(kept.read_at(0, kept.size))
        if index is None:
            raise ObjectCorrupt(f"the index of {video.name} is damaged")
        while len(_readers) >= READERS:
            _readers.popitem(last=False)[1][0].close()
        found = _readers[video] = FrameReader(video, index), index
    _readers.move_to_end(video)
    try:
        yield found
    except Exception:
        # What was left in the middle of something is not gone on with; between two pieces it may be left.
        _readers.pop(video, None)
        raise
