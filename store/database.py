"""SQLite databases of ours: private files that make things faster and can always be begun anew.

Never on a network file system, whose locks SQLite cannot rely on. Blocking; a connection belongs to the
thread that opened it, unless `any_thread` says that its user sees to it that one uses it at a time.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

from store.file_systems import is_on_network

BUSY_SECONDS: Final = 5.0


def open_database(
    path: Path, schema: str, version: int, *, mode: int = 0o600, any_thread: bool = False
) -> sqlite3.Connection | None:
    """Open or make the database at `path`; `schema` is run at each opening (`CREATE TABLE IF NOT EXISTS`).

    None where it cannot be had: busy, no space, not ours, on a network. One that is damaged or of another
    `version` is put aside and begun anew.
    """
    for _ in range(2):
        try:
            return _connect(path, schema, version, mode, any_thread)
        except sqlite3.OperationalError:
            return None
        except sqlite3.DatabaseError:
            put_aside(path)
        except OSError:
            return None
    return None


def put_aside(path: Path) -> None:
    """Keep a damaged database for whoever wonders, and out of the way."""
    with contextlib.suppress(OSError):
        path.replace(path.with_name(path.name + ".damaged"))
    for suffix in ("-journal", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + suffix).unlink()


def _connect(path: Path, schema: str, version: int, mode: int, any_thread: bool) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_on_network(path.parent):
        raise OSError(f"{path} lies on a network file system")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode))
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=not any_thread)
    try:
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if found not in (0, version):
            raise sqlite3.DatabaseError(f"version {found}")
        with db:
            db.executescript(schema)
            db.execute(f"PRAGMA user_version = {version}")
    except BaseException:
        db.close()
        raise
    return db
