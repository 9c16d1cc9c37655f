"""`Transaction`: what is done to a remote between a `begin` and an `end` under its `META/logs/`.

The begin tells what is planned and is there before anything is done; the end tells what was done and comes
when all is. Whoever is killed between the two leaves an open transaction, which says where to look. A log
that a remote does not take is kept in the cache, and put when the remote takes logs again: what is done
there depends on no log.

As long as a transaction runs a file of this machine is locked, so that nobody here takes it for a dead one.
Blocking; any thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from store.errors import CacheUnusable, RemoteDenied, RemoteError
from store.oplog.compiled import Compiled
from store.oplog.copies import LogCopies
from store.oplog.identities import new_transaction
from store.oplog.logs import DIRECTORY, Kind, Log, LogName, Record, write_log
from store.oplog.remote_logs import COPIES
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.remotes.storage import CHUNK_BYTES, WritableStorage

DEAD_SECONDS: Final = 86400.0
"""So long after its begin was first seen here, a transaction of somebody else's counts as dead."""
RUNNING: Final = "transactions"
"""Below the state directory: a locked file for each that runs."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes logs: the project, and the user on this machine."""

    project: str
    access: str
    state: Path
    """A directory of the user's own."""


@dataclass(slots=True)
class Journal:
    """The logs of one remote, for whoever changes it."""

    copies: LogCopies
    key: str
    """`remote_key` of the remote."""
    name: str
    storage: WritableStorage
    writer: Writer
    notes: list[str] = field(default_factory=list)
    """A line for each log that is kept here because the remote did not take it, or was left out."""
    written: list[tuple[str, bytes]] = field(default_factory=list)
    """The ends and bases that the remote has taken."""

    def refresh(self) -> Compiled | None:
        """What is known of the remote, after reading the logs that are new, if they may be listed.

        Raises `RemoteError`."""
        try:
            self._put_own()
            refreshed = _patience().run(lambda: self.copies.refresh(self.key, self.name, self.storage))
            self.notes += refreshed.notes
        except (CacheUnusable, RemoteDenied) as error:
            self.notes.append(str(error))
        return self.copies.compile(self.key)

    @contextmanager
    def running(self) -> Iterator[str]:
        """A new transaction's digits; within, it counts as one that runs."""
        transaction = new_transaction()
        with _locked(self.writer.state, transaction):
            yield transaction

    def begin(self, transaction: str, after: Sequence[str], planned: Sequence[Record]) -> None:
        """Write a begin. Raises `RemoteError`, but not where the remote denies it."""
        log = self._log("begin", transaction, after, planned)
        data = write_log(log)
        try:
            self.put(str(log.name), data)
        except RemoteDenied as error:
            self._keep(str(log.name), data, error)

    def end(self, transaction: str, after: Sequence[str], done: Sequence[Record]) -> None:
        """Write an end. One that the remote does not take is kept here."""
        log = self._log("end", transaction, after, done)
        data = write_log(log)
        try:
            self.put(str(log.name), data)
        except RemoteError as error:
            self._keep(str(log.name), data, error)

    def withdraw(self, transaction: str) -> None:
        """Nothing was done, and nothing need be told: there was no begin.

        Where nothing may be deleted, an end tells of nothing."""
        name = str(self._name("begin", transaction))
        try:
            self.storage.delete([DIRECTORY + name])
            self.copies.forget(self.key, [name])
            self.copies.drop_own(self.key, name)
        except RemoteError:
            self.end(transaction, (), ())
        except CacheUnusable as error:
            self.notes.append(str(error))

    def is_dead(self, name: LogName) -> bool:
        """Does nobody work any more on a transaction that has no end?

        One of this user's on this machine is known; of others' that was seen here long ago."""
        if is_running(self.writer.state, name.transaction):
            return False
        if name.access == self.writer.access:
            return True
        try:
            return time.time() - self.copies.since(self.key, str(name)) > DEAD_SECONDS
        except OSError:
            return False

    def put(self, name: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Put a log, and keep a copy; with `if_absent`, False where there is one already.

        Raises `RemoteError`."""
        if not _patience().run(lambda: put_log(self.storage, DIRECTORY + name, data, if_absent=if_absent)):
            return False
        if not name.startswith("begin=="):
            self.written.append((name, data))
        try:
            self.copies.add(self.key, name, data)
        except CacheUnusable as error:
            self.notes.append(str(error))
        return True

    def _put_own(self) -> None:
        """Put what the remote did not take before, as far as it does now."""
        for name, data in self.copies.own(self.key).items():
            try:
                self.put(name, data)
            except RemoteError:
                return
            self.copies.drop_own(self.key, name)

    def _keep(self, name: str, data: bytes, why: RemoteError) -> None:
        self.notes.append(f"{why}; the log {name.partition('==')[0]} is kept in the cache until it does")
        with contextlib.suppress(CacheUnusable):
            self.copies.add_own(self.key, name, data)

    def _log(self, kind: Kind, transaction: str, after: Sequence[str], records: Sequence[Record]) -> Log:
        return Log(self._name(kind, transaction), tuple(after), records)

    def _name(self, kind: Kind, transaction: str) -> LogName:
        return LogName(kind, self.writer.project, self.writer.access, transaction)


def _patience() -> Patience:
    return Patience(Crew(lambda: None))


def put_log(storage: WritableStorage, key: str, data: bytes, *, if_absent: bool = False) -> bool:
    """As `WritableStorage.put`."""
    parts = (data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES))
    return storage.put(key, parts, len(data), if_absent=if_absent)


def copy_logs(storage: WritableStorage, key: str, logs: Sequence[tuple[str, bytes]]) -> None:
    """Put copies of the logs of another remote, the one of that `key`. Raises `RemoteError`."""
    for name, data in logs:
        put_log(storage, f"{COPIES}{key}/{name}", data)
    if any(name.startswith("base==") for name, _ in logs):
        keep_only(storage, f"{COPIES}{key}/", [name for name, _ in logs])


def keep_only(storage: WritableStorage, directory: str, names: Sequence[str]) -> None:
    """Remove the logs of a directory but those. Raises `RemoteError`."""
    if storage.can_list:
        kept = {directory + name for name in names}
        storage.delete([one.key for one in storage.list(directory) if one.key not in kept])


def is_running(state: Path, transaction: str) -> bool:
    """Does a process of this user's, on this machine, work on the transaction?"""
    try:
        descriptor = os.open(state / RUNNING / transaction, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    with contextlib.suppress(OSError):
        (state / RUNNING / transaction).unlink()
    return False


@contextmanager
def _locked(state: Path, transaction: str) -> Iterator[None]:
    """A lock that ends with the process; where there is no place for one there is none."""
    path = state / RUNNING / transaction
    descriptor = -1
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pass
    try:
        yield
    finally:
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(descriptor)
