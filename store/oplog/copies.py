"""`LogCopies`: the logs of remotes that a cache has copies of, and what is compiled of them.

They lie in `<cache>/fusefs/logs/<remote>/`, a directory a remote, named by its place (`remote_key`), so that
all who use the cache know what one of them has read. A refresh lists the remote's logs and reads those that
are new. Logs that could not be written to their remote lie there, too, in `own/`, until they can be.

What lies there is believed no more than a remote is: it saves requests, and a lie costs one. Copies that
cannot be written are none. Everything is reached through descriptors, never by a symlink. Blocking; any
thread.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import xxhash

from store.errors import CacheUnusable, RemoteMissing
from store.oplog import log_files
from store.oplog.compiled import Compiled, Damaged, compile_holdings
from store.oplog.holdings import Holdings, settle
from store.oplog.logs import DIRECTORY, LARGEST, Log, LogName, is_whole, read_log
from store.oplog.remote_logs import CACHES, MOST_LOGS, MOST_REMOTES, bring, choose, list_logs, owner_of
from store.ownership import OPEN_DIRECTORY, Ownership, make_root
from store.remotes.storage import Storage

HOME: Final = ("fusefs", "logs")
OWN: Final = "own"
COMPILED: Final = "holdings"
NAME: Final = "name"
_KEY: Final = re.compile(r"[0-9a-f]{32}")
_NEW_MODE: Final = 0o777


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh found."""

    owners: tuple[str, ...]
    """The remotes that there were logs of."""
    notes: tuple[str, ...] = ()
    """A line for what was left out."""


