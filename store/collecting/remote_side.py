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
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from store.collecting.asking import find_gone
from store.collecting.content_side import UNLOGGED, YOUNG, ContentGarbage
from store.collecting.kept import Kept, Manifests
from store.collecting.plan import INDEXES, STAGES, Amount, Outcome, Plan, Progress, Thing, amount_of, in_order
from store.collecting.refusals import check_logs, check_readable, refuse, refuse_strays
from store.contents.names import ARCHIVE, ARCHIVE_INDEX, parse_key
from store.errors import InputError, LockTimeout, RemoteDenied, RemoteError, StoreError
from store.oplog.giving_way import announce, is_announced, logs_there, take_back
from store.oplog.holdings import Holdings
from store.oplog.listing import list_objects
from store.oplog.logs import Log, LogName, Record, format_oid, parse_oid, write_log
from store.oplog.transactions import Journal
from store.pushing.asking import Patience
from store.pushing.crew import Crew
from store.pushing.lacking import Item
from store.remotes.remote import Remote
from store.remotes.storage import Listed

BATCH: Final = 256
"""Objects at a time: a push waits for so many deletions at most."""
END_SECONDS: Final = 600.0
"""For asking what is gone, and telling it: a million objects take minutes."""

LOOKS: Final = 3
"""At logs that change meanwhile."""

STILL_THERE: Final = "still there"


