"""The pictures of a contact sheet: some of each video and of each folder's images, made by the workers.

Belongs to the event loop. Caller: `fusefs media`.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from fusefs.contact_sheet import CELL, MOST_HEIGHT, Section, height_of
from fusefs.media_survey import AT_ONCE, Item
from store.errors import StoreError
from store.making.maker import Maker
from store.making.tasks import RowOrigin, Task
from store.making.thumbnails_maker import frames_task, image_task
from store.tree_files import TreeFiles


def spread(count: int, most: int) -> list[int]:
    """At most so many numbers below `count`, as evenly as they go, from the middle of equal parts."""
    wanted = min(count, most)
    return [(2 * place + 1) * count // (2 * wanted) for place in range(wanted)]


async def collect_sections(
    maker: Maker, files: TreeFiles, items: Sequence[Item], pictures: int
) -> list[Section]:
    """Sections for the items, in their order, as many as a sheet holds. What cannot be had is empty."""
    fitting = items[: max(1, MOST_HEIGHT // height_of(pictures))]
    found: dict[int, Section] = {}
    limit = trio.Semaphore(AT_ONCE)

    async def collect(place: int) -> None:
        item = fitting[place]
        if item.is_video:
            found[place] = await _video(maker, RowOrigin(files, item.rows[0]), pictures)
        else:
            found[place] = await _images(maker, files, item, pictures)
        limit.release()

    async with trio.open_nursery() as nursery:
        for place in range(len(fitting)):
            await limit.acquire()
            nursery.start_soon(collect, place)
    return [found[place] for place in range(len(fitting))]


async def _video(maker: Maker, origin: RowOrigin, pictures: int) -> Section:
    index = await maker.index(origin)
    numbers = spread(index.frame_count, pictures)
    task = frames_task(origin, numbers, *CELL)
    label = f"{origin.name}   {index.frame_count} frames, {index.duration():.4g} s, {index.codec}"
    return Section(label, [await _piece(maker, task, number) for number in range(len(numbers))])


async def _images(maker: Maker, files: TreeFiles, item: Item, pictures: int) -> Section:
    rows = [item.rows[place] for place in spread(len(item.rows), pictures)]
    label = f"{item.path}/   {len(item.rows)} images" if item.is_folder else item.path
    made = [await _piece(maker, image_task(RowOrigin(files, row), *CELL), 0) for row in rows]
    return Section(label, made)


async def _piece(maker: Maker, task: Task, number: int) -> bytes:
    try:
        return await maker.piece(task, number)
    except StoreError:
        return b""
