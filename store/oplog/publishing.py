"""What a cache has, told to all who use a remote: one base under `META/caches/`, in place of the last one.

It is as good as it was when it was written; nobody relies on it. Blocking; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from store.layouts import object_path
from store.oid import Oid
from store.oplog.copies import CACHES
from store.oplog.identities import cache_key, new_transaction
from store.oplog.logs import Log, LogName, Record, format_oid, write_log
from store.oplog.transactions import Writer, keep_only, put_log
from store.remotes.storage import WritableStorage


def publish(
    storage: WritableStorage, writer: Writer, cache: Path, objects: Iterable[tuple[Oid, int]]
) -> tuple[str, int]:
    """Say on a remote that the cache has these objects, of these lengths; its digits, and how many they are.

    Raises `RemoteError`.
    """
    key = cache_key(writer.access, cache)
    records = [Record("HAS", object_path(oid), format_oid(oid), size) for oid, size in sorted(objects)]
    name = LogName("base", writer.project, writer.access, new_transaction())
    put_log(storage, f"{CACHES}{key}/{name}", write_log(Log(name, (), records)))
    keep_only(storage, f"{CACHES}{key}/", [str(name)])
    return key, len(records)
