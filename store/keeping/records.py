"""The ledger's database: its tables, its file in the cache, and its rows as values.

The file is of the cache's people: it gets owner, group and mode from the cache's directory, and whoever
may write there may write anything into it. Callers: `store.ledger`, what takes locks beside it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from store.budget import on_disk
from store.database import open_database
from store.errors import InputError
from store.oid import DVC_ALGORITHMS, Oid
from store.ownership import Ownership

HOME: Final = "fusefs"
"""The directory in a cache that is ours."""
NAME: Final = "ledger.sqlite"

_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS objects (
        digest BLOB NOT NULL,
        algorithm INTEGER NOT NULL,  -- its place in DVC_ALGORITHMS
        is_tree INTEGER NOT NULL,
        size INTEGER NOT NULL,       -- bytes
        remote TEXT NOT NULL,        -- the identity of the one that it came from
        arrived REAL NOT NULL,       -- times are seconds since the epoch
        used REAL NOT NULL,
        counted REAL NOT NULL,       -- the last use that was counted
        uses INTEGER NOT NULL,       -- after its arrival, those close together counted once
        checked REAL NOT NULL,       -- when its bytes were last hashed
        PRIMARY KEY (digest, algorithm, is_tree)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS once ON objects (used, digest, algorithm, is_tree, size) WHERE uses = 0;
    CREATE INDEX IF NOT EXISTS again ON objects (used, digest, algorithm, is_tree, size) WHERE uses > 0;
    CREATE INDEX IF NOT EXISTS checks ON objects (checked, digest, algorithm, is_tree);
    CREATE TABLE IF NOT EXISTS commits (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), at REAL NOT NULL);
"""
_VERSION: Final = 1
COLUMNS: Final = "digest, algorithm, is_tree, size, remote, arrived, used, uses, checked"
KEY: Final = "digest = ? AND algorithm = ? AND is_tree = ?"


@dataclass(frozen=True, slots=True)
class Fetched:
    """An object that we fetched; sizes in bytes, times in seconds since the epoch."""

    oid: Oid
    size: int
    remote: str
    arrived: float
    used: float
    uses: int
    checked: float

    @property
    def on_disk(self) -> int:
        return on_disk(self.size)


@dataclass(frozen=True, slots=True)
class Totals:
    """Of the objects that we fetched."""

    objects: int
    once: int
    """Bytes on the disk of those that were not used again since they came."""
    again: int
    """Bytes on the disk of the others."""
    oldest: float | None
    """When the one that has been unused for longest was last used."""

    @property
    def bytes(self) -> int:
        return self.once + self.again


def ledger_path(cache: Path) -> Path:
    return cache / HOME / NAME


def open_ledger(cache: Path, *, create: bool) -> sqlite3.Connection | None:
    """The database of a cache; None where there is none, or it can only be read."""
    path = ledger_path(cache)
    try:
        if create:
            with open_home(cache) as (home, ownership):
                os.close(ownership.open_own_file(NAME, home))
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
    except OSError:
        return None
    db = open_database(path, _SCHEMA, _VERSION, any_thread=True)
    if db is not None:
        # Others may write the file: nothing in its schema may call for more than its tables, and a
        # text that is none must not raise.
        db.text_factory = partial(str, encoding="utf-8", errors="replace")
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA synchronous = NORMAL")
    return db


@contextlib.contextmanager
def open_home(cache: Path) -> Iterator[tuple[int, Ownership]]:
    """Our directory in a cache, made if need be, and what new things in it get. Raises `OSError`."""
    with contextlib.ExitStack() as stack:
        root = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        ownership = Ownership.of_directory(root, shared_with_group=False)
        home = ownership.open_directory(HOME, root, create=True)
        stack.callback(os.close, home)
        yield home, ownership


def key_of(oid: Oid) -> tuple[bytes, int, int]:
    return oid.raw, DVC_ALGORITHMS.index(oid.algorithm), int(oid.is_tree)


def ask(query: str, values: tuple[object, ...], db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return db.execute(query, values).fetchall()


def read_rows(rows: Iterable[tuple[Any, ...]]) -> Iterator[Fetched]:
    """Whoever shares the cache may have written them: what is no row of ours is passed over."""
    for digest, algorithm, is_tree, size, remote, arrived, used, uses, checked, *_ in rows:
        try:
            oid = Oid(digest.hex(), bool(is_tree), DVC_ALGORITHMS[algorithm])
            numbers = float(arrived), float(used), int(uses), float(checked)
            if size >= 0:
                yield Fetched(oid, int(size), str(remote), *numbers)
        except (AttributeError, InputError, LookupError, TypeError, ValueError):
            continue
