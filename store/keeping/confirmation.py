"""Does a remote still have what is about to be evicted? Only the very remote that it came from is believed.

Another one might be a directory that leads to the cache itself. Asked right before, because what was on a
remote may have been collected since, and DVC may have found the object in the cache and relied on it.

`ask_size` is the question; `confirm_now` asks it for commands, the keeper of a daemon by its own means.
Blocking; any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from store.errors import RemoteError
from store.keeping.records import Fetched
from store.oid import Oid
from store.remotes.remote import Remote

AT_ONCE: Final = 8
"""Questions; readers have some, too."""


def ask_size(oid: Oid, remote: Remote) -> int:
    """How long the object is there. Raises `RemoteError`."""
    return remote.size(oid)


def confirm_now(objects: Sequence[Fetched], remotes: Mapping[str, Remote]) -> set[Oid]:
    """Those of `objects` that their remotes, given by identity, have in the same length. Raises nothing."""

    def ask(fetched: Fetched) -> bool:
        try:
            return ask_size(fetched.oid, remotes[fetched.remote]) == fetched.size
        except RemoteError:
            return False

    known = [fetched for fetched in objects if fetched.remote in remotes]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return {
            fetched.oid for fetched, confirmed in zip(known, pool.map(ask, known), strict=True) if confirmed
        }