class LogCopies:
    """The logs of remotes in one cache. Its directory need not exist."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def remotes(self) -> list[str]:
        """The keys of the remotes that something is known of."""
        try:
            with self._opened() as top, os.scandir(top) as entries:
                found = sorted(entry.name for entry in entries if _KEY.fullmatch(entry.name))
        except OSError:
            return []
        return found[:MOST_REMOTES]

    def name(self, key: str) -> str:
        """How the remote was called when something was learnt of it; empty where nobody said."""
        try:
            with self._opened(key) as place:
                return log_files.read(place, NAME, 1 << 10).decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def refresh(self, key: str, name: str, storage: Storage) -> Refreshed:
        """Read what is new of a remote's logs, forget what it has no more, and compile.

        Raises `RemoteError`; `CacheUnusable` where nothing can be kept.
        """
        refreshed = self.fetch(key, name, storage)
        for owner in refreshed.owners:
            self.compile(owner)
        return refreshed

    def fetch(self, key: str, name: str, storage: Storage) -> Refreshed:
        """As `refresh`, and nothing is compiled."""
        notes: list[str] = []
        listed = {DIRECTORY: {}, **list_logs(storage)}
        owners = {prefix: owner_of(prefix, key) for prefix in listed}
        for prefix, logs in listed.items():
            owner = owners[prefix]
            called = f"cache {owner[:8]}" if prefix.startswith(CACHES) else name if owner == key else ""
            with self._told(), self._opened(owner, create=True) as place:
                if called and log_files.peek(place, NAME) != called.encode():
                    log_files.write(place, NAME, called.encode())
                here = log_files.names(place)
                for log in choose(logs, here, notes):
                    with contextlib.suppress(RemoteMissing):  # a base took its place meanwhile
                        tail = bring(storage, prefix, log, place)
                        begin = f"begin=={log.removeprefix('end==')}"
                        if begin in logs and begin not in here and not is_whole(tail):
                            bring(storage, prefix, begin, place)  # that was no end
                if called and storage.can_list:  # of copies only their own remote knows which there are
                    for gone in here.keys() - logs.keys():
                        log_files.remove(place, gone)
        return Refreshed(tuple(dict.fromkeys(owners.values())), tuple(notes))

    def is_behind(self, key: str, storage: Storage) -> bool:
        """Whether a remote has logs that are not here: one listing. Raises `RemoteError`."""
        for prefix, logs in list_logs(storage).items():
            try:
                with self._opened(owner_of(prefix, key)) as place:
                    here = log_files.names(place)
            except OSError:
                return True
            if choose(logs, here, []):
                return True
        return False

    def weight(self, key: str) -> int:
        """Bytes of the logs that there are copies of."""
        try:
            with self._opened(key) as place:
                return sum(log_files.names(place).values())
        except OSError:
            return 0

    def add(self, key: str, log: str, data: bytes) -> None:
        """Keep a copy of a log that the remote has. Raises `CacheUnusable`."""
        with self._told(), self._opened(key, create=True) as place:
            log_files.write(place, log, data)

    def forget(self, key: str, logs: Iterable[str]) -> None:
        """Remove the copies of logs that the remote has no more. Raises `CacheUnusable`."""
        with self._told(), self._opened(key, create=True) as place:
            for log in logs:
                log_files.remove(place, log)

    def add_own(self, key: str, log: str, data: bytes) -> None:
        """Keep a log that its remote did not take. Raises `CacheUnusable`."""
        with self._told(), self._opened(key, OWN, create=True) as place:
            if len(log_files.names(place)) < MOST_LOGS:
                log_files.write(place, log, data)

    def own(self, key: str) -> dict[str, bytes]:
        """The logs that their remote has not taken yet."""
        try:
            with self._opened(key, OWN) as place:
                return {name: log_files.read(place, name, LARGEST) for name in log_files.names(place)}
        except OSError:
            return {}

    def drop_own(self, key: str, log: str) -> None:
        """The remote has it now. Raises `CacheUnusable`."""
        with self._told(), self._opened(key, OWN, create=True) as place:
            log_files.remove(place, log)

    def logs(self, key: str) -> Iterator[Log]:
        """All logs of a remote that there are copies of, read."""
        for below in ((key,), (key, OWN)):
            try:
                with self._opened(*below) as place:
                    for text in log_files.names(place):
                        name = LogName.parse(text)
                        if name is not None:
                            yield _read_log(place, name)
            except OSError:
                continue

    def settle(self, key: str) -> Holdings:
        """What the logs say that the remote holds."""
        return settle(self.logs(key))

    def since(self, key: str, log: str) -> float:
        """When a log first came here, in seconds since the epoch. Raises OSError."""
        with self._opened(key) as place:
            return os.stat(log, dir_fd=place, follow_symlinks=False).st_mtime

    def compile(self, key: str) -> Compiled | None:
        """What the logs say, compiled anew if there are others than before; None where there is nothing."""
        wanted = self._fingerprint(key)
        compiled = self.open(key)
        if wanted is None or (compiled is not None and compiled.summary.logs == wanted):
            return compiled
        data = compile_holdings(self.settle(key), wanted)
        try:
            with self._opened(key) as place:
                log_files.write(place, COMPILED, data)
        except OSError:
            return None
        return self.open(key)

    def open(self, key: str) -> Compiled | None:
        """What was compiled last, without a look at the logs; None where there is nothing whole."""
        try:
            with self._opened(key) as place:
                descriptor = log_files.open_file(place, COMPILED)
                try:
                    return Compiled.open(descriptor)
                finally:
                    os.close(descriptor)
        except (OSError, Damaged):
            return None

    def stamp(self, key: str) -> tuple[int, int]:
        """Changes when something is compiled anew."""
        try:
            with self._opened(key) as place:
                status = os.stat(COMPILED, dir_fd=place, follow_symlinks=False)
        except OSError:
            return 0, 0
        return status.st_ino, status.st_mtime_ns

    def _fingerprint(self, key: str) -> int | None:
        """Tells the logs that there are from others; None for none."""
        parts = []
        for below in ((key,), (key, OWN)):
            with contextlib.suppress(OSError), self._opened(*below) as place:
                parts += [f"{name} {size}" for name, size in sorted(log_files.names(place).items())]
        return xxhash.xxh3_64_intdigest("\n".join(parts).encode()) if parts else None

    @contextmanager
    def _opened(self, *below: str, create: bool = False) -> Iterator[int]:
        """The copies' directory, or one below. Raises `OSError`."""
        if create:
            make_root(self._cache, _NEW_MODE)
        current = os.open(self._cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            ownership = Ownership.of_directory(current, shared_with_group=False) if create else None
            for name in (*HOME, *below):
                above = current
                if ownership is not None:
                    current = ownership.open_directory(name, above, create=True)
                else:
                    current = os.open(name, OPEN_DIRECTORY, dir_fd=above)
                os.close(above)
            yield current
        finally:
            os.close(current)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CacheUnusable(
                f"logs cannot be kept in the cache {self._cache}: {(error.strerror or 'no').lower()}"
            ) from None


def _read_log(place: int, name: LogName) -> Log:
    try:
        return read_log(name, log_files.read(place, str(name), LARGEST))
    except OSError as error:
        return Log(name, fault=f"it cannot be read: {error.strerror}")
