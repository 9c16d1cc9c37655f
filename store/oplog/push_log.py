"""`PushLog`: a push as a transaction of its remote.

The begin is there before anything is asked or put, so that whoever collects garbage there knows that somebody
relies on what he finds; the end tells what was put, and what was found that no log told of.

Blocking; `found` and `put` by many threads at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from store.errors import StoreError
from store.layouts import object_path
from store.oplog.compiled import Compiled
from store.oplog.giving_way import wait_for_collections
from store.oplog.logs import Record, Verb, format_oid
from store.oplog.transactions import Journal
from store.pushing.crew import Crew
from store.pushing.lacking import NOT_HERE, Item
from store.pushing.push import Place
from store.tree import UNKNOWN

END_SECONDS: Final = 5.0
"""For an end that is written while somebody waits for the command to go."""


class PushLog:
    """What `Push` tells of one run."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._known: Compiled | None = None
        self._after: tuple[str, ...] = ()
        self._transaction = ""
        self._has_begun = False
        self._done: list[Record] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """The transaction, if the push comes so far. Whatever ends the push, an end is written;
        where the push was interrupted, that is not waited for, for long."""
        with self._journal.running() as self._transaction:
            try:
                yield
            except StoreError:
                self._end(None)
                raise
            except BaseException:
                self._end(END_SECONDS)
                raise
            else:
                self._end(None)

    def begin(self, items: Iterable[Item], place: Place = object_path) -> None:
        """All that the push is about, and where it is to lie; what is there from now on stays.

        Raises `RemoteError`, and `LockTimeout` where garbage is being collected there."""
        self._known = self._journal.refresh()
        if self._known is not None:
            self._after = self._known.summary.latest
        planned = [_record("PUT", item, place(item.oid)) for item in items if not self._is_known(item)]
        self._journal.begin(self._transaction, self._after, planned)
        self._has_begun = True
        if wait_for_collections(self._journal, self._transaction, Crew(lambda: None)):
            self._known = self._journal.refresh()
            if self._known is not None:
                self._after = self._known.summary.latest

    def found(self, item: Item, key: str = "") -> None:
        """The object is there, in the length that it has here; by default in DVC's place."""
        if not self._is_known(item):
            self._note(_record("HAS", item, key))

    def put(self, item: Item, key: str = "") -> None:
        """The object was put, the same."""
        self._note(_record("PUT", item, key))

    def put_file(self, key: str, digest: str, size: int) -> None:
        """A part or an archive was put, named by its SHA-256."""
        self._note(Record("PUT", key, f"sha256:{digest}", size))

    def _is_known(self, item: Item) -> bool:
        size = None if self._known is None else self._known.find(item.oid)
        return size is not None and (size == item.size or item.size == NOT_HERE)

    def _note(self, record: Record) -> None:
        with self._lock:
            self._done.append(record)

    def _end(self, seconds: float | None) -> None:
        if self._has_begun:
            # Not waited for by the process: a server may stall for longer than anybody has patience.
            thread = threading.Thread(target=self._write_end, name="log-end", daemon=True)
            thread.start()
            thread.join(seconds)

    def _write_end(self) -> None:
        with self._lock:
            done = list(self._done)
        if done:
            self._journal.end(self._transaction, self._after, done)
        else:
            self._journal.withdraw(self._transaction)


def _record(op: Verb, item: Item, key: str) -> Record:
    size = UNKNOWN if item.size == NOT_HERE else item.size
    return Record(op, key or object_path(item.oid), format_oid(item.oid), size)
