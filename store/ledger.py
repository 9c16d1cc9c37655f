"""`Ledger`: which objects of a cache *we* fetched, and when each was used. Only those may ever be evicted.

An SQLite database in the cache, `<cache>/fusefs/ledger.sqlite`, shared by all who share the cache; none on
a network file system, and then nothing is ever evicted there. An object without a row belongs to whoever
put it there (a commit, DVC); a row without an object is forgotten when somebody stumbles on it. So a crash
at any point is harmless, and every doubt is settled by having no row:

- arrivals wait in memory to be written together; those of a daemon that dies stay without a row;
- a commit takes the rows of everything that it names (`disown`) and leaves its time; an arrival that was
  still waiting, and that such a commit may have met in the cache, gets no row at all.

What DVC itself finds in the cache and relies on cannot be seen; therefore an object is deleted only after
a remote has confirmed again that it has it (`store.keeping`).

Blocking; any thread.
"""

from __future__ import annotations

import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from store.budget import BLOCK
from store.database import put_aside
from store.keeping.records import (
    COLUMNS,
    KEY,
    Fetched,
    Totals,
    ask,
    key_of,
    ledger_path,
    open_ledger,
    read_rows,
)
from store.layouts import object_path
from store.oid import DVC_ALGORITHMS, Oid

T = TypeVar("T")

CORRELATED: Final = 60.0
"""Seconds: uses closer together than this are one, such as a look at the header and then a read."""
MAX_WAITING: Final = 1 << 16
"""Arrivals, and uses, that wait to be written; more are not noted."""

_PAGE: Final = 256


