"""`Unproved`: products that were made of bytes which nobody had hashed yet.

They are those of a large object that is still coming. When it is whole and right they are as good as any;
when it is not, they have to go. Thread rule: belongs to the event loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from store.oid import Oid

MOST: Final = 100_000
"""Products that are remembered: some ten megabytes."""


class Unproved:
    """Keys of products by what they were made of."""

    def __init__(self) -> None:
        self._keys: OrderedDict[str, frozenset[Oid]] = OrderedDict()
        self._refuted: OrderedDict[str, None] = OrderedDict()

    def note(self, key: str, oids: Iterable[Oid]) -> None:
        """Something of a product was made of these, which are not proved."""
        self._keys[key] = self._keys.pop(key, frozenset()) | frozenset(oids)
        self._refuted.pop(key, None)
        while len(self._keys) > MOST:
            self._keys.popitem(last=False)

    def holds(self, key: str) -> bool:
        """Was the product made of what is not proved?"""
        return key in self._keys

    def prove(self, oid: Oid) -> None:
        """The object is whole, and what it should be."""
        for key, oids in list(self._keys.items()):
            if oid in oids:
                if len(oids) == 1:
                    del self._keys[key]
                else:
                    self._keys[key] = oids - {oid}

    def refute(self, oid: Oid) -> list[str]:
        """Bytes of the object were wrong: the products that must go."""
        keys = [key for key, oids in self._keys.items() if oid in oids]
        for key in keys:
            del self._keys[key]
            self._refuted[key] = None
        while len(self._refuted) > MOST:
            self._refuted.popitem(last=False)
        return keys

    def is_refuted(self, key: str) -> bool:
        """Must it go, although it is on its way into the cache? Told once."""
        return self._refuted.pop(key, self) is None
