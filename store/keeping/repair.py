"""Repairing objects that *we* fetched and that went bad: the remote is asked again, the bad bytes put aside.

A good copy takes the bad one's place at once. Without one the bad one goes to `<cache>/fusefs/quarantine`,
so that the next reader fetches the object instead of being served wrong bytes. What a user committed is
never touched. Callers: `fusefs cache repair`. Blocking.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store.errors import CacheUnusable, RemoteError
from store.fetching.arrivals import QUARANTINE, Arrivals
from store.fetching.download import Downloader, Fetched, Wanted
from store.keeping.cache_locks import EVICTING, sole
from store.keeping.records import Fetched as Record
from store.keeping.records import open_home
from store.layouts import object_path
from store.ledger import Ledger
from store.openat2 import open_beneath
from store.oplog.changes import note_changes
from store.remotes.remote import Remote

SECONDS: Final = 3600.0
"""For one object."""
_LARGEST: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Repaired:
    """What became of an object that had gone bad."""

    record: Record
    remote: str
    """The remote that it was brought from; empty where it could not be."""
    failure: str
    """Why not, a line; empty where it could."""


class Repair:
    """Repairs objects of one cache from remotes, given by identity; the others are asked in their order."""

    def __init__(self, ledger: Ledger, remotes: Mapping[str, Remote]) -> None:
        self._ledger = ledger
        self._remotes = remotes
        self._arrivals = Arrivals(ledger.cache)
        self._downloader = Downloader(self._arrivals)

    def close(self) -> None:
        self._arrivals.close()

    def run(self, records: Sequence[Record]) -> list[Repaired]:
        """Repair what was found corrupt. Raises `CacheUnusable` where the cache cannot be written."""
        return [self._repair(record) for record in records]

    def _repair(self, record: Record) -> Repaired:
        failure = "no remote is known that could have it"
        first = [remote for identity, remote in self._remotes.items() if identity == record.remote]
        for remote in [*first, *(one for one in self._remotes.values() if one not in first)]:
            try:
                fetched = self._fetch(record, remote)
            except RemoteError as error:
                failure = str(error)
                continue
            self._replace(record, fetched)
            return Repaired(record, remote.name, "")
        self._replace(record, None)
        return Repaired(record, "", failure)

    def _fetch(self, record: Record, remote: Remote) -> Fetched:
        wanted = Wanted(record.oid, _LARGEST, keep=True, until=time.monotonic() + SECONDS)
        fetched = self._downloader.download(remote, wanted)
        if isinstance(fetched, Fetched) and fetched.data is not None:
            fetched = self._downloader.write(fetched)
        if not isinstance(fetched, Fetched) or fetched.path is None:
            raise CacheUnusable(f"cannot write to the cache {self._ledger.cache}; make room in it")
        return fetched

    def _replace(self, record: Record, fetched: Fetched | None) -> None:
        """Put the bad file aside, and the good one in its place. No commit counts on either meanwhile."""
        with sole(self._ledger.cache, EVICTING) as undisturbed:
            if not undisturbed or not self._ledger.find([record.oid]):
                if fetched is not None and fetched.path is not None:
                    self._arrivals.discard(fetched.path)
                raise CacheUnusable(
                    f"object {record.oid} is being committed; repair the cache when that has ended"
                )
            try:
                _put_aside(self._ledger.cache, record, keep=fetched is not None)
            except OSError as error:
                raise CacheUnusable(
                    f"object {record.oid} cannot be put aside in {self._ledger.cache}: {error.strerror}"
                ) from None
            if fetched is None:
                self._ledger.disown([record.oid])
            elif fetched.path is not None:
                self._arrivals.admit(record.oid, fetched.path, fetched.descriptor)
                self._ledger.checked([record.oid])


def _put_aside(cache: Path, record: Record, *, keep: bool) -> None:
    """Move the object's file into the quarantine; with `keep`, its place is taken by another one later."""
    directory, _, name = object_path(record.oid).rpartition("/")
    with contextlib.ExitStack() as stack:
        home, ownership = stack.enter_context(open_home(cache))
        root = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        objects = open_beneath(root, directory.encode(), flags=os.O_PATH)
        stack.callback(os.close, objects)
        aside = ownership.open_directory(QUARANTINE, home, create=True)
        stack.callback(os.close, aside)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(str(record.oid), dir_fd=aside)
        if keep:
            # Of somebody else's file no link may be made: then there is none to look at later.
            with contextlib.suppress(OSError):
                os.link(name, str(record.oid), src_dir_fd=objects, dst_dir_fd=aside, follow_symlinks=False)
        else:
            os.rename(name, str(record.oid), src_dir_fd=objects, dst_dir_fd=aside)
            note_changes(root, gone=[record.oid])
