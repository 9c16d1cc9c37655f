"""`SizeIndex`: how long objects are, remembered by their hash for all datasets and mounts of a user.

An SQLite database of ours, one row an oid. It is trusted only as far as it proves itself: a row carries
a checksum; a row that fails it, or a file that is not a database, and the whole is put aside and begun
anew. It saves questions and never answers wrongly more than whoever told it: each size is kept with how
it is known (`How`), and only what was hashed is beyond doubt.

What is of use stays: rows live in two tables, and what is found in the older one is copied into the
younger. When that has grown or is old enough, the older one is dropped and the younger takes its place,
so that ageing costs neither an index nor a scan.

Blocking; any thread, and several processes at once. Without a database that can be used nothing is known
and nothing learnt; no method raises.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import xxhash

from store.database import open_database, put_aside
from store.file_systems import is_on_network
from store.oid import ALGORITHMS, MD5_DOS2UNIX
from store.tree import UNKNOWN

log = logging.getLogger(__name__)

T = TypeVar("T")

DATABASE: Final = "sizes.sqlite"
LOCAL_HOME: Final = Path("/var/tmp")
"""Where a database goes whose own directory lies on a network file system."""

_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS {} (
        oid BLOB PRIMARY KEY,       -- number of the algorithm, a byte, and the digest
        size INTEGER NOT NULL,
        how INTEGER NOT NULL,
        inode INTEGER NOT NULL,     -- of the file that was looked at, as a signed number; else 0
        mtime_ns INTEGER NOT NULL,
        sum INTEGER NOT NULL        -- checksum over all the above
    ) WITHOUT ROWID;
"""
_YOUNG: Final = _TABLE.format("young")
_SCHEMA: Final = (
    _YOUNG
    + _TABLE.format("old")
    + """
    CREATE TABLE IF NOT EXISTS turns (day INTEGER NOT NULL, pages INTEGER NOT NULL);
"""
)
_VERSION: Final = 1
_BUSY_MS: Final = 1000
_CACHE_KIB: Final = 16 << 10
_AT_ONCE: Final = 1024
YOUNG_DAYS: Final = 90
YOUNG_PAGES: Final = 1 << 16
"""256 MiB of the younger table, four million rows: with the older one half a gigabyte at most."""
_DAY: Final = 86_400

# A later size replaces an earlier one, but nothing replaces what was hashed.
_LEARN: Final = """
    INSERT INTO young VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (oid) DO UPDATE SET
        size = excluded.size, how = excluded.how, inode = excluded.inode, mtime_ns = excluded.mtime_ns,
        sum = excluded.sum
    WHERE excluded.how = 3 OR (how < 3 AND (excluded.size <> size OR excluded.how > how
        OR (excluded.how = how AND (excluded.inode <> inode OR excluded.mtime_ns <> mtime_ns))))
"""


class How(IntEnum):
    """How a size is known; the higher, the better."""

    STAT = 1
    """A file that lies in the object's place has it; nobody has hashed that file."""
    REMOTE = 2
    """A remote says so."""
    HASHED = 3
    """Bytes of this length had the object's hash."""


class Size(NamedTuple):
    """Bytes, and how that is known."""

    size: int
    how: How


class Learnt(NamedTuple):
    """A size to be remembered; `inode` and `mtime_ns` are of the file where it is of a `STAT`."""

    digest: bytes
    size: int
    how: How
    inode: int = 0
    mtime_ns: int = 0


