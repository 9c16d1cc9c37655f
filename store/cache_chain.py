"""`CacheChain`: several cache directories asked in order, the first of them as fast as if it were alone.

A version may need more than its own cache: imported data may lie in the cache that it came from, and
what was removed from a cache may still be held by pins. An object's name is its content's hash, so it
does not matter which of them has it.

Callers: `store.content_store`, what composes versions. Thread rule: safe from any; the directories are
a tuple that is only ever replaced by a longer one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from store.errors import CacheUnusable, ObjectCorrupt, ObjectMissing
from store.local_cache import LocalCache
from store.oid import Oid
from store.tree import UNKNOWN

T = TypeVar("T")


class ObjectCache(Protocol):
    """Where objects are looked for; the methods are those of `LocalCache`."""

    def open(self, oid: Oid) -> tuple[int, int]: ...

    def try_open(self, oid: Oid) -> tuple[int, int]: ...

    def size(self, oid: Oid) -> int: ...

    def try_size(self, oid: Oid) -> int: ...

    def lengths(self, digests: Sequence[str], algorithm: str) -> list[int]: ...

    def has(self, oid: Oid) -> bool: ...


class CacheChain:
    """An `ObjectCache` of one or more. What none of them has is reported as the first one says it."""

    def __init__(self, first: LocalCache, *others: LocalCache) -> None:
        self._caches = (first, *others)

    @property
    def caches(self) -> tuple[LocalCache, ...]:
        return self._caches

    def add(self, cache: LocalCache) -> None:
        """Look there as well from now on, after all others."""
        self._caches = (*self._caches, cache)

    def close(self) -> None:
        for cache in self._caches:
            cache.close()

    def open(self, oid: Oid) -> tuple[int, int]:
        return self._ask(lambda cache: cache.open(oid))

    def try_open(self, oid: Oid) -> tuple[int, int]:
        """Of the first one alone: where it cannot tell, a thread asks them all."""
        return self._try(lambda cache: cache.try_open(oid))

    def size(self, oid: Oid) -> int:
        return self._ask(lambda cache: cache.size(oid))

    def try_size(self, oid: Oid) -> int:
        """As `try_open`."""
        return self._try(lambda cache: cache.try_size(oid))

    def lengths(self, digests: Sequence[str], algorithm: str) -> list[int]:
        found = self.look_at(digests, algorithm)
        return [UNKNOWN if status is None else status.st_size for status in found]

    def look_at(self, digests: Sequence[str], algorithm: str) -> list[os.stat_result | None]:
        first, *others = self._caches
        found = first.look_at(digests, algorithm)
        for cache in others:
            gaps = [place for place, status in enumerate(found) if status is None]
            if not gaps:
                break
            told = cache.look_at([digests[place] for place in gaps], algorithm)
            for place, status in zip(gaps, told, strict=True):
                found[place] = status
        return found

    def has(self, oid: Oid) -> bool:
        return any(cache.has(oid) for cache in self._caches)

    def read(self, oid: Oid) -> bytes:
        """A small object whole (a manifest). Raises as `LocalCache.open` does."""
        return self._ask(lambda cache: cache.read(oid))

    def _ask(self, question: Callable[[LocalCache], T]) -> T:
        refusal: ObjectMissing | ObjectCorrupt | CacheUnusable | None = None
        for cache in self._caches:
            try:
                return question(cache)
            except (ObjectMissing, ObjectCorrupt, CacheUnusable) as error:
                refusal = refusal or error
        assert refusal is not None  # there is a first
        raise refusal

    def _try(self, question: Callable[[LocalCache], T]) -> T:
        try:
            return question(self._caches[0])
        except (ObjectMissing, ObjectCorrupt, CacheUnusable):
            if len(self._caches) == 1:
                raise
            raise BlockingIOError from None
