"""`Forgetting`: when the kernel is told to forget the names that nobody uses, so that it looks anew.

There are two reasons. It has found an object in memory (`fusefs.native.fresh`), which stays there as long as
it remembers the name. Or it has us read what it could find in a cache by now. To look anew costs it some
requests of us for each name, of all that it knows; so it is left alone while missing objects keep coming,
unless the memory or the readers cannot wait so long.

Lives on the event loop.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from fusefs.native.fresh import Fresh
from fusefs.native.stream import Stream

FULL: Final = 0.5
"""So much of the memory in use, and the kernel is to forget at once."""
LITTLE: Final = 1 / 16
"""For no more than that it is not told at all."""
LOOK_SECONDS: Final = 0.1
QUIET_LOOK_SECONDS: Final = 1.0
"""While nothing comes, and all that is waited for is that readers let go."""
IDLE_SECONDS: Final = 2.0
"""After so long without a missing object that comes."""
FULL_REST_SECONDS: Final = 1.0
"""What readers have open, or the disk does not have, stays in memory whatever the kernel is told: it is told
again then, and less and less often."""
PATIENCE_SECONDS: Final = 20.0
"""How long readers go without the kernel's own reading where they never are idle."""
REST_SECONDS: Final = 20.0
LONGEST_REST_SECONDS: Final = 600.0
"""Where it finds something in vain again and again, a cache that it does not see for instance."""


class Forgetting:
    """Of one mount. `forget_unused` tells the kernel; `is_read` says whether anybody reads through us, whose
    file would not be looked for anew; `stream` is of what comes, `fresh` what the kernel may have found in
    memory."""

    def __init__(
        self,
        forget_unused: Callable[[], Awaitable[None]],
        is_read: Callable[[], bool],
        stream: Stream,
        fresh: Fresh | None,
    ) -> None:
        self._forget_unused = forget_unused
        self._is_read = is_read
        self._stream = stream
        self._fresh = fresh
        self._wanted = trio.Event()
        self._has_shown = False
        self._late_since = math.inf
        self._shown = self._forgot = self._rested = -math.inf
        self._rest = REST_SECONDS
        self._full_rest = FULL_REST_SECONDS

    def note_shown(self) -> None:
        """What has just come is in memory, where the kernel may find it."""
        if self._fresh is None:
            return
        self._has_shown = True
        self._shown = trio.current_time()
        self._wanted.set()

    def find_anew(self) -> None:
        """Something is in the caches that the kernel has us read, because it was not when it looked."""
        self._late_since = min(self._late_since, trio.current_time())
        self._wanted.set()

    async def run(self) -> None:
        """Tell the kernel whenever it is due. Until cancelled."""
        while True:
            await self._wanted.wait()
            await trio.sleep(LOOK_SECONDS)
            self._wanted = trio.Event()
            while self._has_shown or self._late_since < math.inf:
                now, used = trio.current_time(), self._used()
                is_quiet = self._is_idle(now) and self._late_since == math.inf
                if self._is_due(now, used):
                    self._begin_anew(now)
                    await self._forget_unused()
                    self._look_what_stays(used)
                elif is_quiet and used <= LITTLE:
                    self._has_shown = False
                else:
                    await trio.sleep(QUIET_LOOK_SECONDS if is_quiet else LOOK_SECONDS)

    def _used(self) -> float:
        return self._fresh.used() if self._fresh is not None else 0.0

    def _is_idle(self, now: float) -> bool:
        return now >= max(self._shown, self._stream.latest) + IDLE_SECONDS

    def _is_due(self, now: float, used: float) -> bool:
        is_idle = self._is_idle(now)
        has_rested = now >= self._forgot + self._full_rest
        if self._has_shown and has_rested and (used >= FULL or (is_idle and used > LITTLE)):
            return True
        has_waited = now >= self._late_since + PATIENCE_SECONDS
        is_settled = is_idle and now >= self._late_since + IDLE_SECONDS and not self._is_read()
        return now >= self._rested and (is_settled or has_waited)

    def _begin_anew(self, now: float) -> None:
        if self._late_since < math.inf:
            is_in_vain = self._late_since < self._rested and self._stream.latest < self._forgot
            self._rest = min(2 * self._rest, LONGEST_REST_SECONDS) if is_in_vain else REST_SECONDS
            self._rested = now + self._rest
        self._has_shown, self._late_since, self._forgot = False, math.inf, now

    def _look_what_stays(self, before: float) -> None:
        """The kernel has been told, when so much of the memory was in use."""
        used = self._used()
        has_helped = used <= max(LITTLE, before / 2)
        self._full_rest = FULL_REST_SECONDS if has_helped else min(2 * self._full_rest, LONGEST_REST_SECONDS)
        self._has_shown |= used > LITTLE