class Ledger:
    """The ledger of the cache at `cache`, opened when it is first needed and made unless told otherwise.

    Where there can be none every method does as little as an empty one would.
    """

    def __init__(self, cache: Path, *, create: bool = True, clock: Callable[[], float] = time.time) -> None:
        self.cache = cache
        self._create = create
        self._clock = clock
        self._mutex = threading.Lock()
        self._waiting: dict[Oid, tuple[int, str, float]] = {}
        self._noted: dict[Oid, float] = {}
        self._notes = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._failed = False

    @property
    def path(self) -> Path:
        return ledger_path(self.cache)

    def arrived(self, oid: Oid, size: int, remote: str) -> None:
        """We have just put the object, which was not there, into the cache.

        It came from `remote`, the identity of one (`RemoteSpec.identity`), empty for several. Waits for
        nothing; written by `flush`.
        """
        with self._notes:
            if oid.algorithm in DVC_ALGORITHMS and len(self._waiting) < MAX_WAITING:
                self._waiting[oid] = (size, remote, self._clock())

    def used(self, oids: Iterable[Oid]) -> None:
        """They have just been opened. Waits for nothing; written by `flush`."""
        now = self._clock()
        with self._notes:
            for oid in oids:
                if len(self._noted) >= MAX_WAITING:
                    break
                self._noted[oid] = now

    @property
    def is_waiting(self) -> bool:
        """Is there something to be flushed?"""
        return bool(self._waiting or self._noted)

    def flush(self) -> None:
        """Write what waits. What cannot be written now, because others are busy, waits on, within bounds."""
        with self._notes:
            arrivals, self._waiting = self._waiting, {}
            uses, self._noted = self._noted, {}
        if (arrivals or uses) and not self._with(lambda db: self._write(db, arrivals, uses), False):
            with self._notes:
                if len(self._waiting) < MAX_WAITING:
                    self._waiting = arrivals | self._waiting

    def disown(self, oids: Iterable[Oid]) -> None:
        """They are somebody's own from now on: they were committed, or are not what they should be."""
        keys = []
        with self._notes:
            for oid in oids:
                keys.append(key_of(oid))
                self._waiting.pop(oid, None)
        self._with(lambda db: db.executemany(f"DELETE FROM objects WHERE {KEY}", keys), None)

    def commit_ended(self, oids: Iterable[Oid]) -> bool:
        """As `disown`, for a commit that names these objects; whether that could be written down.

        Arrivals before this that are still to be written, by whichever process, may be among them and get
        no row.
        """
        keys = [key_of(oid) for oid in oids]

        def write(db: sqlite3.Connection) -> bool:
            db.execute("INSERT OR REPLACE INTO commits VALUES (1, ?)", (self._clock(),))
            db.executemany(f"DELETE FROM objects WHERE {KEY}", keys)
            return True

        return self._with(write, False)

    def checked(self, oids: Iterable[Oid]) -> None:
        """Their bytes have just been found to be right."""
        rows = [(self._clock(), *key_of(oid)) for oid in oids]
        self._with(lambda db: db.executemany(f"UPDATE objects SET checked = ? WHERE {KEY}", rows), None)

    @property
    def is_there(self) -> bool:
        """Is there a ledger at all, and can it be written?"""
        return self._with(lambda db: True, False)

    def totals(self) -> Totals:
        def question(db: sqlite3.Connection) -> Totals:
            (once, blocks, first), (again, more, second) = (
                db.execute(
                    f"SELECT count(*), total((size + {BLOCK - 1}) / {BLOCK}), min(used) "
                    f"FROM objects WHERE uses {condition}"
                ).fetchone()
                for condition in ("= 0", "> 0")
            )
            oldest = min((time for time in (first, second) if time is not None), default=None)
            return Totals(once + again, int(blocks) * BLOCK, int(more) * BLOCK, oldest)

        return self._with(question, Totals(0, 0, 0, None))

    def find(self, oids: Iterable[Oid]) -> list[Fetched]:
        """Those of `oids` that we fetched."""

        def question(db: sqlite3.Connection) -> list[Fetched]:
            found: list[Fetched] = []
            for oid in oids:
                found += read_rows(ask(f"SELECT {COLUMNS} FROM objects WHERE {KEY}", key_of(oid), db))
            return found

        return self._with(question, [])

    def by_use(self, *, again: bool) -> Iterator[Fetched]:
        """Least recently used first: those that were used again since they came, or those that were not.

        Pages are read as they are needed; a row that changes meanwhile may come twice or not at all.
        """
        return self._page("used", f"uses {'> 0' if again else '= 0'}")

    def by_check(self) -> Iterator[Fetched]:
        """All, those first whose bytes were hashed longest ago; none that is hashed after this began."""
        return self._page("checked", f"checked <= {self._clock()!r}")

    def settle_clock(self) -> None:
        """Uses in the future, of a clock that was wrong, are uses of now."""
        now = self._clock()

        def write(db: sqlite3.Connection) -> None:
            for which in ("= 0", "> 0"):
                db.execute(f"UPDATE objects SET used = ? WHERE uses {which} AND used > ?", (now, now))

        self._with(write, None)

    def close(self) -> None:
        """Write what waits and let go of the database."""
        self.flush()
        with self._mutex:
            self._failed = True
            self._disconnect()

    def _write(
        self,
        db: sqlite3.Connection,
        arrivals: dict[Oid, tuple[int, str, float]],
        uses: dict[Oid, float],
    ) -> bool:
        if arrivals:
            found = db.execute("SELECT at FROM commits").fetchone()
            committed = min(found[0], self._clock()) if found else 0.0
            rows = [
                (*key_of(oid), size, remote, at, at, at, 0, at)
                for oid, (size, remote, at) in arrivals.items()
                if self._came_after(oid, size, committed)
            ]
            # One that came before, was removed by somebody and came again keeps what is known of its use.
            db.executemany(
                "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET size = excluded.size, remote = excluded.remote, "
                "arrived = excluded.arrived, used = excluded.used, checked = excluded.checked",
                rows,
            )
        # A reader that waited for an object opens it when it has come: that is no use of its own.
        db.executemany(
            "UPDATE objects SET used = max(used, ?1), "
            f"uses = uses + (?1 - counted > {CORRELATED} OR counted > ?1 + {CORRELATED}), "
            f"counted = CASE WHEN abs(?1 - counted) > {CORRELATED} THEN ?1 ELSE counted END "
            "WHERE digest = ?2 AND algorithm = ?3 AND is_tree = ?4",
            [(at, *key_of(oid)) for oid, at in uses.items() if oid.algorithm in DVC_ALGORITHMS],
        )
        return True

    def _came_after(self, oid: Oid, size: int, committed: float) -> bool:
        """Is the object there, put there after the last commit? Its ctime tells when it got its name."""
        try:
            status = (self.cache / object_path(oid)).lstat()
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == size and status.st_ctime > committed

    def _page(self, column: str, condition: str) -> Iterator[Fetched]:
        query = (
            f"SELECT {COLUMNS}, {column} FROM objects WHERE {condition} "
            f"AND ({column}, digest, algorithm, is_tree) > (?, ?, ?, ?) "
            f"ORDER BY {column}, digest, algorithm, is_tree LIMIT {_PAGE}"
        )
        after: tuple[object, ...] = (-1e300, b"", -1, -1)
        while after:
            rows: list[tuple[Any, ...]] = self._with(partial(ask, query, after), [])
            yield from read_rows(rows)
            after = (rows[-1][-1], *rows[-1][:3]) if len(rows) == _PAGE else ()

    def _with(self, work: Callable[[sqlite3.Connection], T], default: T) -> T:
        """What `work` returns, in a transaction; `default` where there is no ledger, or it is busy.

        One that is damaged is put aside: all of its objects are somebody's own then.
        """
        with self._mutex:
            if self._db is None and not self._failed:
                self._db = open_ledger(self.cache, create=self._create)
                self._failed = self._db is None and self._create
            if self._db is None:
                return default
            try:
                with self._db:
                    return work(self._db)
            except sqlite3.OperationalError:
                return default
            except sqlite3.DatabaseError:
                self._disconnect()
                put_aside(self.path)
                return default

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
