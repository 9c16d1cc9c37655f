"""Who changes a remote gives way to a garbage collection there, which gives way, too.

A collection writes its begin and then looks whether anybody else has begun; so does everybody else. Of two at
least one sees the other. The collection ends itself before its next deletions, and the other waits for that:
only then what it finds on the remote stays there.

Who reaches the remote where nothing can be listed, over HTTP, cannot look for begins. For him a collection
leaves the name of its begin at a key that everybody knows, before it writes that begin, and goes on only as
long as it stands there.

Callers: whoever relies on what a remote has. Blocking; any thread.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from store.contents.finding import read_whole
from store.errors import LockTimeout, RemoteAbsent, RemoteCorrupt, RemoteDenied, RemoteMissing
from store.oplog.logs import DIRECTORY, LARGEST, LogName, read_log
from store.oplog.transactions import Journal, put_log
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.remotes.storage import Address

WAIT_SECONDS: Final = 60.0
"""A collection that sees us is soon done; one that does not is on a machine that has been cut off."""
PAUSE_SECONDS: Final = 0.5
COLLECTING: Final = "META/collecting"
"""The key of a file that has the name of a collection's begin. It may be left behind when that has ended."""
_NAME_BYTES: Final = 1 << 10


def wait_for_collections(journal: Journal, own: str, crew: Crew, seconds: float = WAIT_SECONDS) -> bool:
    """Wait until no transaction but `own`, whose begin is written, may delete objects; whether there was one.

    Where logs cannot be listed a collection tells of itself. Raises `LockTimeout`, `RemoteError`, `Stopped`.
    """
    until = time.monotonic() + seconds
    harmless: set[LogName] = set()
    waited = False
    while True:
        try:
            names = logs_there(journal, crew) if journal.storage.can_list else _announced(journal, crew)
        except RemoteDenied:
            names = set()
        for name in open_elsewhere(journal, names, own) - harmless:
            if not _deletes(journal, name, crew):
                harmless.add(name)
        collecting = open_elsewhere(journal, names, own) - harmless
        if not collecting:
            return waited
        waited = True
        if time.monotonic() >= until:
            transaction = min(one.transaction for one in collecting)
            raise LockTimeout(
                f"garbage is being collected on {journal.name} (transaction {transaction}); try again later, "
                f"or `fusefs remote fsck {journal.name} --end-open` if nobody is at it any more"
            )
        crew.pause(PAUSE_SECONDS)


def announce(journal: Journal, begin: LogName) -> bool:
    """Say that a collection is about to begin; False where another one has just said so. Raises
    `RemoteError`."""
    storage, data = journal.storage, str(begin).encode()
    if put_log(storage, COLLECTING, data, if_absent=True):
        return True
    storage.delete([COLLECTING])  # of one that has ended, or sees now that it is not alone
    return put_log(storage, COLLECTING, data, if_absent=True)


def is_announced(journal: Journal, begin: LogName, crew: Crew) -> bool:
    """Does the remote still say so of this collection? Raises `RemoteError`, `Stopped`."""
    return _read_announced(journal, crew) == begin


def take_back(journal: Journal, begin: LogName, crew: Crew) -> None:
    """The collection has ended. Raises `RemoteError`, `Stopped`."""
    if is_announced(journal, begin, crew):
        journal.storage.delete([COLLECTING])


def _read_announced(journal: Journal, crew: Crew) -> LogName | None:
    address = Address(COLLECTING)
    try:
        data = Patience(crew).run(lambda: read_whole(journal.storage, address, _NAME_BYTES))
    except (RemoteAbsent, RemoteCorrupt, RemoteMissing):
        return None
    return LogName.parse(data.decode("ascii", "replace"))


def _announced(journal: Journal, crew: Crew) -> set[LogName]:
    """The logs of the collection that the remote tells of. Raises `RemoteError`, `Stopped`."""
    begin = _read_announced(journal, crew)
    if begin is None:
        return set()
    end = replace(begin, kind="end")
    try:
        Patience(crew).run(lambda: journal.storage.size(Address(f"{DIRECTORY}{end}")))
    except RemoteMissing:
        return {begin}
    return {begin, end}


def logs_there(journal: Journal, crew: Crew) -> set[LogName]:
    """The logs that are on a remote just now. Raises `RemoteError`, `Stopped`."""

    def look() -> set[LogName]:
        keys = (one.key for one in journal.storage.list(DIRECTORY))
        return set(filter(None, (LogName.parse(key.removeprefix(DIRECTORY)) for key in keys)))

    try:
        return Patience(crew).run(look)
    except (RemoteAbsent, RemoteMissing):
        return set()


def open_elsewhere(journal: Journal, names: set[LogName], own: str) -> set[LogName]:
    """The begins among logs of transactions that others may be working on."""
    ended = {name.transaction for name in names if name.kind == "end"} | {own}
    begun = {name for name in names if name.kind == "begin" and name.transaction not in ended}
    return {name for name in begun if not journal.is_dead(name)}


def _deletes(journal: Journal, name: LogName, crew: Crew) -> bool:
    """One that cannot be read may."""

    def read() -> bytes:
        parts, total = [], 0
        with journal.storage.read(Address(f"{DIRECTORY}{name}")) as body:
            for part in body:
                crew.check()
                parts.append(part)
                total += len(part)
                if total > LARGEST:
                    raise RemoteCorrupt(f"the log {name} is longer than any may be")
        return b"".join(parts)

    try:
        log = read_log(name, Patience(crew).run(read))
    except RemoteMissing:
        return False  # withdrawn just now
    except RemoteCorrupt:
        return True
    return bool(log.fault) or any(record.op == "DELETE" for record in log.records)
