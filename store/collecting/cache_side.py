"""`CacheCollection`: deletes of a cache what no kept revision names.

An object goes if it has been there for longer than a grace period, if nobody has it open or pinned, and if a
remote has just said that it has it: nothing is deleted that is not known to be elsewhere, unless the user
wants that. What a young manifest names stays with it: somebody may be about to record it. No commit counts on
the cache meanwhile.

Caller: `fusefs gc`. Blocking; the caller's thread watches, others ask remotes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Final

from store.collecting.asking import find_lacking
from store.collecting.kept import Kept, Manifests
from store.collecting.plan import Outcome, Plan, Progress, Thing, amount_of, in_order
from store.errors import LockTimeout, RemoteError
from store.keeping.cache_locks import EVICTING, sole
from store.keeping.deleting import Fate, delete_file, fate_of, open_root
from store.keeping.scrub import list_objects
from store.layouts import object_path
from store.ledger import Ledger
from store.local_cache import LocalCache
from store.oid import DVC_ALGORITHMS, Oid
from store.oplog.changes import note_changes
from store.pushing.crew import Crew
from store.pushing.lacking import Item
from store.remotes.remote import Remote

BATCH: Final = 256
"""Objects at a time: a commit waits for so many deletions at most."""
LOCK_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 0.05
_LOOKED_AT: Final = 4096

YOUNG: Final = "young"
UNPUSHED: Final = "unpushed"


class CacheCollection:
    """One collection of one cache."""

    def __init__(
        self,
        cache: Path,
        kept: Kept,
        manifests: Manifests,
        remotes: Sequence[Remote],
        *,
        grace: float,
        unpushed: bool = False,
        tick: Callable[[], object] = lambda: None,
        progress: Progress | None = None,
    ) -> None:
        """`remotes` may be believed that they have an object: none of them leads to the cache. `grace` is in
        seconds. With `unpushed` also what none of them has may go. `tick` is called a few times a second, to
        show `progress`."""
        self._tick = tick
        self._progress = progress or Progress()
        self.notes: list[str] = []
        """A line for each remote that could not be asked."""
        self._cache = cache
        self._kept = kept
        self._manifests = manifests
        self._remotes = remotes
        self._grace = grace
        self._unpushed = unpushed
        self._crew = Crew(tick)

    def plan(self) -> Plan:
        """Look at everything. Raises `InputError` for a young manifest that cannot be read."""
        there = list(self._list())
        unnamed = [item for item in there if item.oid not in self._kept]
        kept = amount_of(item for item in there if item.oid in self._kept)
        young = {item.oid for item in self._young(unnamed)}
        held = self._manifests.members(oid for oid in young if oid.is_tree)
        stays: dict[str, list[Item]] = {}
        free: list[Item] = []
        self._progress.begin("looking at what is not named", len(unnamed))
        with _opened(self._cache) if unnamed else nullcontext(-1) as root:
            for item in unnamed:
                if item.oid in young or item.oid in held:
                    stays.setdefault(YOUNG, []).append(item)
                    continue
                self._step()
                fate = fate_of(root, object_path(item.oid), item.size)
                if fate is Fate.FREE:
                    free.append(item)
                else:
                    stays.setdefault(fate.value, []).append(item)
        lacking = self._find_unpushed(free)
        if not self._unpushed:
            stays[UNPUSHED] = [item for item in free if item.oid in lacking]
            free = [item for item in free if item.oid not in lacking]
        amounts = {why: amount_of(items) for why, items in stays.items() if items}
        return Plan(amount_of(there), kept, in_order(Thing.of(*item) for item in free), amounts)

    def collect(self, plan: Plan, outcome: Outcome) -> None:
        """Delete. `outcome` is filled as it goes on. Raises `LockTimeout`, `OSError`."""
        with closing(Ledger(self._cache, create=False)) as ledger:
            for start in range(0, len(plan.garbage), BATCH):
                self._progress.begin("deleting", len(plan.garbage))
                self._progress.done = start
                self._tick()
                things = plan.garbage[start : start + BATCH]
                some = [Item(thing.oid, thing.size) for thing in things if thing.oid is not None]
                lacking = frozenset() if self._unpushed else self._find_unpushed(some)
                with self._undisturbed(), _opened(self._cache) as root:
                    gone = []
                    for item in some:
                        unpushed = item.oid in lacking
                        fate = Fate.FREE if unpushed else delete_file(root, object_path(item.oid), item.size)
                        if not unpushed and fate is Fate.FREE:
                            gone.append(item)
                        elif fate is not Fate.GONE:
                            why = UNPUSHED if unpushed else fate.value
                            outcome.left[why] = outcome.left.get(why, 0) + 1
                    ledger.disown(item.oid for item in gone)
                    note_changes(root, gone=[item.oid for item in gone])
                outcome.deleted += (Thing.of(*item) for item in gone)

    def _young(self, items: Sequence[Item]) -> Iterator[Item]:
        """Those that have got their names, or were touched, within the grace period."""
        since = time.time() - self._grace
        with closing(LocalCache(self._cache)) as cache:
            for algorithm in DVC_ALGORITHMS:
                ours = [item for item in items if item.oid.algorithm == algorithm]
                for start in range(0, len(ours), _LOOKED_AT):
                    some = ours[start : start + _LOOKED_AT]
                    found = cache.look_at([str(item.oid) for item in some], algorithm)
                    for item, status in zip(some, found, strict=True):
                        if status is not None and status.st_ctime > since:
                            yield item

    def _list(self) -> Iterator[Item]:
        self._progress.begin("listing the cache")
        for oid, size in list_objects(self._cache):
            self._step()
            yield Item(oid, size)

    def _step(self) -> None:
        self._progress.done += 1
        if self._progress.done % _LOOKED_AT == 0:
            self._tick()

    def _find_unpushed(self, items: Sequence[Item]) -> frozenset[Oid]:
        """Those that no remote says that it has in the same length."""
        left = list(items)
        for remote in self._remotes:
            if not left:
                break
            self._progress.begin(f"asking {remote.name}")
            try:
                lacking = find_lacking(remote, left, self._crew)
                left = [item for item in left if item.oid in lacking]
            except RemoteError as error:
                if str(error) not in self.notes:
                    self.notes.append(str(error))
        return frozenset(item.oid for item in left)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Within, no commit counts on what it finds in the cache. Raises `LockTimeout`."""
        until = time.monotonic() + LOCK_SECONDS
        while True:
            with sole(self._cache, EVICTING) as alone:
                if alone:
                    yield
                    return
            if time.monotonic() >= until:
                raise LockTimeout(
                    f"a commit, or somebody who makes room, has held the cache {self._cache} for "
                    f"{LOCK_SECONDS:.0f} s, or it cannot be written; try again later"
                )
            time.sleep(_RETRY_SECONDS)


@contextmanager
def _opened(cache: Path) -> Iterator[int]:
    root = open_root(cache)
    try:
        yield root
    finally:
        os.close(root)
