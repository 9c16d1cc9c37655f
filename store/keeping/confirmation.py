"""Does a remote still have what is about to be evicted? Only the very remote that it came from is believed.

Another one might be a directory that leads to the cache itself. Asked right before, because what was on a
remote may have been collected since, and DVC may have found the object in the cache and relied on it. An
object whose remote is not known, because several gave parts of it, is believed any remote that does not
lead to the cache.

`confirm_now` asks for commands, the keeper of a daemon by its own means. Blocking; any thread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from store.errors import RemoteError
from store.keeping.records import Fetched
from store.oid import Oid
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec

AT_ONCE: Final = 8
"""Questions; readers have some, too."""
SEVERAL: Final = ""
"""In place of an identity: several remotes gave the object."""


def is_elsewhere(spec: RemoteSpec, cache: Path) -> bool:
    """Is the remote no directory in the cache, nor one that the cache lies in?"""
    url = spec.url.removeprefix("file://")
    if not url.startswith("/"):
        return True
    there, here = Path(os.path.realpath(url)), Path(os.path.realpath(cache))
    return not there.is_relative_to(here) and not here.is_relative_to(there)


def ask_size(oid: Oid, remote: Remote) -> int:
    """How long the object is there now. Raises `RemoteError`."""
    return remote.confirm(oid)


def confirm_now(objects: Sequence[Fetched], remotes: Mapping[str, Remote]) -> set[Oid]:
    """Those of `objects` that their remotes have in the same length. Raises nothing.

    `remotes` are given by identity; none of them leads to the cache.
    """

    def ask(fetched: Fetched) -> bool:
        found = list(remotes.values()) if fetched.remote == SEVERAL else [remotes.get(fetched.remote)]
        return any(remote is not None and _has(remote, fetched) for remote in found)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(ask, objects)
        return {fetched.oid for fetched, confirmed in zip(objects, answers, strict=True) if confirmed}


def _has(remote: Remote, fetched: Fetched) -> bool:
    try:
        return ask_size(fetched.oid, remote) == fetched.size
    except RemoteError:
        return False
