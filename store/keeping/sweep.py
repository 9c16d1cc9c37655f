"""A sweep: what is over the limits, or has not been used for too long, goes, in batches.

    sweep = Sweep(ledger, kinds)
    measured = sweep.measure()
    sweep.begin(limits)
    while (batch := sweep.next_batch()) is not None:
        sweep.drop(batch, confirmed)        # those objects of the batch that a remote was seen to have

An object goes only if we fetched it, a remote has just said that it has it in the same length, it has no
other name (a pin) and nobody has it open, and while no commit counts on the cache. Its row goes after it:
a crash in between leaves a row without an object.

Callers: the keeper of a daemon and `fusefs cache trim`; they ask the remotes between two calls. Blocking;
one thread at a time.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from store.budget import BLIND, Candidate, Foresight, Limits, order_victims
from store.keeping.cache_locks import EVICTING, sole
from store.keeping.deleting import Fate, delete_file, fate_of, open_root
from store.keeping.kinds import Item, Kind
from store.keeping.records import Fetched, Totals
from store.layouts import object_path
from store.ledger import Ledger
from store.oid import Oid
from store.oplog.changes import note_changes

BATCH: Final = 256
"""Things at a time: a commit waits for so many deletions at most."""
LOOKS: Final = 4096
"""Things that are looked at for a batch at most, so that no call is long."""
RESTS: Final = 120.0
"""Seconds for which an object that could not go is not tried again."""
MAX_RESTING: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Stock:
    """How much there is of one kind. Bytes on the disk; `oldest` use in seconds since the epoch."""

    name: str
    place: Path
    count: int
    bytes: int
    oldest: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that we keep."""

    objects: Totals
    stocks: tuple[Stock, ...]
    free: int
    """Bytes free on the cache's disk, -1 where that cannot be told."""

    @property
    def kept(self) -> int:
        return self.objects.bytes + sum(stock.bytes for stock in self.stocks)


@dataclass(frozen=True, slots=True)
class Part:
    """An item and the kind that it is of."""

    kind: Kind
    item: Item


Thing = Fetched | Part


@dataclass(slots=True)
class Outcome:
    """What a sweep has done so far."""

    objects: int = 0
    others: int = 0
    freed: int = 0
    """Bytes on the disk."""
    kept: dict[str, int] = field(default_factory=dict)
    """Why things had to stay, and how many: a `Fate`'s value, or `unconfirmed`, `busy`."""
    finished: bool = False
    """The limits are kept."""


UNCONFIRMED: Final = "unconfirmed"
BUSY: Final = "busy"


