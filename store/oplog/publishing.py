"""What a cache has, told to all who use a remote: under `META/caches/` a base, and logs of changes since.

It is as good as it was when it was written; nobody relies on it. Which caches a user has published where, and
up to which change, lies in the state directory. Blocking; any thread.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from store.errors import CacheUnusable
from store.keeping.scrub import list_objects
from store.layouts import object_path
from store.oplog.changes import GONE, Mark, begin_changes, read_changes
from store.oplog.identities import cache_key, new_transaction
from store.oplog.logs import Kind, Log, LogName, Record, format_oid, write_log
from store.oplog.remote_logs import CACHES
from store.oplog.transactions import Writer, keep_only, put_log
from store.remotes.storage import WritableStorage

PUBLISHED: Final = "published"
"""Below the state directory: a file for each cache and remote."""
MOST_LOGS: Final = 32
"""Of changes; then there is a new base."""


class _Told(msgspec.Struct, frozen=True):
    """What a remote was told last."""

    transaction: str
    logs: int
    mark: Mark


@dataclass(frozen=True, slots=True)
class Publication:
    """A cache that a user tells of on a remote, the one of the key `remote`."""

    writer: Writer
    cache: Path
    remote: str

    @property
    def key(self) -> str:
        """The cache's digits."""
        return cache_key(self.writer.access, self.cache)

    @property
    def is_begun(self) -> bool:
        """Has the user published the cache there?"""
        return self._place.exists()

    def publish(self, storage: WritableStorage) -> int:
        """Tell all that the cache has; how many objects that are. Raises `RemoteError`."""
        mark = None
        with contextlib.suppress(CacheUnusable):
            mark = begin_changes(self.cache)
        records = [
            Record("HAS", object_path(oid), format_oid(oid), size)
            for oid, size in sorted(list_objects(self.cache))
        ]
        name = self._put(storage, "base", (), records)
        keep_only(storage, self._directory, [str(name)])
        if mark is not None:
            self._remember(_Told(name.transaction, 0, mark))
        return len(records)

    def update(self, storage: WritableStorage) -> int:
        """Tell what has changed since; how many changes, or objects where all had to be told again.

        Raises `RemoteError`."""
        told = self._recall()
        if told is None:
            return 0
        found = read_changes(self.cache, told.mark)
        if found is None or told.logs >= MOST_LOGS:
            return self.publish(storage)
        changes, mark = found
        if not changes:
            return 0
        records = [
            Record("DELETE" if size == GONE else "PUT", object_path(oid), format_oid(oid), size)
            for oid, size in sorted(changes.items())
        ]
        name = self._put(storage, "end", (told.transaction,), records)
        self._remember(_Told(name.transaction, told.logs + 1, mark))
        return len(records)

    @property
    def _directory(self) -> str:
        return f"{CACHES}{self.key}/"

    @property
    def _place(self) -> Path:
        return self.writer.state / PUBLISHED / f"{self.key}-{self.remote}"

    def _put(
        self, storage: WritableStorage, kind: Kind, after: tuple[str, ...], records: list[Record]
    ) -> LogName:
        name = LogName(kind, self.writer.project, self.writer.access, new_transaction())
        put_log(storage, f"{self._directory}{name}", write_log(Log(name, after, records)))
        return name

    def _recall(self) -> _Told | None:
        """None where nothing was told; a note that is damaged tells all again."""
        try:
            data = self._place.read_bytes()
        except OSError:
            return None
        try:
            return msgspec.json.decode(data, type=_Told)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return _Told("", 0, Mark("", 0))

    def _remember(self, told: _Told) -> None:
        place = self._place
        temporary = place.with_name(f".{secrets.token_hex(8)}")
        with contextlib.suppress(OSError):
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                temporary.write_bytes(msgspec.json.encode(told))
                temporary.replace(place)
            finally:
                temporary.unlink(missing_ok=True)
