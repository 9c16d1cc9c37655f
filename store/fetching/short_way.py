"""`ShortWay`: how most small objects come: the courier is sent and comes back, and all is as usual.

A task of its own for each of thousands of objects, with a deadline and a place among those who ask, costs
more than the rest of what the loop does for them. So where nothing stands in the way a flight has none until
something is not as usual: the remote takes long, or says anything but the object. Then a task goes on from
there. Belongs to the event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from store.fetching.asking import Attempt, NotAsked
from store.fetching.courier import Courier
from store.fetching.download import WHOLE_LIMIT, Fetched, Large, Wanted
from store.fetching.flight import Answer, Busy, Flight
from store.fetching.publisher import Publisher
from store.fetching.remote_set import WHOLE_SECONDS
from store.pace import DiskPace
from store.remotes.remote import Remote
from store.threads import Job

WATCH_SECONDS: Final = 0.05
"""So often it is looked whether a remote takes unusually long."""


class ShortWay:
    """Of one daemon. `land` is given what came, and `go_on` the flights that need a task."""

    def __init__(
        self,
        nursery: trio.Nursery,
        courier: Courier,
        publisher: Publisher,
        pace: DiskPace,
        land: Callable[[Flight, Fetched | Large], object],
        go_on: Callable[[Flight], object],
    ) -> None:
        self._nursery = nursery
        self._courier = courier
        self._publisher = publisher
        self._pace = pace
        self._land = land
        self._go_on = go_on
        self._under_way: set[Flight] = set()
        self._is_watching = False

    def take(self, flight: Flight) -> bool:
        """Have the object brought, if the courier can be sent at once; whether it was sent."""
        if flight.limit > WHOLE_LIMIT or not (
            self._courier.is_there
            and self._pace.is_local
            and self._publisher.has_room_now()
            and flight.remotes.is_ready(flight.oid)
            and flight.hold.take()
        ):
            return False
        until = time.monotonic() + WHOLE_SECONDS
        wanted = Wanted(
            flight.oid, flight.limit, flight.keep, until, flight.in_memory, known=flight.known, look=True
        )

        def start(remote: Remote, ended: Callable[[Job[Answer]], object]) -> Job[Answer] | None:
            return self._courier.call_now(remote, wanted, ended)

        flight.attempt = flight.remotes.begin_first(flight.oid, start, partial(self._arrive, flight))
        if flight.attempt is None:
            return False
        self._under_way.add(flight)
        if not self._is_watching:
            self._is_watching = True
            self._nursery.start_soon(self._watch)
        return True

    def _arrive(self, flight: Flight, attempt: Attempt[Answer]) -> None:
        """The courier is back."""
        try:
            result = attempt.value()
        except NotAsked as shortcut:
            result = shortcut.value
            attempt.member.shared.health.withdraw()
        except Exception:  # whatever it is: the task knows what to do about it
            self._give_task(flight, attempt)
            return
        else:
            attempt.praise(flight.oid)
        assert not isinstance(result, Busy)  # the courier does not know of others
        attempt.forget()
        flight.attempt = None  # which knows the flight: a circle would keep what it brought
        self._under_way.discard(flight)
        self._land(flight, result)

    async def _watch(self) -> None:
        """Send a task after every flight whose remote takes unusually long."""
        while self._under_way:
            await trio.sleep(WATCH_SECONDS)
            now = trio.current_time()
            for flight in tuple(self._under_way):
                if flight.attempt is not None and now >= flight.attempt.hedge_at:
                    self._give_task(flight, flight.attempt)
        self._is_watching = False

    def _give_task(self, flight: Flight, attempt: Attempt[Answer]) -> None:
        self._under_way.discard(flight)
        attempt.listener = _ignore
        self._go_on(flight)


def _ignore(_: object) -> None:
    """Whoever takes over sees that it has ended."""
