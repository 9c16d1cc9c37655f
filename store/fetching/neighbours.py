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
    taken: list[Fetched] = []
    oids = list(along)
    if not oids:
        return taken
    # What is here stays as it is: it may be somebody else's, and not for us to evict.
    here = cache.lengths([oid.digest for oid in oids], oids[0].algorithm)
    for oid, length in zip(oids, here, strict=True):
        if length == UNKNOWN and locks.try_hold(oid):
            fetched = downloader.keep_in_memory(oid, along[oid], remote)
            if fetched is None:
                locks.release(oid)
                break
            taken.append(fetched)
    return taken


def let_go(taken: Iterable[Fetched], locks: FlightLocks) -> None:
    """They are not published after all."""
    for fetched in taken:
        locks.release(fetched.oid)
