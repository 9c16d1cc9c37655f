"""The maker `index`: a video's `VideoIndex`, as `store.media.index_file` keeps it. In a worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from store.making.makers import Made
from store.media.index import build_index
from store.media.index_file import to_bytes
from store.media.source import MediaSource


def make(arguments: Mapping[str, Any], sources: Sequence[MediaSource]) -> Iterator[Made]:
    """One piece. Raises `MediaInvalid` for what is no video, and as the source does."""
    yield to_bytes(build_index(sources[0]))
