"""`restore_objects`: a backup's objects into a cache, proved, durable, by renames; `verify_backup` without.

What was restored before is passed over, so an interrupted restore is run again. A damaged object is named
and left out, the others come: whoever has nothing else gets what there is. Blocking; one thread and one more
that hashes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from store.backup.format import LARGEST_PRODUCT
from store.backup.reading import BackupReader, Member, ObjectMember, ProductMember
from store.errors import CacheUnusable, InputError, ObjectCorrupt
from store.fetching.arrivals import Arrival, Arrivals
from store.hashing import Hasher
from store.local_cache import LocalCache
from store.making.products import Damaged, Products
from store.manifest import check_manifest
from store.oid import Oid

TOGETHER: Final = 256
"""Objects that are made durable together, or"""
TOGETHER_BYTES: Final = 64 << 20
MANIFEST_LIMIT: Final = 1 << 32


@dataclass(slots=True)
class Restored:
    """What became of a backup's objects."""

    restored: int = 0
    here: int = 0
    """That the cache had."""
    bytes: int = 0
    """Of what was restored."""
    damaged: list[Oid] = field(default_factory=list)
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
    found = Restored()
    products = Products(Path(os.devnull))  # it keeps none
    with ThreadPoolExecutor(1, thread_name_prefix="verify") as thread:
        for member in _members(reader, found, told):
            if isinstance(member, ProductMember):
                _receive(member, products, found, keep=False)
            elif not isinstance(member, ObjectMember):
                continue
            elif _prove(member, thread, lambda _: None):
                found.restored += 1
                found.bytes += member.size
            else:
                found.damaged.append(member.oid)
    return found


def restore_objects(
    reader: BackupReader, cache: LocalCache, told: Told, *, with_products: bool = True
) -> Restored:
    """Bring the objects of a backup into the cache, and the products. Raises `CacheUnusable`."""
    found = Restored()
    products = Products(cache.root)
    arrivals = Arrivals(cache.root)
    batch = Batch(arrivals, found)
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="restore") as thread:
            for member in _members(reader, found, told):
                if isinstance(member, ProductMember):
                    if not with_products:
                        continue
                    there = products.open(member.key, 0)
                    if there is not None and there.is_whole:
                        found.products_here += 1
                    else:
                        _receive(member, products, found, keep=True)
                    continue
                if not isinstance(member, ObjectMember):
                    continue
                if _is_here(cache, member):
                    found.here += 1
                    continue
                if member.oid.is_tree:
                    batch.admit()  # a manifest comes behind what it names
                descriptor, path = arrivals.new_file()
                try:
                    is_right = _prove(member, thread, partial(write_piece, cache, descriptor))
                except BaseException:
                    arrivals.discard(path)
                    os.close(descriptor)
                    raise
                if is_right:
                    batch.add(Arrival(member.oid, path, descriptor), member.size)
                else:
                    found.damaged.append(member.oid)
                    arrivals.discard(path)
                    os.close(descriptor)
        batch.admit()
    finally:
        batch.close()
        arrivals.close()
        products.close()
    return found


class Batch:
    """Files on their way into the cache."""

    def __init__(self, arrivals: Arrivals, found: Restored) -> None:
        self._arrivals = arrivals
        self._found = found
        self._waiting: list[Arrival] = []
        self._bytes = 0

    def add(self, arrival: Arrival, size: int) -> None:
        self._waiting.append(arrival)
        self._bytes += size
        if len(self._waiting) >= TOGETHER or self._bytes >= TOGETHER_BYTES:
            self.admit()

    def admit(self) -> None:
        """Make all of them objects. Raises `CacheUnusable`."""
        failures = self._arrivals.admit_all(self._waiting) if self._waiting else []
        failure = next((failure for failure in failures if failure is not None), None)
        if failure is not None:
            raise failure
        self._found.restored += len(self._waiting)
        self._found.bytes += self._bytes
        self._forget()

    def close(self) -> None:
        for arrival in self._waiting:
            self._arrivals.discard(arrival.path)
        self._forget()

    def _forget(self) -> None:
        for arrival in self._waiting:
            os.close(arrival.descriptor)
        self._waiting, self._bytes = [], 0


def _members(reader: BackupReader, found: Restored, told: Told) -> Iterator[Member]:
    """The members, up to where the backup is damaged in itself."""
    done = size = 0
    try:
        for member in reader.members():
            yield member
            done, size = done + 1, size + member.size
            told(done, size)
    except InputError as error:
        found.fault = str(error)


def _receive(member: ProductMember, products: Products, found: Restored, *, keep: bool) -> None:
    """Check a product, and keep it."""
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


def _is_here(cache: LocalCache, member: ObjectMember) -> bool:
    (length,) = cache.lengths([str(member.oid)], member.oid.algorithm)
    return length == member.size


def _prove(member: ObjectMember, thread: ThreadPoolExecutor, put: Callable[[bytes], None]) -> bool:
    """Read a member, `put` what comes, and tell whether it is the object."""
    if member.oid.is_tree:
        return _prove_manifest(member, put)
    hasher = Hasher(member.oid.algorithm)
    hashing: Future[None] | None = None
    for piece in member.pieces():
        if hashing is not None:
            hashing.result()
        if member.size == len(piece):
            hasher.update(piece)
        else:
            hashing = thread.submit(hasher.update, piece)
        put(piece)
    if hashing is not None:
        hashing.result()
    return hasher.matches(member.oid)


def _prove_manifest(member: ObjectMember, put: Callable[[bytes], None]) -> bool:
    if member.size > MANIFEST_LIMIT:
        return False
    data = b"".join(member.pieces())
    put(data)
    try:
        check_manifest(data, member.oid)
    except ObjectCorrupt:
        return False
    return True


def write_piece(cache: LocalCache, descriptor: int, data: bytes) -> None:
    """Write to a file on its way into the cache. Raises `CacheUnusable`."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise CacheUnusable(f"cannot write to the cache {str(cache.root)!r}: {error.strerror}") from None
