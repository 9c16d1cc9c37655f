"""`KnownRemotes`: the remotes of all versions that a daemon serves, each alone, to be asked before evicting.

Belongs to the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from store.fetching.remote_set import RemoteSet
from store.keeping.confirmation import SEVERAL, is_elsewhere
from store.remotes.spec import RemoteSpec


class KnownRemotes:
    """Remotes by identity, for the cache at `cache`; `make` makes a set of one."""

    def __init__(self, cache: Path, make: Callable[[RemoteSpec], RemoteSet]) -> None:
        self._cache = cache
        self._make = make
        self._sets: dict[str, RemoteSet] = {}

    def add(self, specs: Sequence[RemoteSpec]) -> None:
        """A version has these remotes; the newest of an identity has the newest credentials."""
        for spec in specs:
            if is_elsewhere(spec, self._cache):
                self._sets[spec.identity] = self._make(spec)

    def find(self, identity: str) -> Sequence[RemoteSet]:
        """Who may be believed to have an object that came from this remote."""
        if identity == SEVERAL:
            return tuple(self._sets.values())
        found = self._sets.get(identity)
        return () if found is None else (found,)
