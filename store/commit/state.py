"""`HashState`: which content a file had when it was last read, so that it need not be read again.

An SQLite database of ours, one row a file: device and inode, with size and both times to the
nanosecond, and the MD5. It is trusted only as far as it proves itself: a row carries a checksum; a
row that fails it, or a file that is not a database, and the whole is put aside and begun anew. It
can make a commit faster, never wrong, and no commit fails for want of it.

A file that was written within the granularity of its time stamps before it was read is not
remembered: a later write could leave the same stamps (git calls such files racy).

Used by `version`, in one thread; several processes may share the database.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import xxhash

from store.commit.scan import Found
from store.database import open_database, put_aside

_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS hashes (
        device INTEGER NOT NULL,    -- st_dev and st_ino, as signed 64-bit numbers
        inode INTEGER NOT NULL,
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        ctime_ns INTEGER NOT NULL,
        md5 BLOB NOT NULL,
        used INTEGER NOT NULL,      -- day since the epoch on which the row was last of use
        sum INTEGER NOT NULL,       -- checksum over all the above but `used`
        PRIMARY KEY (device, inode)
    ) WITHOUT ROWID
"""
_VERSION: Final = 1
_KEEP_DAYS: Final = 180
_TOUCH_DAYS: Final = 7
_VARIABLES: Final = 500
_DAY: Final = 86_400
_COARSE_NS: Final = 2_000_000_000
_FINE_NS: Final = 100_000_000
SETTLING_SECONDS: Final = 0.11
"""After that any write leaves other stamps than those of now, where they have fractions."""


class HashState:
    """The database at `path`, or none where `path` is None or cannot be used."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._db = open_database(path, _SCHEMA, _VERSION) if path else None

    def close(self) -> None:
        if self._db:
            self._db.close()
            self._db = None

    def look_up(self, files: Sequence[Found]) -> list[str | None]:
        """The MD5 of each file that has not changed since it was remembered."""
        try:
            return self._look_up(files)
        except sqlite3.DatabaseError as error:
            self._put_aside_if_damaged(error)
            return [None] * len(files)

    def remember(self, hashed: Iterable[tuple[Found, str]], reused: Iterable[Found], read_ns: int) -> None:
        """Keep what was read, `Found` as it was then, at `read_ns` or later; renew what was of use."""
        if not self._db:
            return
        day = read_ns // 1_000_000_000 // _DAY
        rows = [_row(found, md5, day) for found, md5 in hashed if is_settled(found, read_ns)]
        keys = [(day, _signed(f.device), _signed(f.inode), day - _TOUCH_DAYS) for f in reused]
        try:
            with self._db:
                self._db.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
                self._db.executemany(
                    "UPDATE hashes SET used = ? WHERE device = ? AND inode = ? AND used < ?", keys
                )
                self._db.execute("DELETE FROM hashes WHERE used < ?", (day - _KEEP_DAYS,))
        except sqlite3.DatabaseError as error:
            self._put_aside_if_damaged(error)

    def _look_up(self, files: Sequence[Found]) -> list[str | None]:
        known: dict[tuple[int, int], tuple[int, int, int, str]] = {}
        if self._db:
            for start in range(0, len(files), _VARIABLES):
                self._load(files[start : start + _VARIABLES], known)
        answers: list[str | None] = []
        for found in files:
            row = known.get((found.device, found.inode))
            same = row is not None and row[:3] == (found.size, found.mtime_ns, found.ctime_ns)
            answers.append(row[3] if row and same else None)
        return answers

    def _load(self, files: Sequence[Found], known: dict[tuple[int, int], tuple[int, int, int, str]]) -> None:
        assert self._db
        by_device: dict[int, list[int]] = {}
        for found in files:
            by_device.setdefault(found.device, []).append(found.inode)
        for device, inodes in by_device.items():
            marks = ",".join("?" * len(inodes))
            rows = self._db.execute(
                "SELECT inode, size, mtime_ns, ctime_ns, md5, sum FROM hashes "
                f"WHERE device = ? AND inode IN ({marks})",
                (_signed(device), *map(_signed, inodes)),
            )
            for inode, size, mtime_ns, ctime_ns, md5, total in rows:
                if total != _checksum(_signed(device), inode, size, mtime_ns, ctime_ns, md5):
                    raise sqlite3.DatabaseError("a row does not match its checksum")
                known[device, inode % (1 << 64)] = (size, mtime_ns, ctime_ns, md5.hex())

    def _put_aside_if_damaged(self, error: sqlite3.DatabaseError) -> None:
        """Go on without the database; one that is damaged, not just busy or full, begins anew."""
        self.close()
        if self._path and not isinstance(error, sqlite3.OperationalError):
            put_aside(self._path)


def clock_ns() -> int:
    """The time of day, to judge how fresh a file is."""
    return time.time_ns()


def is_settled(found: Found, now_ns: int) -> bool:
    """Whether any write after `now_ns` must leave another ctime than that of `found`.

    One without a fraction is taken for that of a file system that has whole seconds (FAT: two); else a tick
    of the kernel's clock is the measure, at most 10 ms. An mtime says nothing of it: whoever unpacks an
    archive sets it, to whole seconds mostly and sometimes to what is still to come.
    """
    coarse = found.ctime_ns % 1_000_000_000 == 0
    return found.ctime_ns < now_ns - (_COARSE_NS if coarse else _FINE_NS)


def _row(found: Found, md5: str, day: int) -> tuple[int, int, int, int, int, bytes, int, int]:
    digest = bytes.fromhex(md5)
    device, inode = _signed(found.device), _signed(found.inode)
    total = _checksum(device, inode, found.size, found.mtime_ns, found.ctime_ns, digest)
    return device, inode, found.size, found.mtime_ns, found.ctime_ns, digest, day, total


def _checksum(device: int, inode: int, size: int, mtime_ns: int, ctime_ns: int, md5: bytes) -> int:
    text = f"{device} {inode} {size} {mtime_ns} {ctime_ns} ".encode() + md5
    return _signed(xxhash.xxh3_64_intdigest(text))


def _signed(number: int) -> int:
    """SQLite's integers are signed; inode numbers may use all 64 bits."""
    return number - (1 << 64) if number >= 1 << 63 else number
