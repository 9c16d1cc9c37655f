"""What media a version holds: `survey` looks at its videos and images, and tells of them in their order.

Of a video its index is read or made, so of a remote one only what an index takes is fetched. Images are told
of by folder, and of the first of each what its header says: a million headers would be a million requests.

Belongs to the event loop. Caller: `fusefs media`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

import numpy as np
import trio

from fusefs.made_products import MadeProducts
from store.errors import StoreError
from store.making.image_maker import Picture, image_facts_task, read_facts
from store.making.maker import Maker
from store.making.tasks import RowOrigin
from store.media.index import VideoIndex
from store.media.ordering import IMAGE, VIDEO, kind_of
from store.tree import UNKNOWN
from store.tree_files import TreeFiles

AT_ONCE: Final = 16
"""Files that are asked about at a time: most of that is waiting for remotes."""


@dataclass(frozen=True, slots=True)
class Item:
    """A video, or the images of a folder, or one image."""

    path: str
    rows: Sequence[int]
    is_video: bool
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """An item, and what is known of it. `bytes` is None where a size is not known."""

    item: Item
    bytes: int | None
    index: VideoIndex | None = field(default=None, repr=False)
    """Of a video."""
    picture: Picture | None = None
    """Of images the first one's."""
    made: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """View (`KIND:RECIPE`) → products of it that are in the cache, products that there would be."""
    error: StoreError | None = None


def key_frame_gaps(index: VideoIndex) -> tuple[int, int]:
    """The median and the longest run of frames from a key frame to the next one, or to the end."""
    gaps = np.diff(np.append(index.key_frames(), index.frame_count))
    return (int(np.median(gaps)), int(gaps.max())) if len(gaps) else (0, 0)


def displayed_size(index: VideoIndex) -> tuple[int, int]:
    """Width and height in pixels as displayed."""
    width, height = index.width, index.height
    return (height, width) if index.rotation % 180 else (width, height)


def list_items(files: TreeFiles, rows: Sequence[int], *, each: bool) -> list[Item]:
    """The media among these rows, by path; with `each`, every image for itself."""
    tree = files.tree
    items, folders = [], dict[str, list[tuple[str, int]]]()
    for row in rows:
        if tree.is_symlink(row):
            continue
        path = tree.path(row)
        kind = kind_of(path)
        if kind == VIDEO or (kind == IMAGE and each):
            items.append(Item(path, (row,), kind == VIDEO))
        elif kind == IMAGE:
            parent = str(PurePosixPath(path).parent)
            folders.setdefault(parent, []).append((path, row))
    for folder, images in folders.items():
        items.append(Item(folder, [row for _, row in sorted(images)], is_video=False, is_folder=True))
    return sorted(items, key=lambda item: os.fsencode(item.path))


async def survey(
    maker: Maker,
    files: TreeFiles,
    items: Sequence[Item],
    made: MadeProducts,
    tell: Callable[[Found], object],
) -> None:
    """Look at every item, several at a time, and `tell` what is known of each in their order.

    Of what cannot be had its error is told.
    """
    window = trio.Semaphore(AT_ONCE)
    found: dict[int, Found] = {}
    told = 0

    async def look(place: int) -> None:
        nonlocal told
        found[place] = await _look(maker, files, items[place], made)
        while told in found:
            tell(found.pop(told))
            told += 1
            window.release()

    async with trio.open_nursery() as nursery:
        for place in range(len(items)):
            await window.acquire()
            nursery.start_soon(look, place)


async def _look(maker: Maker, files: TreeFiles, item: Item, made: MadeProducts) -> Found:
    try:
        origin = RowOrigin(files, item.rows[0])
        if item.is_video:
            index = await maker.index(origin)
            return Found(item, await origin.size(), index=index, made=await made.count(origin.row))
        size = await _size(files, item)
        picture = read_facts(await maker.piece(image_facts_task(origin), 0))
        counted = await made.count(files.tree.parent[origin.row]) if item.is_folder else {}
        return Found(item, size, picture=picture, made=counted)
    except StoreError as error:
        return Found(item, _known_size(files, item), error=error)


async def _size(files: TreeFiles, item: Item) -> int | None:
    """Of a folder's images what this machine knows: a remote would have to be asked for each."""
    if not item.is_folder:
        return await files.size(item.rows[0])
    known = item.rows[0]
    for row in item.rows:
        if row >= known and files.size_now(row) == UNKNOWN:
            known = await files.learn_around(row)
    return _known_size(files, item)


def _known_size(files: TreeFiles, item: Item) -> int | None:
    sizes = [files.sizes[row] for row in item.rows]
    return None if UNKNOWN in sizes else sum(sizes)
