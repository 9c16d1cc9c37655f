"""What a request brought beside the object that it was made for, on its way into the cache.

Blocking; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from store.cache_chain import ObjectCache
from store.fetching.download import Downloader, Fetched
from store.fetching.flight_locks import FlightLocks
from store.oid import Oid
from store.remotes.remote import Remote
from store.tree import UNKNOWN


def take_along(
    along: Mapping[Oid, bytes], remote: Remote, cache: ObjectCache, locks: FlightLocks, downloader: Downloader
) -> list[Fetched]:
    """Those that nobody has or fetches and that there is room for, to be published; their locks are held.

    They are proved, and all of one algorithm.
    """
    held = [oid for oid in along if locks.try_hold(oid)]
    taken: list[Fetched] = []
    # What is here stays as it is: it may be somebody else's, and not for us to evict.
    here = cache.lengths([oid.digest for oid in held], held[0].algorithm) if held else []
    has_room = True
    for oid, length in zip(held, here, strict=True):
        fetched = None
        if length == UNKNOWN and has_room:
            fetched = downloader.keep_in_memory(oid, along[oid], remote)
            has_room = fetched is not None
        if fetched is not None:
            taken.append(fetched)
        else:
            locks.release(oid)
    return taken


def let_go(taken: Iterable[Fetched], locks: FlightLocks) -> None:
    """They are not published after all."""
    for fetched in taken:
        locks.release(fetched.oid)
