"""`Keeper`: keeps one cache within its budget while a daemon serves from it.

It writes down what was fetched and used, a little later and together, and sweeps when the budget is
pressed, asking remotes whether they have what is to go. One daemon of those that share a cache sweeps at a
time; each by its own limits, so the narrowest holds. What was unused for too long goes even without limits.

Lives on the event loop; its disk work is done in DISK threads. `note_arrival`, `note_use` and `may_keep`
wait for nothing and are for any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import trio

from store.budget import BLIND, Budget, Foresight, Limits
from store.errors import ObjectMissing, StoreError
from store.fetching.remote_set import RemoteSet
from store.keeping.cache_locks import SWEEPING, sole
from store.keeping.confirmation import AT_ONCE, ask_size
from store.keeping.kinds import kinds_of_cache, kinds_of_user
from store.keeping.records import Fetched
from store.keeping.sweep import Sweep, Thing, free_bytes
from store.ledger import Ledger
from store.oid import Oid
from store.threads import Threads

log = logging.getLogger(__name__)

Find = Callable[[str], Sequence[RemoteSet]]
"""Who may be believed about an object, by its remote's identity (`KnownRemotes.find`)."""

FLUSH_SECONDS: Final = 1.0
"""What a daemon that dies forgets of arrivals and uses."""
MEASURE_SECONDS: Final = 600.0
"""Others that share the cache bring things, too."""
DRY_SECONDS: Final = 60.0
"""After a sweep that did not reach its goal: nothing will have changed earlier."""
AGEING_SECONDS: Final = 24 * 3600.0
FIRST_AGEING_SECONDS: Final = 300.0
"""A mount has better things to do in the beginning."""
CONFIRM_SECONDS: Final = 20.0
FAILURES: Final = 4
"""Remotes that fail so often in one batch are not asked further."""


