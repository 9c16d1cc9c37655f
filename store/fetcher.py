"""`Fetcher`: turns a miss into an object of the cache, once, however many readers wait for it.

A source brings an object whole into the cache that it belongs to. Flights live in the fetcher's
nursery, not in a reader's task: a reader that gives up does not take the others' fetch with it.

Thread rule: the flights belong to the loop; a source runs in a worker thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import trio

from store.errors import StoreError
from store.oid import Oid
from store.threads import Threads


class Source(Protocol):
    """Where objects come from."""

    def bring(self, oid: Oid) -> None:
        """Publish the object, whole and verified, where the cache looks for it. Blocking.

        Raises `ObjectMissing` where the source does not have it, `ObjectCorrupt` where what it has
        is something else, `CacheUnusable` where it cannot be kept, `StoreTimeout`.
        """


@dataclass(slots=True)
class _Flight:
    landed: trio.Event = field(default_factory=trio.Event)
    error: StoreError | None = None


class Fetcher:
    """Single flight over sources. One per daemon."""

    def __init__(self, threads: Threads, nursery: trio.Nursery) -> None:
        self._threads = threads
        self._nursery = nursery
        self._flights: dict[Oid, _Flight] = {}

    def start_soon(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Run something beside the flights. It must not raise."""
        self._nursery.start_soon(work, *arguments)

    async def bring(self, oid: Oid, source: Source, has: Callable[[Oid], bool] | None = None) -> None:
        """Return when the object is in the cache. Raises what the source raised, to every waiter alike.

        `has` looks once more whether it is there, in the thread that would bring it: a flight may have landed
        between a waiter's own look and now.
        """
        flight = self._flights.get(oid)
        if flight is None:
            flight = self._flights[oid] = _Flight()

            def work(oid: Oid) -> None:
                if has is None or not has(oid):
                    source.bring(oid)

            self._nursery.start_soon(self._fly, oid, work, flight)
        await flight.landed.wait()
        if flight.error is not None:
            raise type(flight.error)(*flight.error.args)

    async def _fly(self, oid: Oid, bring: Callable[[Oid], None], flight: _Flight) -> None:
        try:
            await self._threads.on_disk(bring, oid)
        except StoreError as error:
            flight.error = error
        except Exception as error:  # a source's bug must reach its readers as an error, not end the daemon
            flight.error = StoreError(f"object {oid}: {type(error).__name__}: {error}")
        finally:
            del self._flights[oid]
            flight.landed.set()
