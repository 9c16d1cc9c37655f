"""`gather`: has the objects of many small files brought side by side, before a worker asks for one by one.

Thread rule: belongs to the event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from store.errors import StoreError
from store.fetching.download import WHOLE_LIMIT
from store.making.maker import Maker
from store.making.tasks import Task
from store.tree_files import TreeFiles

AT_ONCE: Final = 16
MADE_AT_ONCE: Final = 4
LARGEST: Final = WHOLE_LIMIT
"""Bytes. What is larger is fetched as it is read: of a header, some of it."""


async def gather(maker: Maker, task: Task, files: TreeFiles, rows: Sequence[int]) -> None:
    """Bring the files that a task is made of, where remotes have to bring them and it is not made already.

    Raises nothing for one that cannot be had: whoever reads it is told.
    """
    if len(rows) < 2 or not files.has_remotes or maker.sizes(task) is not None:
        return
    waiting = iter(dict.fromkeys(rows))

    async def bring() -> None:
        for row in waiting:
            try:
                brought = await files.bring(row, LARGEST)
            except StoreError:
                continue
            if brought is not None:
                brought.opened.close()

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(bring)


async def make_each(
    maker: Maker, files: TreeFiles, tasks: Sequence[tuple[Task, Sequence[int]]]
) -> list[bytes]:
    """The one piece of each of these tasks, which are made of these rows; some are made at a time.

    Raises as `Maker.piece`, for the first that fails.
    """
    made: dict[int, bytes] = {}
    errors: list[StoreError] = []
    waiting = iter(enumerate(tasks))

    async def make() -> None:
        for number, (task, rows) in waiting:
            try:
                await gather(maker, task, files, rows)
                made[number] = await maker.piece(task, 0)
            except StoreError as error:
                errors.append(error)
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for _ in range(MADE_AT_ONCE):
            nursery.start_soon(make)
    if errors:
        raise errors[0]
    return [made[number] for number in range(len(tasks))]
