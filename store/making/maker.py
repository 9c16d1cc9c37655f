"""`Maker`: what is made of sources, once: by worker processes, or found where products are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from store.making.tasks import Origin, Task
from store.media.index import VideoIndex


class Product(Protocol):
    """All pieces of a product."""

    @property
    def sizes(self) -> Sequence[int]:
        """Bytes by piece."""

    async def read(self, number: int) -> bytes:
        """A piece. Raises `MediaInvalid` for one that cannot be made, else as `Maker.piece` does."""

    def close(self) -> None:
        """Let go of it; once."""


class Maker:
    """On the event loop; `Engine.maker` gives it. A wait for anything ends by a deadline."""

    async def piece(self, task: Task, number: int) -> bytes:
        """A piece, as soon as it is made; the rest of the product follows behind.

        Raises `MediaInvalid` where the content does not allow it, `ObjectCorrupt` where a worker died of it,
        and as origins do.
        """
        raise NotImplementedError

    async def product(self, task: Task) -> Product:
        """The whole product, when all of its pieces are made. Raises as `piece`, but for single pieces."""
        raise NotImplementedError

    def sizes(self, task: Task) -> Sequence[int] | None:
        """Bytes by piece, where they are known without making anything; -1 for a piece that is not known."""
        raise NotImplementedError

    async def index(self, origin: Origin) -> VideoIndex:
        """The index of a video: made once per content, and kept. Raises as `piece`."""
        raise NotImplementedError
