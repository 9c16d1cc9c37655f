"""Objects that have just come, and are about to be opened by somebody who cannot be seen."""

from __future__ import annotations

from contextlib import closing

from store.budget import Limits
from store.keeping.records import Fetched
from store.keeping.sweep import Sweep
from store.ledger import Ledger
from tests.store.keeping.conftest import Cache


def test_what_has_just_come_stays_for_a_while(cache: Cache) -> None:
    old, new = cache.fetch(b"0" * 5000), cache.fetch(b"1" * 5000)  # a hundred seconds later
    now = cache.used + 5.0
    gone = set()
    with closing(Ledger(cache.root, clock=lambda: now)) as ledger:
        for wait in (0.0, 6.0):
            work = Sweep(ledger, (), clock=lambda wait=wait: now + wait, grace=10.0)
            work.begin(Limits(size=1))
            while (batch := work.next_batch()) is not None:
                work.drop(batch, {one.oid for one in batch if isinstance(one, Fetched)})
            gone = {oid for oid in (old, new) if not cache.path(oid).exists()}
            assert gone == ({old} if not wait else {old, new})
