"""`Products`: what was made, kept in a cache by key, a file (`store.making.product`) each, evictable at will.

A file is `fusefs/derived/<kk>/<rest of the key>` below the cache. What is damaged is dropped and made again.

`open_now` belongs to the event loop and does not wait; the rest is blocking, any thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from store.errors import CacheUnusable
from store.fetching.arrivals import Arrivals
from store.keeping.leases import hold
from store.making.product import (
    AT_ONCE,
    LONGEST_REASON,
    Damaged,
    Entry,
    Product,
    Refused,
    pack_table,
    read_at,
    read_table,
    write_fully,
)
from store.openat2 import open_beneath

BELOW: Final = "fusefs/derived"
MARKED_SECONDS: Final = 3600.0
"""A product that is used is marked so at most so often, for whoever evicts."""

log = logging.getLogger(__name__)


class Products:
    """The products that are kept in the cache at `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._arrivals = Arrivals(root, below=BELOW)
        self._lock = threading.Lock()
        self._directory = -1

    def new(self, key: str, count: int) -> Product:
        """An empty one; in memory where the cache cannot be written to. Raises `CacheUnusable`."""
        try:
            descriptor, path = self._arrivals.new_file()
        except CacheUnusable:
            return self.new_in_memory(key, count)
        return Product(key, descriptor, path, count, grows=True)

    def new_in_memory(self, key: str, count: int) -> Product:
        """An empty one that is never kept. Raises `CacheUnusable`."""
        try:
            descriptor = os.memfd_create("fusefs-product")
        except OSError as error:
            raise CacheUnusable(f"there is no room for what is made: {error.strerror}") from None
        return Product(key, descriptor, None, count, grows=True)

    def grown(self, product: Product) -> Product:
        """A copy to which more pieces can be written; an empty one where it cannot be copied. Raises
        `CacheUnusable`."""
        copy = self.new(product.key, product.count)
        try:
            for begin in range(0, product.end, AT_ONCE):
                part = read_at(product.descriptor, begin, min(product.end - begin, AT_ONCE), 0)
                write_fully(copy.descriptor, part, begin)
        except (OSError, Damaged):
            self.discard(copy)
            return self.new_in_memory(product.key, product.count)
        copy.entries, copy.end = dict(product.entries), product.end
        return copy

    def publish(self, product: Product) -> int:
        """Keep what there is of it: how many bytes the file has. Raises `CacheUnusable`; then it is dropped
        and can be read as long as it is open."""
        assert product.path is not None
        table = pack_table(product)
        path, product.path = product.path, None
        product.grows = False
        size = product.end + len(table)
        try:
            write_fully(product.descriptor, table, product.end)
            os.ftruncate(product.descriptor, size)  # a worker that was killed may have written more
            self._arrivals.put(place(product.key), path, product.descriptor)
        except (OSError, CacheUnusable) as error:
            self._arrivals.discard(path)
            if isinstance(error, CacheUnusable):
                raise
            raise CacheUnusable(f"a product cannot be kept: {error.strerror}") from None
        hold(product.descriptor)
        return size

    def receive(
        self, key: str, count: int, parts: Iterable[bytes], largest: int, *, to_keep: bool = True
    ) -> Product:
        """A product from elsewhere, of at most so many bytes: its file in parts. All of it is verified; it
        can be read and, where it is to be kept, published.

        Raises `Damaged` for what is not a whole product of that key and of `count` pieces (0: any number),
        `CacheUnusable`, and what iterating raises.
        """
        product = self.new(key, count) if to_keep else self.new_in_memory(key, count)
        try:
            size = 0
            for part in parts:
                size += len(part)
                if size > largest:
                    raise Damaged
                write_fully(product.descriptor, part, size - len(part))
            read_table(product, 0)
            if not product.is_whole or not self.is_sound(product):
                raise Damaged
        except OSError as error:
            self.discard(product)
            raise CacheUnusable(f"there is no room for a product: {error.strerror}") from None
        except BaseException:
            self.discard(product)
            raise
        product.grows = False
        return product

    def is_sound(self, product: Product) -> bool:
        """Are all pieces what their hashes say, and no more than the file? Blocking; any thread."""
        entries = [entry for entry in product.entries.values() if isinstance(entry, Entry)]
        if sum(entry.length for entry in entries) > product.end:
            return False
        try:
            for entry in entries:
                product.read(entry)
        except Damaged:
            return False
        return all(
            len(entry.reason) <= LONGEST_REASON
            for entry in product.entries.values()
            if isinstance(entry, Refused)
        )

    def discard(self, product: Product) -> None:
        """It will not be published. It can be read as long as it is open."""
        product.grows = False
        if product.path is not None:
            self._arrivals.discard(product.path)
            product.path = None

    def open_now(self, key: str, count: int) -> Product | None:
        """As `open`. Raises `BlockingIOError` where that would wait for the disk."""
        if self._directory < 0:
            raise BlockingIOError
        try:
            descriptor = open_beneath(self._directory, os.fsencode(f"{BELOW}/{place(key)}"), cached=True)
        except FileNotFoundError:
            return None
        except OSError:
            raise BlockingIOError from None
        return self._read(key, count, descriptor, os.RWF_NOWAIT)

    def open(self, key: str, count: int) -> Product | None:
        """A product of `count` pieces, 0 for any number, that is kept; None where there is none, or a damaged
        one, which is dropped."""
        try:
            descriptor = open_beneath(self._open_root(), os.fsencode(f"{BELOW}/{place(key)}"))
        except OSError:
            return None
        return self._read(key, count, descriptor, 0)

    def drop(self, key: str) -> None:
        """Delete a product that is damaged."""
        with contextlib.suppress(OSError):
            (self._root / BELOW / place(key)).unlink()

    def prepare(self) -> None:
        """Clear away what dead processes left of products. Raises `CacheUnusable`."""
        self._arrivals.prepare()

    def close(self) -> None:
        self._arrivals.close()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def _open_root(self) -> int:
        with self._lock:
            if self._directory < 0:
                self._directory = os.open(self._root, os.O_PATH | os.O_CLOEXEC)
            elif not os.path.samestat(os.fstat(self._directory), self._root.stat()):
                # The cache was moved away. The number stays: the loop may be about to use it.
                moved = os.open(self._root, os.O_PATH | os.O_CLOEXEC)
                os.dup2(moved, self._directory, inheritable=False)
                os.close(moved)
            return self._directory

    def _read(self, key: str, count: int, descriptor: int, flags: int) -> Product | None:
        product = Product(key, descriptor, None, count, grows=False)
        try:
            read_table(product, flags)
        except BlockingIOError:
            raise
        except (OSError, Damaged):
            log.warning("a kept product, %s, is damaged; it is made again", key)
            self.drop(key)
            return None
        hold(descriptor)
        with contextlib.suppress(OSError):  # somebody else's
            if time.time() - os.fstat(descriptor).st_mtime > MARKED_SECONDS:
                os.utime(descriptor)
        return product


def place(key: str) -> str:
    """Where the product of a key lies below `BELOW`."""
    return f"{key[:2]}/{key[2:]}"
