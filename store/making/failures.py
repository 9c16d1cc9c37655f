"""`Failures`: what failed a moment ago is not tried again at once.

A broken video is asked for by a thousand readers, and each try may cost a minute until a decoder that hangs
is killed. So an error is given again for some seconds to whoever wants the same product; where workers died
of several products of one origin, for somewhat longer to whoever wants anything of it.

Thread rule: belongs to the event loop.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import trio

from store.errors import MediaFailed, StoreError
from store.making.flight import source_of
from store.making.tasks import Task

SECONDS: Final = 3.0
STRIKES: Final = 3
STRUCK_SECONDS: Final = 20.0
"""From the last strike on; and so long a strike counts."""
MOST: Final = 1024


@dataclass(frozen=True, slots=True)
class _Failure:
    error: StoreError
    until: float
    strikes: int = 0
    """How many workers died of an origin; 0 for a product's own failure."""


class Failures:
    """What failed lately."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, _Failure] = OrderedDict()

    def note(self, task: Task, error: StoreError) -> None:
        """A task has failed."""
        now = trio.current_time()
        self._keep(task.key, _Failure(error, now + SECONDS))
        if isinstance(error, MediaFailed):
            origin = f"origin {source_of(task)}"
            before = self._failures.get(origin)
            strikes = before.strikes if before is not None and before.until > now else 0
            self._keep(origin, _Failure(error, now + STRUCK_SECONDS, strikes + 1))

    def check(self, task: Task) -> None:
        """Raises the error of which the task has just failed."""
        now = trio.current_time()
        for name in (task.key, f"origin {source_of(task)}"):
            found = self._failures.get(name)
            if found is not None and found.until > now and (not found.strikes or found.strikes >= STRIKES):
                raise found.error.with_traceback(None)

    def _keep(self, name: str, failure: _Failure) -> None:
        self._failures[name] = failure
        self._failures.move_to_end(name)
        while len(self._failures) > MOST:
            self._failures.popitem(last=False)
