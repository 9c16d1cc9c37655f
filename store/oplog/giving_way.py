"""Who changes a remote gives way to a garbage collection there, which gives way, too.

A collection writes its begin and then looks whether anybody else has begun; so does everybody else. Of two at
least one sees the other. The collection ends itself before its next deletions, and the other waits for that:
only then what it finds on the remote stays there.

Callers: whoever relies on what a remote has. Blocking; any thread.
"""

from __future__ import annotations

import time
from typing import Final

from store.errors import LockTimeout, RemoteAbsent, RemoteCorrupt, RemoteDenied, RemoteMissing
from store.oplog.logs import DIRECTORY, LARGEST, LogName, read_log
from store.oplog.transactions import Journal
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.remotes.storage import Address

WAIT_SECONDS: Final = 60.0
"""A collection that sees us is soon done; one that does not is on a machine that has been cut off."""
PAUSE_SECONDS: Final = 0.5


def wait_for_collections(journal: Journal, own: str, crew: Crew, seconds: float = WAIT_SECONDS) -> bool:
    """Wait until no transaction but `own`, whose begin is written, may delete objects; whether there was one.

    Where logs cannot be listed nobody can collect garbage by them. Raises `LockTimeout`, `RemoteError`,
    `Stopped`.
    """
    until = time.monotonic() + seconds
    harmless: set[LogName] = set()
    waited = False
    while True:
        try:
            names = logs_there(journal, crew) if journal.storage.can_list else set()
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
