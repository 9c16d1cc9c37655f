"""`RemoteCollection`: deletes of a remote what no kept revision names, as a transaction of its logs.

    logs read → objects listed → plan │ begin → logs looked at again → manifests → proved gone → files → end

Logs say whose the objects are: nothing goes that no log tells of, and nothing at all where another project
has written. Whoever begins to work there ends a collection before its next deletions, and no push relies on
what it finds as long as a begin that deletes stands there (`store.oplog.giving_way`). A manifest that stays,
because it is kept or young, keeps what it names. Files go when all manifests that were to go are seen to be
gone, so none that can be read names what is not there, wherever a collection ends. What was deleted is asked
for before it is told; where that cannot be the transaction stays open, for a check.

Caller: `fusefs gc`. Blocking; the caller's thread watches, others work.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from store.collecting.asking import find_lacking
from store.collecting.kept import Kept, Manifests
from store.collecting.plan import Outcome, Plan, amount_of, in_order
from store.collecting.refusals import check_logs, check_readable, refuse, refuse_strays
from store.contents.names import ROOT
from store.errors import LockTimeout, RemoteDenied, RemoteError, RemoteMissing, StoreError
from store.layouts import object_path
from store.oid import Oid
from store.oplog.giving_way import logs_there
from store.oplog.holdings import Holdings, Key
from store.oplog.listing import list_objects
from store.oplog.logs import Log, LogName, Record, format_oid, write_log
from store.oplog.transactions import Journal
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.pushing.lacking import NOT_HERE, Item
from store.remotes.remote import Remote
from store.remotes.storage import Listed

BATCH: Final = 256
"""Objects at a time: a push waits for so many deletions at most."""
END_SECONDS: Final = 600.0
"""For asking what is gone, and telling it: a million objects take minutes."""

LOOKS: Final = 3
"""At logs that change meanwhile."""

YOUNG: Final = "young"
STILL_THERE: Final = "still there"


class Interfered(LockTimeout):
    """Somebody else works on the remote: nothing more is deleted."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a plan rests on."""

    logs: frozenset[LogName]
    latest: tuple[str, ...]


