"""When a remote is not collected, and why: one line each."""

from __future__ import annotations

from collections.abc import Sequence

from store.errors import InputError
from store.oid import Oid
from store.oplog.holdings import Holdings
from store.oplog.transactions import Journal


def refuse(name: str, why: str) -> InputError:
    """The refusal of a remote."""
    return InputError(f"no garbage is collected on {name}: {why}")


def check_readable(name: str, journal: Journal) -> None:
    """Could all logs be read? Raises `InputError`."""
    if journal.notes:
        raise refuse(name, f"not all of its logs can be read: {journal.notes[0]}")


def check_logs(name: str, held: Holdings, projects: frozenset[str]) -> None:
    """Do the logs tell all that has to be known? Raises `InputError`."""
    if held.faults:
        remedy = (
            f"`fusefs remote fsck {name} --end-open` ends what was torn; a newer fusefs reads its own logs"
        )
        raise refuse(name, f"{held.faults[0]}; {remedy}")
    if held.open:
        begin = held.open[0].begin.name
        remedy = f"wait for it, or end it by `fusefs remote fsck {name}` if it has died"
        raise refuse(name, f"the transaction {begin.transaction} has begun and not ended; {remedy}")
    others = sorted(held.projects - projects)
    if others:
        many = f" and {len(others) - 1} more" if len(others) > 1 else ""
        remedy = f"name its directory with --project; if there is none any more, say --without {others[0]}"
        raise refuse(name, f"the project {others[0]}{many} uses it, too; {remedy}")


def refuse_strays(name: str, strays: Sequence[Oid]) -> InputError:
    """There are objects that nobody has told of."""
    many = f"{len(strays)} objects are in no log and named by no kept revision, such as {strays[0]}"
    remedy = (
        "name the project that they belong to with --project, or say that they are this one's with "
        f"`fusefs remote fsck {name} --adopt`"
    )
    return refuse(name, f"{many}; {remedy}")
