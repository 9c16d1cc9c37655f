"""What a commit names is the user's own, also where fusefs had fetched it before: it is never evicted.

While a commit counts on what it finds in the cache nothing is evicted there; in the end the ledger of what
was fetched forgets what the commit names. Used by `version`; blocking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from store.keeping.cache_locks import has_locks, keep_away_eviction
from store.ledger import Ledger
from store.manifest import Entry
from store.oid import Oid

EVICTION_SECONDS: Final = 30.0
"""An eviction in batches lets go of its lock every few milliseconds."""

Claim = Callable[[Oid, Sequence[Entry]], tuple[str, ...]]


@contextmanager
def claim_objects(cache: Path) -> Iterator[Claim]:
    """Within, nothing that is found in the cache is evicted. What it gives is called with the version and
    its entries when all of them are there, and returns a warning where that does not hold for later."""
    ledger = Ledger(cache, create=False)
    if not (ledger.path.exists() or has_locks(cache)):
        # Whoever makes one meanwhile fetched what it names then, and not before.
        yield lambda oid, entries: _disown(ledger, oid, entries) if ledger.path.exists() else ()
        return
    with closing(ledger), keep_away_eviction(cache, EVICTION_SECONDS):
        yield lambda oid, entries: _disown(ledger, oid, entries) if ledger.path.exists() else ()


def _disown(ledger: Ledger, oid: Oid, entries: Sequence[Entry]) -> tuple[str, ...]:
    if ledger.commit_ended([oid, *(Oid(entry.md5) for entry in entries)]):
        return ()
    return (
        f"{ledger.path} cannot be written: what fusefs had fetched of this version may be evicted; "
        "it stays on its remote",
    )