class Sweep:
    """Sweeps one cache, again and again."""

    def __init__(
        self,
        ledger: Ledger,
        kinds: Sequence[Kind],
        *,
        clock: Callable[[], float] = time.time,
        foresight: Foresight = BLIND,
        grace: float = 0.0,
    ) -> None:
        """For `grace` seconds after it has come, no object goes."""
        self._foresight = foresight
        self._grace = grace
        self._ledger = ledger
        self._kinds = kinds
        self._clock = clock
        self._resting: OrderedDict[Oid, float] = OrderedDict()
        self._victims: Iterator[Candidate[Thing]] = iter(())
        self._aged: list[Part] = []
        self._over = 0
        self._short = 0
        self._elsewhere: set[str] = set()
        self._dry = False
        self.outcome = Outcome()

    def measure(self) -> Measured:
        """Look at all that we keep."""
        self._ledger.flush()
        stocks = tuple(_take_stock(kind, list(kind.items())) for kind in self._kinds)
        return Measured(self._ledger.totals(), stocks, free_bytes(self._ledger.cache))

    def begin(self, limits: Limits, *, dry: bool = False) -> Measured:
        """Plan what goes so that the limits are kept, and what is too old; what is kept until then."""
        self._ledger.flush()
        self._ledger.settle_clock()
        now = self._clock()
        totals, free = self._ledger.totals(), free_bytes(self._ledger.cache)
        stocks: list[Stock] = []
        once: list[Candidate[Thing]] = []
        again: list[Candidate[Thing]] = []
        self._aged = []
        for kind in self._kinds:
            items = list(kind.items())
            stocks.append(_take_stock(kind, items))
            for item in items:
                part = Part(kind, item)
                if kind.max_age and item.used < now - kind.max_age:
                    self._aged.append(part)
                else:
                    segment = again if kind.counts_as_used_again else once
                    segment.append(Candidate(part, item.on_disk, min(item.used, now)))
        measured = Measured(totals, tuple(stocks), free)
        again_bytes = totals.again + sum(candidate.on_disk for candidate in again)
        usual = order_victims(
            _merge(once, _objects(self._ledger, again=False)),
            _merge(again, _objects(self._ledger, again=True)),
            again_bytes,
            limits.size or measured.kept,
        )
        self._victims = self._after_spent(usual)
        self._over = measured.kept - limits.size if limits.size else 0
        self._short = limits.free - free if limits.free and free >= 0 else 0
        here = _device(self._ledger.cache)
        self._elsewhere = {kind.name for kind in self._kinds if _device(kind.place) != here}
        self._dry = dry
        self.outcome = Outcome(finished=self._missing <= 0)
        return measured

    def _after_spent(self, usual: Iterator[Candidate[Thing]]) -> Iterator[Candidate[Thing]]:
        """All candidates, each once: first those that readers have just been done with."""
        seen: set[Oid] = set()
        while spent := self._foresight.take_spent(1):  # what is taken and stays would not be told again
            for fetched in self._ledger.find(spent):
                seen.add(fetched.oid)
                yield Candidate(fetched, fetched.on_disk, fetched.used)
        for candidate in usual:
            if not (isinstance(candidate.thing, Fetched) and candidate.thing.oid in seen):
                yield candidate

    @property
    def _missing(self) -> int:
        """Bytes that are still to be freed; none where it is not positive."""
        return max(self._over, self._short)

    def _count(self, thing: Thing) -> None:
        """It is deleted."""
        size = _size(thing)
        self.outcome.freed += size
        self._over -= size
        if isinstance(thing, Fetched):
            self.outcome.objects += 1
            self._short -= size
        else:
            self.outcome.others += 1
            self._short -= 0 if thing.kind.name in self._elsewhere else size

    def next_batch(self) -> list[Thing] | None:
        """What should go next, as far as can be seen from here; None when all is done that can be."""
        batch: list[Thing] = []
        if self._aged:
            batch += self._aged[:BATCH]
            del self._aged[:BATCH]
            return batch
        self.outcome.finished = self._missing <= 0
        if self.outcome.finished:
            return None
        planned = 0
        with _opened(self._ledger.cache) as root:
            for _ in range(LOOKS):
                if planned >= self._missing or len(batch) == BATCH:
                    break
                victim = next(self._victims, None)
                if victim is None:
                    return batch or None
                if self._would_go(root, victim.thing):
                    batch.append(victim.thing)
                    planned += victim.on_disk
        return batch

    def drop(self, batch: Sequence[Thing], confirmed: Collection[Oid]) -> None:
        """Delete a batch, of its objects those that are `confirmed` by a remote."""
        chosen = []
        for thing in batch:
            if isinstance(thing, Part):
                if self._dry or thing.kind.drop(thing.item) is Fate.FREE:
                    self._count(thing)
            elif thing.oid in confirmed:
                chosen.append(thing)
            else:
                self._rest(thing, UNCONFIRMED)
        if chosen:
            self._drop_objects(chosen)

    def _drop_objects(self, chosen: Sequence[Fetched]) -> None:
        cache = self._ledger.cache
        with _opened(cache) as root, sole(cache, EVICTING) as undisturbed:
            if not undisturbed:
                for fetched in chosen:
                    self._rest(fetched, BUSY)
                return
            # A commit that ended meanwhile has taken some of the rows.
            still = self._ledger.find([fetched.oid for fetched in chosen])
            gone = []
            for fetched in still:
                delete = fate_of if self._dry else delete_file
                fate = delete(root, object_path(fetched.oid), fetched.size)
                if fate is Fate.FREE:
                    self._count(fetched)
                    gone.append(fetched.oid)
                else:
                    self._leave(fetched, fate)
            if not self._dry:
                self._ledger.disown(gone)
                note_changes(root, gone=gone)

    def _would_go(self, root: int, thing: Thing) -> bool:
        if isinstance(thing, Part):
            if self._over <= 0 and thing.kind.name in self._elsewhere:
                return False  # it would not help the disk that is short of room
            return thing.kind.fate_of(thing.item) is Fate.FREE
        until = self._resting.get(thing.oid)
        if until is not None:
            if until - RESTS <= self._clock() < until:
                return False
            del self._resting[thing.oid]
        now = self._clock()
        if self._foresight.is_wanted(thing.oid) or now - self._grace < thing.arrived <= now:
            return False
        fate = fate_of(root, object_path(thing.oid), thing.size)
        if fate is not Fate.FREE:
            self._leave(thing, fate)
        return fate is Fate.FREE

    def _leave(self, fetched: Fetched, fate: Fate) -> None:
        """An object that could not go; one that is no more is forgotten."""
        if fate is not Fate.GONE:
            self._rest(fetched, fate.value)
            return
        self._over -= fetched.on_disk
        if not self._dry:
            self._ledger.disown([fetched.oid])

    def _rest(self, fetched: Fetched, why: str) -> None:
        self.outcome.kept[why] = self.outcome.kept.get(why, 0) + 1
        self._resting[fetched.oid] = self._clock() + RESTS
        self._resting.move_to_end(fetched.oid)
        while len(self._resting) > MAX_RESTING:
            self._resting.popitem(last=False)


def _objects(ledger: Ledger, *, again: bool) -> Iterator[Candidate[Thing]]:
    for fetched in ledger.by_use(again=again):
        yield Candidate(fetched, fetched.on_disk, fetched.used)


def free_bytes(path: Path) -> int:
    """Bytes that an ordinary user may still write there, or where that is to be; -1 where nobody can tell."""
    for place in (path, *path.parents):
        try:
            found = os.statvfs(place)
        except FileNotFoundError:
            continue
        except OSError:
            break
        return found.f_bavail * found.f_frsize
    return -1


def _device(path: Path) -> int:
    try:
        return path.stat().st_dev
    except OSError:
        return -1


def _size(thing: Thing) -> int:
    return thing.on_disk if isinstance(thing, Fetched) else thing.item.on_disk


def _take_stock(kind: Kind, items: Sequence[Item]) -> Stock:
    oldest = min((item.used for item in items), default=None)
    return Stock(kind.name, kind.place, len(items), sum(item.on_disk for item in items), oldest)


def _merge(items: list[Candidate[Thing]], objects: Iterator[Candidate[Thing]]) -> Iterator[Candidate[Thing]]:
    """Both, least recently used first."""
    return heapq.merge(sorted(items, key=_used), objects, key=_used)


def _used(candidate: Candidate[Thing]) -> float:
    return candidate.used


@contextlib.contextmanager
def _opened(cache: Path) -> Iterator[int]:
    root = open_root(cache)
    try:
        yield root
    finally:
        os.close(root)
