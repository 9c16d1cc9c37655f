"""`TaskMaker`: makes products with an engine and tells what became of each. On the event loop.

Callers: `fusefs materialize`, in its own process or in those of a cluster (`fusefs.cluster_worker`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import trio

from fusefs.fetching import kind_of
from store.engine import Engine
from store.errors import MediaFailed, MediaInvalid, StoreError
from store.making.products import Products
from store.making.tasks import Origin, Task
from store.media.index import VideoIndex

KEPT_SECONDS: Final = 10.0
KEPT_TICK: Final = 0.02
NO_ROOM: Final = "no room"
NO_ROOM_HELP: Final = "the cache cannot be written to, is full, or at the limit that was given"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a product. Travels between processes."""

    pieces: int = 0
    """That it has."""
    refused: int = 0
    """That the content does not allow, such as damaged frames."""
    bytes: int = 0
    kept: bool = False
    """It was there before."""
    pushed: bool = False
    """It was put on a remote just now."""
    kind: str = ""
    """The class of its failure; empty for none."""
    message: str = ""


class Runner(Protocol):
    """Has products made somewhere."""

    lanes: int
    """How many calls are worth while at a time."""

    async def run(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Make these, one after the other. Raises nothing for one that cannot be made."""

    async def index(self, origin: Origin) -> VideoIndex:
        """The index of a video. Raises `StoreError`."""

    def close(self) -> None:
        """When nothing is made any more."""


class FailedElsewhere(StoreError):
    """A failure in another process, of the class `kind`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def failure(error: StoreError) -> Outcome:
    """What became of a product that could not be made."""
    match error:
        case FailedElsewhere():
            kind = error.kind
        case MediaInvalid():
            kind = "invalid"
        case MediaFailed():
            kind = "crashed"
        case _:
            kind = kind_of(error)
    return Outcome(kind=kind, message=str(error))


class TaskMaker:
    """Makes products and waits until they are kept."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._products = Products(engine.settings.caches[0])

    async def make(self, task: Task) -> Outcome:
        """One product. Raises nothing for what cannot be made."""
        try:
            kept = await self._look(task)
            if kept is not None:
                return replace(kept, kept=True)
            await self._engine.maker.product(task)
            made = await self._await_kept(task)
        except StoreError as error:
            return failure(error)
        return made or Outcome(kind=NO_ROOM, message=f"{task} was made and could not be kept: {NO_ROOM_HELP}")

    async def _await_kept(self, task: Task) -> Outcome | None:
        """It is kept behind the back of those who wait for it."""
        with trio.move_on_after(KEPT_SECONDS):
            while (made := await self._look(task)) is None:
                await trio.sleep(KEPT_TICK)
            return made
        return None

    async def _look(self, task: Task) -> Outcome | None:
        """What there is in the cache of a whole product."""
        return await self._engine.threads.on_disk(self._read, task)

    def _read(self, task: Task) -> Outcome | None:
        product = self._products.open(task.key, task.pieces)
        if product is None or not product.is_whole:
            return None
        made = [size for size in product.sizes if size >= 0]
        return Outcome(product.count, product.count - len(made), sum(made))

    def close(self) -> None:
        self._products.close()


class LocalRunner:
    """See `Runner`: the workers of this process's own maker."""

    def __init__(self, engine: Engine, jobs: int) -> None:
        self.lanes = jobs
        self._engine = engine
        self._maker = TaskMaker(engine)

    async def run(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        return [await self._maker.make(task) for task in tasks]

    async def index(self, origin: Origin) -> VideoIndex:
        return await self._engine.maker.index(origin)

    def close(self) -> None:
        self._maker.close()