class Keeper:
    """The keeper of the cache at `cache`; `own` is the user's directory of trees, clones and blobs."""

    def __init__(
        self,
        cache: Path,
        own: Path,
        limits: Limits,
        threads: Threads,
        find: Find,
        foresight: Foresight = BLIND,
        grace: float = 0.0,
    ) -> None:
        self.ledger = Ledger(cache)
        self.budget = Budget(limits)
        if limits.free:  # what is kept takes a while to find out, and objects come meanwhile
            self.budget.measured(0, free_bytes(cache))
        self._kinds = (*kinds_of_cache(cache), *kinds_of_user(own))
        self._foresight = foresight
        self._grace = grace
        self.after_sweep: Callable[[], Awaitable[None]] | None = None
        """Awaited when objects were deleted, before what is free is measured: to let go of them."""
        self._sweep = self._new_sweep()
        self.is_measured = trio.Event()
        """The budget knows what is kept, or there are no limits."""
        if not limits.are_set:
            self.is_measured.set()
        self._threads = threads
        self._find = find
        self._measure_at = self._age_at = self._sweep_at = 0.0

    def _new_sweep(self) -> Sweep:
        return Sweep(self.ledger, self._kinds, foresight=self._foresight, grace=self._grace)

    def note_arrival(self, oid: Oid, size: int, remote: str) -> None:
        """An object that was not there has been published; `remote` is `RemoteSpec.identity`, empty for
        several. Any thread."""
        self.ledger.arrived(oid, size, remote)
        self.budget.added(size)

    def note_use(self, oid: Oid) -> None:
        """An object of the cache has been opened."""
        self.ledger.used((oid,))

    def may_keep(self, size: int) -> bool:
        """May an object of so many bytes be kept?"""
        return self.budget.may_keep(size)

    def close(self) -> None:
        """Write down what was noted last, when `run` has ended. Blocking."""
        self.ledger.close()

    async def run(self) -> None:
        """Keep until cancelled. What goes wrong is logged; nothing is raised."""
        self._age_at = trio.current_time() + FIRST_AGEING_SECONDS
        while True:
            try:
                await self.attend()
            except (StoreError, OSError) as error:
                log.warning("the budget of the cache %s: %s", self.ledger.cache, error)
                # A thread that was late may still be at it.
                self._sweep = self._new_sweep()
            except Exception:  # a bug costs the budget a turn, not the mount
                log.exception("the budget of the cache %s", self.ledger.cache)
            await trio.sleep(FLUSH_SECONDS)

    async def attend(self) -> None:
        """What is due now."""
        now = trio.current_time()
        if self.ledger.is_waiting:
            await self._threads.on_disk(self.ledger.flush)
        if self.budget.limits.are_set and now >= self._measure_at:
            await self._measure()
        ageing = now >= self._age_at
        if ageing or (now >= self._sweep_at and self.budget.limits.are_set and self.budget.is_pressed):
            await self._tidy(self.budget.goal)

    async def _measure(self) -> None:
        self.budget.begin_measurement()
        measured = await self._threads.on_disk(self._sweep.measure)
        self.budget.measured(measured.kept, measured.free)
        self.is_measured.set()
        self._measure_at = trio.current_time() + MEASURE_SECONDS

    def _drop(self, batch: Sequence[Thing], confirmed: Collection[Oid]) -> int:
        """In a thread: delete a batch; what is free then."""
        self._sweep.drop(batch, confirmed)
        return free_bytes(self.ledger.cache)

    async def _tidy(self, goal: Limits) -> None:
        """Sweep, unless another process does."""
        with ExitStack() as stack:
            alone = await self._threads.on_disk(stack.enter_context, sole(self.ledger.cache, SWEEPING))
            if alone:
                await self._threads.on_disk(self._sweep.begin, goal)
                while (batch := await self._threads.on_disk(self._sweep.next_batch)) is not None:
                    wanted = [thing for thing in batch if isinstance(thing, Fetched)]
                    confirmed = await confirm(wanted, self._find)
                    freed = self._sweep.outcome.freed
                    free = await self._threads.on_disk(self._drop, batch, confirmed)
                    self.budget.freed(self._sweep.outcome.freed - freed, free)
                if self._sweep.outcome.objects and self.after_sweep is not None:
                    await self.after_sweep()
        now = trio.current_time()
        if alone:
            self._age_at = now + AGEING_SECONDS
        await self._measure()
        outcome = self._sweep.outcome
        if not alone or not outcome.finished:
            self._sweep_at = now + (DRY_SECONDS if alone else FLUSH_SECONDS)
        if alone and (outcome.objects or outcome.others or not outcome.finished):
            log.info(
                "the budget of the cache %s: %d objects and %d other things went, %d bytes; %s",
                self.ledger.cache,
                outcome.objects,
                outcome.others,
                outcome.freed,
                "within its limits" if outcome.finished else f"not within its limits, stayed: {outcome.kept}",
            )


async def confirm(objects: Sequence[Fetched], find: Find) -> set[Oid]:
    """Those of `objects` that their remotes have now, in the same length. Raises nothing."""
    confirmed: set[Oid] = set()
    waiting = [(fetched, remote) for fetched in objects for remote in find(fetched.remote)]
    waiting.reverse()
    failures = 0

    async def ask() -> None:
        nonlocal failures
        while waiting and failures < FAILURES:
            fetched, remote = waiting.pop()
            if fetched.oid in confirmed:
                continue
            question = partial(ask_size, fetched.oid)
            try:
                size = await remote.run(fetched.oid, question, deadline=CONFIRM_SECONDS, question=True)
            except ObjectMissing:
                continue
            except StoreError:
                failures += 1
            else:
                if size == fetched.size:
                    confirmed.add(fetched.oid)

    async with trio.open_nursery() as nursery:
        for _ in range(min(AT_ONCE, len(waiting))):
            nursery.start_soon(ask)
    return confirmed
