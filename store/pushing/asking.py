"""`Patience`: a remote is asked again, after pauses that grow, for what may pass. Blocking; any thread."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, TypeVar

from store.errors import RemoteAbsent, RemoteSlow, RemoteUnreachable
from store.pushing.crew import Crew

T = TypeVar("T")

ATTEMPTS: Final = 4
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 30.0
"""Seconds. A remote that wants to be left alone for longer is asked no more."""


class Patience:
    """How often, and after which pauses; `crew` ends them."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def run(self, work: Callable[[], T]) -> T:
        """What `work` returns in the end. It may be run several times. Raises what it raises, `Stopped`."""
        pause = FIRST_PAUSE
        for attempt in range(ATTEMPTS):
            self._crew.check()
            try:
                return work()
            except RemoteAbsent:
                raise
            except (RemoteSlow, RemoteUnreachable) as error:
                wanted = error.retry_after if isinstance(error, RemoteSlow) else 0.0
                if attempt == ATTEMPTS - 1 or wanted > LONGEST_PAUSE:
                    raise
                self._crew.pause(max(wanted, pause * random.uniform(0.5, 1.5)))
                pause = min(4 * pause, LONGEST_PAUSE)
        raise AssertionError("it returned or raised")
