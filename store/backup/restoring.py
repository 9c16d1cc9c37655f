"""`restore_objects`: a backup's objects into a cache, proved, durable, by renames; `verify_backup` without.

What was restored before is passed over, so an interrupted restore is run again. A damaged object is named
and left out, the others come, also where the backup is cut short: whoever has nothing else gets what there
is. Blocking; one thread and those of an `Unpacker`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from store.backup.format import LARGEST_PRODUCT
from store.backup.reading import BackupReader, Member, ObjectMember, ProductMember
from store.backup.unpacking import Unpacked, open_unpacker
from store.errors import CacheUnusable, InputError
from store.local_cache import LocalCache
from store.making.product import Damaged
from store.making.products import Products


@dataclass(slots=True)
class Restored(Unpacked):
    """What became of a backup's objects, and of its products."""

    products: int = 0
    """Products of views that were restored."""
    products_here: int = 0
    damaged_products: list[str] = field(default_factory=list)
    """By key."""
    fault: str = ""
    """Why not all of the backup could be read."""


Told = Callable[[int, int], None]
"""Told how many members, and bytes of them, have been read."""


def verify_backup(reader: BackupReader, told: Told) -> Restored:
    """Read and prove all of a backup."""
    return _unpack(reader, None, told, with_products=True)


def restore_objects(
    reader: BackupReader, cache: LocalCache, told: Told, *, with_products: bool = True
) -> Restored:
    """Bring the objects of a backup into the cache, and the products. Raises `CacheUnusable`."""
    return _unpack(reader, cache.root, told, with_products=with_products)


def _unpack(reader: BackupReader, cache: Path | None, told: Told, *, with_products: bool) -> Restored:
    found = Restored()
    with (
        closing(Products(Path(os.devnull) if cache is None else cache)) as products,
        open_unpacker(cache, found) as unpacker,
    ):
        try:
            for member in _told(reader.members(), told):
                if isinstance(member, ObjectMember):
                    unpacker.put(member.size, member.pieces(), member.oid)
                elif isinstance(member, ProductMember) and with_products:
                    _receive(member, products, found, keep=cache is not None)
        except InputError as error:
            found.fault = str(error)
        unpacker.settle()
    return found


def _told(members: Iterator[Member], told: Told) -> Iterator[Member]:
    done = size = 0
    for member in members:
        yield member
        done, size = done + 1, size + member.size
        told(done, size)


def _receive(member: ProductMember, products: Products, found: Restored, *, keep: bool) -> None:
    """Check a product, and keep it."""
    if keep:
        there = products.open(member.key, 0)
        if there is not None and there.is_whole:
            found.products_here += 1
            return
    try:
        product = products.receive(member.key, 0, member.pieces(), LARGEST_PRODUCT, to_keep=keep)
    except Damaged:
        found.damaged_products.append(member.key)
        return
    if keep and product.path is None:
        raise CacheUnusable("a product cannot be kept: the cache cannot be written to")
    if keep:
        products.publish(product)
    found.products += 1
    found.bytes += member.size
