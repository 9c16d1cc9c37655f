"""`Hints`: what the copies of logs in a cache say, for who reads: which remote has an object, and its size.

They are hints: an object that is not where they say is asked for elsewhere, and a size counts as if a remote
had told it. What is compiled is mapped when it is first wanted, and anew when it has changed; nothing here is
asked of a remote but by `refresh`.

Any thread; `has` waits for nothing, and is for the event loop.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from store.errors import StoreError
from store.oid import DVC_ALGORITHMS, Oid
from store.oplog.compiled import Compiled
from store.oplog.copies import LogCopies
from store.remotes.remote import Remote
from store.tree import UNKNOWN

LOOKED_SECONDS: Final = 5.0
"""For so long nobody looks whether something was compiled anew."""
ASKED_SECONDS: Final = 600.0
"""For so long a remote is not asked for new logs again."""
HERE_BYTES: Final = 2 << 20
"""Of logs: more of them are compiled by a process of their own, which gives its memory back."""
COMPILE_SECONDS: Final = 300.0
_COMMAND: Final = (sys.executable, "-P", "-m", "store.oplog.compiling")

log = logging.getLogger(__name__)


class Hints:
    """The logs in the cache at `cache`."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._copies = LogCopies(cache)
        self._lock = threading.Lock()
        self._known: Mapping[str, Compiled] = {}
        self._stamps: dict[str, tuple[int, int]] = {}
        self._looked_at = -LOOKED_SECONDS
        self._asked_at: dict[str, float] = {}

    def load(self, *, now: bool = False) -> None:
        """Map what is compiled, at once or unless that was done a moment ago. Blocking."""
        with self._lock:
            if not now and time.monotonic() - self._looked_at < LOOKED_SECONDS:
                return
            self._looked_at = time.monotonic()
            known = dict(self._known)
            stamps = {key: self._copies.stamp(key) for key in self._copies.remotes()}
            for key in known.keys() - stamps.keys():
                del known[key]
            for key, stamp in stamps.items():
                if self._stamps.get(key) != stamp:
                    compiled = self._copies.open(key)
                    if compiled is not None:
                        known[key] = compiled
                    else:
                        known.pop(key, None)
            self._stamps, self._known = stamps, known

    def has(self, key: str, oid: Oid) -> bool | None:
        """Does the remote have the object, by its logs? None where nothing is known of the remote."""
        compiled = self._known.get(key)
        return None if compiled is None else compiled.find(oid) is not None

    def sizes(self, digests: Sequence[bytes], algorithm: str) -> list[int]:
        """The lengths of files' objects; `UNKNOWN` for what no log tells. Blocking."""
        self.load()
        sizes = [UNKNOWN] * len(digests)
        if algorithm not in DVC_ALGORITHMS:
            return sizes
        places = range(len(digests))
        for compiled in self._known.values():
            places_left = [place for place in places if sizes[place] == UNKNOWN]
            found = compiled.sizes([digests[place] for place in places_left], algorithm)
            for place, size in zip(places_left, found, strict=True):
                sizes[place] = size
        return sizes

    def refresh(self, remote: Remote) -> bool:
        """Read the logs of a remote that are new; whether there were any. Not often; blocking.

        Raises `RemoteError`; what goes wrong here is no more than a line in the log.
        """
        key, storage = remote.key, remote.storage
        with self._lock:
            if time.monotonic() - self._asked_at.get(key, -ASKED_SECONDS) < ASKED_SECONDS:
                return False
            self._asked_at[key] = time.monotonic()
        if not self._copies.is_behind(key, storage):
            return False
        try:
            for owner in self._copies.fetch(key, remote.name, storage).owners:
                self._compile(owner)
        except (StoreError, OSError) as error:
            log.info("logs of %s: %s", remote.name, error)
        self.load(now=True)
        return True

    def _compile(self, key: str) -> None:
        if self._copies.weight(key) <= HERE_BYTES:
            self._copies.compile(key)
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            command = [*_COMMAND, str(self._cache), key]
            subprocess.run(command, stdin=subprocess.DEVNULL, timeout=COMPILE_SECONDS, check=False)
