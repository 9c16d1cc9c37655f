"""`Health`: how one remote has done lately: whether to ask it now, and when it takes unusually long.

Failures in a row open its circuit: it is left alone for a while, then one call may see whether it answers
again. A remote that says for how long it wants to be left alone is heeded at once.

Belongs to the event loop. Seconds are those of a clock that never jumps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from store.errors import RemoteDenied, RemoteError, RemoteSlow, RemoteUnreachable
from store.metrics import CLOSED, HALF_OPEN, OPEN

FAILURES: Final = 3
"""In a row; then the circuit opens."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
LONGEST_DENIED_PAUSE: Final = 5.0
"""A denial costs nobody much, and whoever gives us the right credentials wants to see that they are."""
DENIED_SECONDS: Final = 10.0
"""After an answer. Until then a denial is about an object: who may not list a bucket is denied what is not in
it."""
LONGEST_RETRY_AFTER: Final = 300.0
"""A remote that wants to be left alone for longer is asked again all the same."""
PROBE_SECONDS: Final = 60.0
"""A probe that has not come back by then stands in nobody's way any more."""

HEDGE_SECONDS: Final = 0.5
HEDGE_FACTOR: Final = 3.0
UNKNOWN_HEDGE_SECONDS: Final = 2.0
"""Before enough is known to say what is usual."""
_SAMPLES: Final = 8
_STEP: Final = 0.25
_SHARE: Final = 0.95
_HEDGE_CREDIT: Final = 0.1
"""A hedge in ten calls: a remote that is slow because it is busy must not be asked twice as much."""
_MOST_CREDIT: Final = 8.0

COUNTED: Final = (RemoteSlow, RemoteUnreachable, RemoteDenied)


class Health:
    """The circuit breaker of one remote, and its usual latency."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._failing_since = 0.0
        self._trouble: RemoteError | None = None
        self._is_open = False
        self._closed_until = 0.0
        self._answered_at = -DENIED_SECONDS
        self._pause = FIRST_PAUSE
        self._probe_since: float | None = None
        self._samples = 0
        self._usual = 0.0
        self._credit = _MOST_CREDIT / 2
        self.last_error: RemoteError = RemoteUnreachable("it has not been asked")
        """Why the circuit is open, where it is."""

    def state(self) -> str:
        """`closed`, `open` or `half-open`, as circuits are called."""
        if not self._is_open:
            return CLOSED
        return OPEN if self.pause() else HALF_OPEN

    def trouble(self) -> RemoteError | None:
        """What the last call failed with, if it failed as remotes do; None for one that is well."""
        return self._trouble

    def pause(self) -> float:
        """Seconds for which the remote is still to be left alone."""
        return max(0.0, self._closed_until - self._clock()) if self._is_open else 0.0

    def may_ask(self) -> bool:
        """May a call begin now? While the circuit is half open, one at a time."""
        if not self._is_open:
            return True
        if self.pause():
            return False
        return self._probe_since is None or self._clock() - self._probe_since > PROBE_SECONDS

    def is_gone(self, seconds: float) -> bool:
        """Is it left alone, and has not answered for so many seconds, though it was asked?"""
        return self.pause() > 0 and self._clock() - self._failing_since >= seconds

    def begin(self) -> None:
        """A call begins."""
        self._credit = min(self._credit + _HEDGE_CREDIT, _MOST_CREDIT)
        if self._is_open:
            self._probe_since = self._clock()

    def succeed(self, seconds: float | None = None) -> None:
        """A call was answered; after `seconds`, where they tell something of others."""
        self.reset()
        self._answered_at = self._clock()
        if seconds is not None:
            self._learn(seconds)

    def withdraw(self) -> None:
        """A call ended without telling anything of the remote."""
        self._probe_since = None

    def fail(self, error: RemoteError, seconds: float = 0.0) -> None:
        """A call failed, after `seconds`. Only failures of the remote and not of an object count."""
        was_probing = self._probe_since is not None
        self._probe_since = None
        if not isinstance(error, COUNTED):
            return
        if not self._failures:
            self._failing_since = self._clock() - seconds
        self._failures += 1
        self._trouble = error
        wanted = min(error.retry_after, LONGEST_RETRY_AFTER) if isinstance(error, RemoteSlow) else 0.0
        if wanted <= 0 and self._failures < FAILURES:
            return
        if self._is_open and not was_probing and wanted <= 0:
            return  # it began before the circuit opened
        if isinstance(error, RemoteDenied) and self._clock() - self._answered_at < DENIED_SECONDS:
            return
        pause = wanted if wanted > 0 else self._pause
        if wanted <= 0:
            longest = LONGEST_DENIED_PAUSE if isinstance(error, RemoteDenied) else LONGEST_PAUSE
            pause = min(pause, longest)
            self._pause = min(2 * self._pause, longest)
        self._is_open = True
        self._closed_until = max(self._closed_until, self._clock() + pause)
        self.last_error = error

    def reset(self) -> None:
        """Forget failures: the remote was opened anew."""
        self._failures = 0
        self._trouble = None
        self._is_open = False
        self._probe_since = None
        self._pause = FIRST_PAUSE

    @property
    def hedge_after(self) -> float:
        """After so many seconds a call takes unusually long."""
        if self._samples < _SAMPLES:
            return UNKNOWN_HEDGE_SECONDS
        return max(HEDGE_SECONDS, HEDGE_FACTOR * self._usual)

    def take_hedge(self) -> bool:
        """May one more call be made because another takes long? Says so for few of many."""
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def _learn(self, seconds: float) -> None:
        # About the 95th of a hundred: it rises quickly and falls slowly, in steps of the distance.
        self._samples += 1
        step = _STEP if seconds > self._usual else _STEP * (1 - _SHARE) / _SHARE
        self._usual += step * (seconds - self._usual)