class RemoteCollection:
    """One collection of one remote."""

    def __init__(
        self,
        remote: Remote,
        journal: Journal,
        kept: Kept,
        manifests: Manifests,
        *,
        projects: frozenset[str],
        grace: float,
        tick: Callable[[], object] = lambda: None,
    ) -> None:
        """`projects` are those whose revisions `kept` comes from. `grace` is in seconds, by the storage's
        clock. `manifests` asks the remote itself for what no cache has."""
        self._remote = remote
        self._journal = journal
        self._kept = kept
        self._manifests = manifests
        self._projects = projects
        self._grace = grace
        self._crew = Crew(tick)
        self._patience = Patience(self._crew)
        self._seen = _Seen(frozenset(), ())
        self._attempted: list[Item] = []

    def plan(self) -> Plan:
        """Look at everything. Raises `InputError` where the remote is not to be collected, `RemoteError`."""
        plans: list[Plan] = []
        self._crew.run([lambda: plans.append(self._plan())])
        return plans[0]

    def collect(self, plan: Plan, outcome: Outcome) -> None:
        """Delete. `outcome` is filled as it goes on.

        Raises `Interfered` where somebody else has begun to work on the remote, `RemoteError`."""
        if not plan.garbage:
            return
        with self._journal.running() as transaction:
            begin = self._begin(transaction, plan.garbage)
            try:
                self._crew.run([lambda: self._check_alone(begin)])
                self._delete([item for item in plan.garbage if item.oid.is_tree], begin, outcome)
                self._delete([item for item in plan.garbage if not item.oid.is_tree], begin, outcome)
            except (Interfered, RemoteDenied):
                self._end(transaction, outcome)
                raise
            except BaseException:
                # A deletion may still be on its way.
                if self._attempted:
                    outcome.notes.append(
                        f"what was deleted is not known; `fusefs remote fsck {self._remote.name}` finds out"
                    )
                else:
                    self._end(transaction, outcome)
                raise
            self._end(transaction, outcome)

    def _plan(self) -> Plan:
        journal, remote = self._journal, self._remote
        if not remote.can_list:
            raise refuse(remote.name, "it cannot be listed")
        logs = self._read_logs()
        held = journal.copies.settle(journal.key)
        check_logs(remote.name, held, self._projects)
        self._seen = _Seen(logs, held.latest)
        there = self._patience.run(lambda: self._list(held))
        unnamed = [(item, listed) for item, listed in there if item.oid not in self._kept]
        keys = ((item.oid, _key(item.oid)) for item, _ in unnamed)
        strays = [oid for oid, key in keys if key not in held.there and key not in held.unsure]
        if strays:
            raise refuse_strays(remote.name, strays)
        since = time.time() - self._grace
        young = {item.oid for item, listed in unnamed if not 0 < listed.modified <= since}
        held_back = self._manifests.members(oid for oid in young if oid.is_tree)
        staying = [item for item, _ in unnamed if item.oid in young or item.oid in held_back]
        garbage = [item for item, _ in unnamed if item.oid not in young and item.oid not in held_back]
        kept = amount_of(item for item, _ in there if item.oid in self._kept)
        stays = {YOUNG: amount_of(staying)} if staying else {}
        return Plan(amount_of(item for item, _ in there), kept, in_order(garbage), stays)

    def _read_logs(self) -> frozenset[LogName]:
        """Read what is new of the logs; those that there are. Raises `InputError`, `RemoteError`."""
        journal = self._journal
        for _ in range(LOOKS):
            journal.refresh()
            check_readable(self._remote.name, journal)
            logs = logs_there(journal, self._crew)
            if not self._patience.run(lambda: journal.copies.is_behind(journal.key, journal.storage)):
                return frozenset(logs)
        raise refuse(self._remote.name, "others are working on it just now")

    def _list(self, held: Holdings) -> list[tuple[Item, Listed]]:
        with contextlib.suppress(RemoteMissing):
            if next(iter(self._remote.storage.list(ROOT)), None) is not None:
                raise refuse(self._remote.name, f"its content directories ({ROOT}) are not collected yet")
        found = []
        for oid, listed in list_objects(self._remote.storage, (*held.there, *held.unsure)):
            self._crew.check()
            found.append((Item(oid, listed.size), listed))
        return found

    def _begin(self, transaction: str, garbage: Sequence[Item]) -> LogName:
        """Write a begin, to the remote itself: where it takes none nothing is deleted."""
        writer = self._journal.writer
        name = LogName("begin", writer.project, writer.access, transaction)
        log = Log(name, self._seen.latest, [_record(item) for item in garbage])
        try:
            self._crew.run([lambda: self._journal.put(str(name), write_log(log))])
        except BaseException:
            with contextlib.suppress(StoreError):
                self._journal.withdraw(transaction)
            raise
        return name

    def _check_alone(self, begin: LogName) -> None:
        """Raises `Interfered` where there is a log that the plan does not rest on."""
        others = logs_there(self._journal, self._crew) - {begin}
        if others != self._seen.logs:
            raise Interfered(
                f"somebody else works on {self._remote.name} now: nothing more was deleted; try again later"
            )

    def _delete(self, items: Sequence[Item], begin: LogName, outcome: Outcome) -> None:
        """Delete, and see that they are gone."""
        storage = self._remote.storage
        for start in range(0, len(items), BATCH):
            some = items[start : start + BATCH]
            self._crew.run([lambda: self._check_alone(begin)])
            self._attempted += some
            keys = [object_path(item.oid) for item in some]
            self._crew.run([lambda keys=keys: self._patience.run(lambda: storage.delete(keys))])  # type: ignore[misc]
        self._settle(self._crew, outcome)
        left = outcome.left.get(STILL_THERE, 0)
        if left:
            raise RemoteError(
                f"{self._remote.name} said that it has deleted {left} objects that are still there; "
                "nothing more was deleted"
            )

    def _settle(self, crew: Crew, outcome: Outcome) -> None:
        """Ask what is gone of all that was to be deleted. Raises `RemoteError`."""
        if not self._attempted:
            return
        asked = [item._replace(size=NOT_HERE) for item in self._attempted]
        gone = find_lacking(self._remote, asked, crew)
        outcome.deleted += [item for item in self._attempted if item.oid in gone]
        left = len(self._attempted) - len(gone)
        if left:
            outcome.left[STILL_THERE] = outcome.left.get(STILL_THERE, 0) + left
        self._attempted = []

    def _end(self, transaction: str, outcome: Outcome) -> None:
        """Tell what was done, in a thread that is not waited for for ever."""

        def write() -> None:
            try:
                self._settle(Crew(lambda: None), outcome)
                if outcome.deleted:
                    done = [_record(item) for item in outcome.deleted]
                    self._journal.end(transaction, self._seen.latest, done)
                else:
                    self._journal.withdraw(transaction)
            except StoreError as error:
                outcome.notes.append(
                    f"{error}; `fusefs remote fsck {self._remote.name}` finds out what is gone"
                )

        thread = threading.Thread(target=write, name="log-end", daemon=True)
        thread.start()
        thread.join(END_SECONDS)


def _key(oid: Oid) -> Key:
    return object_path(oid), format_oid(oid)


def _record(item: Item) -> Record:
    return Record("DELETE", object_path(item.oid), format_oid(item.oid), item.size)
