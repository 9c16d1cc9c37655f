"""`write_base`: one log that takes the place of many, when a remote has been held against them.

A base is read back before the logs that it covers are removed, begins before their ends, so a crash leaves
every object that was known known, and no transaction open that had ended.

Caller: `store.oplog.checking`. Blocking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from store.errors import RemoteError
from store.oplog.holdings import Key, base_records
from store.oplog.identities import new_transaction
from store.oplog.logs import DIRECTORY, Log, LogName, read_log, write_log
from store.oplog.transactions import Journal
from store.remotes.storage import Address

_DELETED_AT_ONCE: Final = 1000


def write_base(
    journal: Journal,
    base: Mapping[Key, int],
    logs: Sequence[Log],
    latest: Sequence[str],
    ended: Sequence[LogName],
    torn: Sequence[LogName],
) -> bool:
    """Write a base, unless there is nothing but one that says the same, and remove those of the `logs`, which
    are whole, that it stands for. Also logs of transactions that have `ended` since, and those that were
    `torn` and tell nobody anything: what they were about is in no log then.

    Raises `RemoteError`."""
    transactions = {one.transaction for one in ended}
    covered = {log.name.transaction for log in logs if log.name.kind != "begin"}
    if not transactions and not torn and (_is_one_base(logs, base) or not (logs or base)):
        return False
    after = sorted({*latest, *transactions})
    name = LogName("base", journal.writer.project, journal.writer.access, new_transaction())
    projects = {one.project for one in torn}.union(
        *({log.name.project, *log.projects} for log in logs), {one.project for one in ended}
    )
    others = tuple(sorted(projects - {name.project}))
    data = write_log(Log(name, tuple(after), list(base_records(base)), projects=others))
    journal.put(str(name), data)
    with journal.storage.read(Address(f"{DIRECTORY}{name}")) as body:
        kept = b"".join(body)
    if kept != data or read_log(name, kept).fault:
        raise RemoteError(f"{journal.name} has kept another base than it was given; all logs stay")
    # A log that a repair or an end has just written goes, too: the base comes after it.
    gone = [log.name for log in logs if log.name.transaction in covered | transactions]
    gone += [*(replace(one, kind="end") for one in ended), *torn]
    gone += [replace(one, kind="begin") for one in gone if one.kind == "end"]  # which need not be here
    for of_kind in (("begin",), ("end", "base")):
        names = sorted({str(one) for one in gone if one.kind in of_kind})
        for start in range(0, len(names), _DELETED_AT_ONCE):
            some = names[start : start + _DELETED_AT_ONCE]
            journal.storage.delete([DIRECTORY + one for one in some])
            journal.copies.forget(journal.key, some)
    journal.copies.compile(journal.key)
    return True


def _is_one_base(logs: Sequence[Log], base: Mapping[Key, int]) -> bool:
    """Do the logs consist of one base that says the same?"""
    if len(logs) != 1 or logs[0].name.kind != "base":
        return False
    return {(record.path, record.oid): record.size for record in logs[0].records} == base
