"""`MadeProducts`: how much of what views would show of a video or a folder is in the cache.

Asks the cache for the products of views by their keys, and makes none but indexes. On the event loop.
Caller: `fusefs media`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from fusefs.materializing import Recipe, parse_recipe, plan_tasks
from fusefs.views.kinds import parse_view
from store.engine import Engine
from store.errors import StoreError
from store.making.products import Products
from store.making.tasks import Task
from store.making.used_views import noted_views
from store.media.recipe import FramesRecipe
from store.tree_files import TreeFiles

ASKED_AT_ONCE: Final = 256
"""Products that one thread looks for."""
MOST_NOTED: Final = 16
"""Views that are asked for although nobody has named them."""


def views_of_cache(engine: Engine) -> list[str]:
    """The views that were used with this cache. Blocking."""
    found = []
    for view in noted_views(engine.settings.caches[0])[:MOST_NOTED]:
        try:
            if parse_view(view) == view and not view.startswith("shards:"):
                found.append(view)
        except ValueError:
            continue  # the list is anybody's who may write to the cache
    return found


class MadeProducts:
    """The products of some views (`KIND:RECIPE`): those that were named, and others if there is anything."""

    def __init__(self, engine: Engine, files: TreeFiles, named: Sequence[str], others: Sequence[str]) -> None:
        self._engine = engine
        self._files = files
        self._named = frozenset(named)
        self._recipes: dict[str, Recipe] = {view: parse_recipe(view) for view in (*named, *others)}
        self._products = Products(engine.settings.caches[0])

    async def count(self, row: int) -> Mapping[str, tuple[int, int]]:
        """By view: products that are whole and here, and products that there would be."""
        is_folder = self._files.tree.is_directory(row)
        found = {}
        for view, recipe in self._recipes.items():
            if is_folder and isinstance(recipe, FramesRecipe):
                continue
            try:
                count, groups = await plan_tasks(
                    self._engine, self._files, recipe, row, self._engine.maker.index
                )
            except StoreError:
                continue  # what is wrong with it is told where it is described
            here = await self._count_here(groups)
            if here or view in self._named:
                found[view] = (here, count)
        return found

    async def _count_here(self, groups: Iterator[list[Task]]) -> int:
        here = 0
        batch: list[Task] = []
        for group in groups:
            batch += group
            if len(batch) >= ASKED_AT_ONCE:
                here += await self._engine.threads.on_disk(self._count_whole, batch)
                batch = []
        return here + await self._engine.threads.on_disk(self._count_whole, batch)

    def _count_whole(self, tasks: Sequence[Task]) -> int:
        found = (self._products.open(task.key, task.pieces) for task in tasks)
        return sum(product is not None and product.is_whole for product in found)

    def close(self) -> None:
        self._products.close()
