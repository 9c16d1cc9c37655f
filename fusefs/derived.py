"""`find_products`: what was made of a version's media and is in the cache, for a backup to take along.

As `fusefs media` tells of it: whole products of the views that were used with the cache, and the indexes of
videos that they need. Makes none but indexes. Blocking; runs a loop. Caller: `fusefs backup`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from fusefs.dataset import Dataset, Request
from fusefs.interruption import Interrupted
from fusefs.made_products import ASKED_AT_ONCE, views_of_cache
from fusefs.materializing import find_sources, parse_recipe, plan_tasks
from fusefs.opened_version import read_version
from store.backup.format import LARGEST_PRODUCT
from store.backup.writing import Kept
from store.engine import Engine
from store.errors import StoreError
from store.making.products import Products
from store.making.tasks import Task
from store.tree import Tree
from store.tree_files import TreeFiles


@dataclass(slots=True)
class Derived:
    """Products, and the views (`KIND:RECIPE`) that they are of."""

    views: list[str] = field(default_factory=list)
    products: list[Kept] = field(default_factory=list)


def find_products(request: Request, dataset: Dataset) -> Derived:
    """Raises `StoreError`, `Interrupted`."""
    found = Derived()
    if dataset.tree is None:
        return found
    tree = Tree.open(dataset.tree)

    async def look(engine: Engine, files: TreeFiles) -> None:
        products = Products(engine.settings.caches[0])
        for view in await engine.threads.on_disk(views_of_cache, engine):
            kept = await _find(engine, files, view, products)
            if kept:
                found.views.append(view)
                found.products += kept

    came = trio.run(partial(read_version, request, dataset, tree, look))
    if came:
        raise Interrupted(came)
    return found


async def _find(engine: Engine, files: TreeFiles, view: str, products: Products) -> list[Kept]:
    recipe = parse_recipe(view)
    rows = await engine.threads.on_disk(find_sources, files.tree, recipe, (), "")
    kept: list[Kept] = []
    for row in rows:
        try:
            _, groups = await plan_tasks(engine, files, recipe, row, engine.maker.index)
        except StoreError:
            continue  # nothing can have been made of it
        batch: list[Task] = []
        for group in groups:
            batch += [task for made in group for task in (made, *made.needs)]
            if len(batch) >= ASKED_AT_ONCE:
                kept += await engine.threads.on_disk(_kept, products, batch)
                batch = []
        kept += await engine.threads.on_disk(_kept, products, batch)
    return kept


def _kept(products: Products, tasks: Sequence[Task]) -> list[Kept]:
    found = []
    for key, pieces in {task.key: task.pieces for task in tasks}.items():
        product = products.open(key, pieces)
        if product is not None and product.is_whole and product.size <= LARGEST_PRODUCT:
            found.append(Kept(products, key, product.size))
    return found
