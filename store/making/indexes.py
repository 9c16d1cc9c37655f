"""The task of a video's index: what it is kept by."""

from __future__ import annotations

from typing import Final

from store.making.tasks import Origin, Task
from store.media.containers import DECODER
from store.media.index_file import INDEX_VERSION

_VERSION: Final = f"{INDEX_VERSION} {DECODER}"


def index_task(origin: Origin) -> Task:
    """The index of a video: one piece, which `store.media.index_file` reads."""
    return Task("index", _VERSION, "", (origin,), pieces=1)