class Interfered(LockTimeout):
    """Somebody else works on the remote: nothing more is deleted."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a plan rests on."""

    logs: frozenset[LogName]
    latest: tuple[str, ...]
    keys: Mapping[str, Sequence[str]]
    """Path → the oids of what logs say that is there."""


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
        progress: Progress | None = None,
    ) -> None:
        """`projects` are those whose revisions `kept` comes from. `grace` is in seconds, by the storage's
        clock. `manifests` asks the remote itself for what no cache has. `tick` is called a few times a
        second, to show `progress`."""
        self._progress = progress or Progress()
        self._remote = remote
        self._journal = journal
        self._kept = kept
        self._manifests = manifests
        self._projects = projects
        self._grace = grace
        self._crew = Crew(tick)
        self._patience = Patience(self._crew)
        self._seen = _Seen(frozenset(), (), {})
        self._attempted: list[Thing] = []

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
                self._progress.begin("deleting", len(plan.garbage))
                for kinds in STAGES:
                    self._delete([one for one in plan.garbage if one.kind in kinds], begin, outcome)
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
        keys: dict[str, list[str]] = {}
        for path, name in (*held.there, *held.unsure):
            keys.setdefault(path, []).append(name)
        self._seen = _Seen(logs, held.latest, keys)
        there = self._patience.run(lambda: self._list(held))
        since = time.time() - self._grace
        contents = ContentGarbage(remote.storage, self._kept, keys.__contains__, since, Crew(lambda: None))
        self._progress.begin("listing content directories")
        self._patience.run(contents.list_all)
        unnamed = [(item, listed) for item, listed in there if item.oid not in self._kept]
        strays = [
            item.oid for item, listed in unnamed if format_oid(item.oid) not in keys.get(listed.key, ())
        ]
        if strays:
            self._check_calm()
            raise refuse_strays(remote.name, strays)
        young = {item.oid for item, listed in unnamed if not 0 < listed.modified <= since}
        staying = itertools.chain((oid for oid in young if oid.is_tree), contents.staying_manifests())
        try:
            members = self._manifests.members(staying)
        except InputError:
            self._check_calm()
            raise
        self._progress.begin("reading the indexes of content directories")
        verdict = contents.judge(members)
        stays = [item for item, _ in unnamed if item.oid in young or item.oid in members]
        garbage = [item for item, _ in unnamed if item.oid not in young and item.oid not in members]
        amounts = dict(verdict.stays)
        things = in_order([*(Thing.of(*item) for item in garbage), *verdict.garbage])
        if things and not self._records(things):  # indexes that nothing is left of are no transaction
            amounts[UNLOGGED] = amount_of(things).plus(amounts.get(UNLOGGED, Amount()))
            things = []
        if stays:
            amounts[YOUNG] = amount_of(stays).plus(amounts.get(YOUNG, Amount()))
        return Plan(
            amount_of(item for item, _ in there).plus(verdict.there),
            amount_of(item for item, _ in there if item.oid in self._kept).plus(verdict.kept),
            things,
            amounts,
        )

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

    def _check_calm(self) -> None:
        """What was found may be of a push that began meanwhile. Raises `InputError`."""
        if logs_there(self._journal, self._crew) != self._seen.logs:
            raise refuse(self._remote.name, "others are working on it just now")

    def _list(self, held: Holdings) -> list[tuple[Item, Listed]]:
        found = []
        self._progress.begin(f"listing {self._remote.name}")
        for oid, listed in list_objects(self._remote.storage, (*held.there, *held.unsure)):
            self._crew.check()
            self._progress.done += 1
            found.append((Item(oid, listed.size), listed))
        return found

    def _begin(self, transaction: str, garbage: Sequence[Thing]) -> LogName:
        """Write a begin, to the remote itself: where it takes none nothing is deleted."""
        name = self._name(transaction)
        log = Log(name, self._seen.latest, self._records(garbage))
        try:
            self._crew.run([lambda: self._write_begin(name, write_log(log))])
        except BaseException:
            with contextlib.suppress(StoreError):
                self._journal.withdraw(transaction)
            raise
        return name

    def _name(self, transaction: str) -> LogName:
        writer = self._journal.writer
        return LogName("begin", writer.project, writer.access, transaction)

    def _write_begin(self, name: LogName, data: bytes) -> None:
        if not self._patience.run(lambda: announce(self._journal, name)):
            raise self._interfered()
        self._journal.put(str(name), data)

    def _check_alone(self, begin: LogName) -> None:
        """Raises `Interfered` where there is a log that the plan does not rest on, or another collection has
        said that it begins."""
        others = logs_there(self._journal, self._crew) - {begin}
        if others != self._seen.logs or not is_announced(self._journal, begin, self._crew):
            raise self._interfered()

    def _interfered(self) -> Interfered:
        return Interfered(
            f"somebody else works on {self._remote.name} now: nothing more was deleted; try again later"
        )

    def _delete(self, things: Sequence[Thing], begin: LogName, outcome: Outcome) -> None:
        """Delete, and see that they are gone."""
        storage = self._remote.storage
        for start in range(0, len(things), BATCH):
            some = things[start : start + BATCH]
            self._crew.run([lambda: self._check_alone(begin)])
            self._attempted += some
            keys = [thing.path for thing in some]
            self._crew.run([partial(self._patience.run, partial(storage.delete, keys))])
            self._progress.done += len(some)
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
        gone = find_gone(self._remote, self._attempted, crew)
        outcome.deleted += gone
        left = len(self._attempted) - len(gone)
        if left:
            outcome.left[STILL_THERE] = outcome.left.get(STILL_THERE, 0) + left
        self._attempted = []

    def _end(self, transaction: str, outcome: Outcome) -> None:
        """Tell what was done, in a thread that is not waited for for ever."""

        begin = self._name(transaction)

        def write() -> None:
            try:
                self._settle(Crew(lambda: None), outcome)
                done = self._records(outcome.deleted)
                if done:
                    self._journal.end(transaction, self._seen.latest, done)
                else:
                    self._journal.withdraw(transaction)
                with contextlib.suppress(RemoteError):
                    take_back(self._journal, begin, Crew(lambda: None))
            except StoreError as error:
                outcome.notes.append(
                    f"{error}; `fusefs remote fsck {self._remote.name}` finds out what is gone"
                )

        thread = threading.Thread(target=write, name="log-end", daemon=True)
        thread.start()
        thread.join(END_SECONDS)

    def _records(self, things: Sequence[Thing]) -> list[Record]:
        """What logs tell of things that are deleted: of archives, and of their indexes, which go before them,
        of all that was in them."""
        keys = self._seen.keys
        found = {(thing.path, name): None for thing in things for name in keys.get(thing.path, ())}
        for thing in things:
            place = parse_key(thing.path) if thing.kind == INDEXES else None
            if place is not None and place.file == ARCHIVE_INDEX:
                for path in place.name.keys(ARCHIVE):
                    members = (name for name in keys.get(path, ()) if parse_oid(name) is not None)
                    found.update(((path, name), None) for name in members)
        return [Record("DELETE", *key) for key in found]
