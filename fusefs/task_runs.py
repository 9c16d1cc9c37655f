"""`TaskMaker`: makes products with an engine and tells what became of each. On the event loop.

Callers: `fusefs materialize`, in its own process or in those of a cluster (`fusefs.cluster_worker`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import trio

from fusefs.fetching import kind_of
from store.engine import Engine
from store.errors import CacheUnusable, MediaFailed, MediaInvalid, RemoteSlow, RemoteUnreachable, StoreError
from store.making.indexes import index_task
from store.making.products import Products
from store.making.remote_products import push
from store.making.tasks import Origin, RowOrigin, Task
from store.media.index import VideoIndex
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec

PUSHES: Final = 3
"""Tries to put a product on a remote."""
PUSH_SECONDS: Final = 600.0
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
    """Makes products and waits until they are kept; `push` is the remote that they are put on, too."""

    def __init__(self, engine: Engine, push: RemoteSpec | None = None) -> None:
        self._engine = engine
        self._remote = engine.pool.members([push])[0].remote if push is not None else None
        self._products = Products(engine.settings.caches[0])

    async def make(self, task: Task) -> Outcome:
        """One product. Raises nothing for what cannot be made."""
        try:
            if self._remote is not None:
                await self._prove(task)
            outcome = await self._look(task)
            if outcome is not None:
                outcome = replace(outcome, kept=True)
            else:
                await self._engine.maker.keep(task)
                outcome = await self._look(task)
            if outcome is not None and self._remote is not None:
                outcome = replace(outcome, pushed=await self._put(task, self._remote))
        except StoreError as error:
            return failure(error)
        return outcome or Outcome(
            kind=NO_ROOM, message=f"{task} was made and could not be kept: {NO_ROOM_HELP}"
        )

    async def _prove(self, task: Task) -> None:
        """What others will take without making it is made of objects that have come whole, and were hashed.
        Raises `StoreError`."""
        for origin in task.origins:
            if isinstance(origin, RowOrigin):
                brought = await origin.files.bring(origin.row)
                if brought is not None:
                    brought.opened.close()
                    if brought.kept:
                        self._engine.maker.prove(origin.oid)
        if not self._engine.maker.is_proved(task):
            raise CacheUnusable(f"{task} was made of what the cache cannot hold whole, so it is not pushed")

    async def index(self, origin: Origin) -> VideoIndex:
        """The index of a video, which is put on the remote, too: whoever looks for products there needs it
        first. Raises `StoreError`."""
        if self._remote is not None:
            await self.make(index_task(origin))  # what goes wrong with the remote shows with what follows
        return await self._engine.maker.index(origin)

    async def _put(self, task: Task, remote: Remote) -> bool:
        """Put a product on the remote; False where it is there. Raises `StoreError`."""
        threads = self._engine.threads
        for attempt in range(PUSHES):
            try:
                return await threads.on_remote(
                    push, remote, self._products, task.key, task.pieces, deadline=PUSH_SECONDS
                )
            except (RemoteSlow, RemoteUnreachable):
                if attempt == PUSHES - 1:
                    raise
                await trio.sleep(random.uniform(0.5, 1.5) * 4**attempt)
        raise AssertionError("it returned or raised")

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

    def __init__(self, engine: Engine, jobs: int, push: RemoteSpec | None = None) -> None:
        self.lanes = 2 * jobs  # the next ones are asked for while these are being put in their places
        self._maker = TaskMaker(engine, push)

    async def run(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        return [await self._maker.make(task) for task in tasks]

    async def index(self, origin: Origin) -> VideoIndex:
        return await self._maker.index(origin)

    def close(self) -> None:
        self._maker.close()