class SizeIndex:
    """The database in `directory`, or elsewhere as `find_place` says. It is opened when it is first used."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mutex = threading.Lock()
        self._path: Path | None = None
        self._db: sqlite3.Connection | None = None
        self._opened = False
        self._noting = threading.Lock()
        self._notes: dict[str, list[Learnt]] = {}

    def close(self) -> None:
        """Nothing is known and nothing learnt from now on."""
        with self._noting:
            notes, self._notes = self._notes, {}
        for algorithm, rows in notes.items():
            self.learn(rows, algorithm)
        with self._mutex:
            self._opened = True
            self._drop()

    def look_up(self, digests: Sequence[bytes], algorithm: str) -> list[int]:
        """The sizes of objects; `UNKNOWN` for those that are not in the index."""
        return [UNKNOWN if known is None else known.size for known in self.find(digests, algorithm)]

    def find(self, digests: Sequence[bytes], algorithm: str) -> list[Size | None]:
        """The sizes of objects and how they are known, by raw digests; None for those not in the index."""
        return self._use(lambda db: _find(db, digests, algorithm)) or [None] * len(digests)

    def learn(self, rows: Iterable[Learnt], algorithm: str) -> None:
        """Remember sizes of objects. What was hashed stays; else the last one holds."""
        # The older hash does not see how lines end, so it leaves the length open.
        best = How.REMOTE if algorithm == MD5_DOS2UNIX else How.HASHED
        kind = _kind(algorithm)
        packed = [
            _pack(kind + row.digest, row.size, min(row.how, best), _signed(row.inode), row.mtime_ns)
            for row in rows
            if row.size >= 0
        ]
        if packed:
            self._use(lambda db: _learn(db, packed))

    def note(self, row: Learnt, algorithm: str) -> None:
        """As `learn`, for one at a time: many are written together, the last of them by `close`."""
        with self._noting:
            self._notes.setdefault(algorithm, []).append(row)
            if len(self._notes[algorithm]) < _AT_ONCE:
                return
            rows = self._notes.pop(algorithm)
        self.learn(rows, algorithm)

    def _use(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """What `work` returns; None where there is no database, or it is busy or damaged."""
        with self._mutex:
            db = self._open()
            if db is None:
                return None
            try:
                return work(db)
            except sqlite3.OperationalError as error:
                log.debug("the index of sizes: %s", error)  # busy or full: it does without
            except sqlite3.DatabaseError as error:
                log.warning("the index of sizes %s is damaged and begun anew (%s)", self._path, error)
                self._drop()
                if self._path is not None:
                    put_aside(self._path)
                self._opened = False
        return None

    def _open(self) -> sqlite3.Connection | None:
        if not self._opened:
            self._opened = True
            self._path = find_place(self._directory, LOCAL_HOME)
            if self._path is not None:
                self._db = open_database(self._path, _SCHEMA, _VERSION, any_thread=True)
            if self._db is not None:
                try:
                    _settle(self._db)
                except sqlite3.DatabaseError:
                    self._drop()
        return self._db

    def _drop(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None


def find_place(directory: Path, elsewhere: Path) -> Path | None:
    """Where the database is that belongs into `directory`, a private one of the user's, made if missing.

    Databases lie on no network file system, whose locks cannot be relied on: then it is in a directory of
    the user's own in `elsewhere`. None where that is not to be had either, or is somebody else's.
    """
    for place in (directory, elsewhere / f"fusefs-{os.geteuid()}"):
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o700, parents=place == directory, exist_ok=True)
            # What others may write, or have made for us as a trap, is not believed; a link counts as such.
            status = place.stat(follow_symlinks=place == directory)
            private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o022
            if private and status.st_uid == os.geteuid() and not is_on_network(place):
                return place / DATABASE
    return None


def _settle(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    db.execute("PRAGMA journal_mode = WAL")  # readers wait for no writer
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    with db:
        db.execute("INSERT INTO turns SELECT ?, 0 WHERE NOT EXISTS (SELECT 1 FROM turns)", (_today(),))


def _find(db: sqlite3.Connection, digests: Sequence[bytes], algorithm: str) -> list[Size | None]:
    kind = _kind(algorithm)
    keys = [kind + digest for digest in digests]
    known: dict[bytes, Size] = {}
    for start in range(0, len(keys), _AT_ONCE):
        wanted = keys[start : start + _AT_ONCE]
        _load(db, "young", wanted, known)
        missing = [key for key in wanted if key not in known]
        if missing:
            aged = _load(db, "old", missing, known)
            if aged:
                with contextlib.suppress(sqlite3.OperationalError):  # somebody else is writing: next time
                    _learn(db, aged)
    return [known.get(key) for key in keys]


_Row = tuple[bytes, int, int, int, int, int]


def _load(db: sqlite3.Connection, table: str, keys: list[bytes], known: dict[bytes, Size]) -> list[_Row]:
    """Read rows into `known`, and return them. Raises `sqlite3.DatabaseError` for one that is damaged."""
    marks = ",".join("?" * len(keys))
    rows: list[_Row] = db.execute(f"SELECT * FROM {table} WHERE oid IN ({marks})", keys).fetchall()
    for row in rows:
        try:
            sound = _pack(*row[:5]) == row and row[1] >= 0
        except (struct.error, TypeError):
            sound = False
        if not sound:
            raise sqlite3.DatabaseError("a row does not match its checksum")
        known[row[0]] = Size(row[1], _HOWS[row[2]])
    return rows


def _learn(db: sqlite3.Connection, rows: list[_Row]) -> None:
    rows.sort()  # neighbours lie on one page
    with db:
        db.executemany(_LEARN, rows)
    if _is_due(db):
        _turn(db)


def _is_due(db: sqlite3.Connection) -> bool:
    day, pages = db.execute("SELECT day, pages FROM turns").fetchone()
    # A day to come means that the clock was set back: it begins to count anew.
    return not 0 <= _today() - day <= YOUNG_DAYS or _count_pages(db) - int(pages) > YOUNG_PAGES


def _turn(db: sqlite3.Connection) -> None:
    """Drop the older table and let the younger one be it."""
    with db:
        db.execute("BEGIN IMMEDIATE")
        if not _is_due(db):
            return  # another process was quicker
        db.execute("DROP TABLE old")
        db.execute("ALTER TABLE young RENAME TO old")
        db.execute(_YOUNG)
        db.execute("DELETE FROM turns")
        db.execute("INSERT INTO turns VALUES (?, ?)", (_today(), _count_pages(db)))


def _today() -> int:
    return int(time.time()) // _DAY


def _count_pages(db: sqlite3.Connection) -> int:
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    return int(pages) - int(free)


_HOWS: Final = {int(how): how for how in How}
_FIELDS: Final = struct.Struct("<qqqq")


def _pack(key: bytes, size: int, how: int, inode: int, mtime_ns: int) -> _Row:
    total = xxhash.xxh3_64_intdigest(key + _FIELDS.pack(size, how, inode, mtime_ns))
    return key, size, int(how), inode, mtime_ns, _signed(total)


def _kind(algorithm: str) -> bytes:
    return bytes([ALGORITHMS.index(algorithm)])


def _signed(number: int) -> int:
    """SQLite's integers are signed; inode numbers may use all 64 bits."""
    return number - (1 << 64) if number >= 1 << 63 else number
