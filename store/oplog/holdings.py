"""`settle`: many logs of one remote → what it holds, without asking it.

A transaction comes after those that it names, and after theirs; two that do not know of each other are
concurrent. Of every object the latest operations count: if they agree it is there or it is not, if they do
not nobody knows, and whoever must know asks the remote. So it is with what an unfinished transaction had
planned. A base stands for everything that it comes after.

Pure; any thread. Linear in the records; the bits of (transactions)² beside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from store.oplog.logs import Log, Record

Key = tuple[str, str]
"""A path, and the oid of what is there."""


@dataclass(frozen=True, slots=True)
class Open:
    """A transaction that began and has no whole end: it runs, or it died."""

    begin: Log


@dataclass(frozen=True, slots=True)
class Holdings:
    """What is known of a remote from its logs."""

    there: Mapping[Key, int]
    """Objects that are there, and their lengths in bytes (-1 where not told)."""
    unsure: frozenset[Key]
    """Which may be there or not."""
    open: tuple[Open, ...]
    faults: tuple[str, ...]
    """A line for each log that was left out."""
    projects: frozenset[str]
    """Whose logs there are."""
    latest: tuple[str, ...]
    """The transactions that no other comes after: what the next one names."""


def settle(logs: Iterable[Log]) -> Holdings:
    """Find out what a remote holds after all these transactions."""
    whole: dict[str, Log] = {}
    begun: dict[str, Log] = {}
    faults: list[str] = []
    projects: set[str] = set()
    for log in logs:
        projects.update((log.name.project, *log.projects))
        if log.fault:
            faults.append(f"{log.name}: {log.fault}")
        elif log.name.kind == "begin":
            begun[log.name.transaction] = log
        else:
            whole[log.name.transaction] = log
    unfinished = tuple(Open(log) for transaction, log in begun.items() if transaction not in whole)
    order, ancestors, circular = _order(whole)
    faults += [f"{whole[transaction].name}: it comes after itself" for transaction in circular]
    state = _State(ancestors)
    for transaction in order:
        state.apply(transaction, whole[transaction])
    there, unsure = state.settle()
    for one in unfinished:
        for record in one.begin.records:
            key = (record.path, record.oid)
            if record.op == "DELETE" or (record.op == "PUT" and key not in there):
                unsure.add(key)
                there.pop(key, None)
    latest = _latest(order, ancestors)
    return Holdings(there, frozenset(unsure), unfinished, tuple(faults), frozenset(projects), latest)


def base_records(there: Mapping[Key, int]) -> Iterator[Record]:
    """What a new base says. Whoever writes one has asked the remote for what was unsure: what a base does not
    name is not there."""
    for (path, oid), size in sorted(there.items()):
        yield Record("HAS", path, oid, size)


@dataclass(slots=True)
class _State:
    """The latest operations on every object, while transactions are gone through in order."""

    ancestors: Mapping[str, int]
    bits: dict[str, int] = field(default_factory=dict)
    latest: dict[Key, list[tuple[str, Record]]] = field(default_factory=dict)

    def apply(self, transaction: str, log: Log) -> None:
        before = self.ancestors[transaction]
        if log.name.kind == "base":
            for key, operations in list(self.latest.items()):
                self._keep(key, [one for one in operations if not self._is_before(one[0], before)])
        for record in log.records:
            if record.op == "GET":
                continue
            key = (record.path, record.oid)
            earlier = self.latest.get(key, ())
            kept = [one for one in earlier if one[0] != transaction and not self._is_before(one[0], before)]
            self.latest[key] = [*kept, (transaction, record)]
        self.bits[transaction] = 1 << len(self.bits)

    def _is_before(self, transaction: str, ancestors: int) -> bool:
        return bool(self.bits.get(transaction, 0) & ancestors)

    def _keep(self, key: Key, operations: list[tuple[str, Record]]) -> None:
        if operations:
            self.latest[key] = operations
        else:
            del self.latest[key]

    def settle(self) -> tuple[dict[Key, int], set[Key]]:
        there: dict[Key, int] = {}
        unsure: set[Key] = set()
        for key, operations in self.latest.items():
            removed = sum(record.op == "DELETE" for _, record in operations)
            if not removed:
                there[key] = max(record.size for _, record in operations)
            elif removed < len(operations):
                unsure.add(key)
        return there, unsure


def _order(logs: Mapping[str, Log]) -> tuple[list[str], dict[str, int], list[str]]:
    """Transactions, each behind all that it comes after; all that each comes after, as bits in that order;
    and those that come after themselves, which only a liar writes."""
    waits = {one: {other for other in log.after if other in logs} for one, log in logs.items()}
    followers: dict[str, list[str]] = {}
    for one, others in waits.items():
        for other in others:
            followers.setdefault(other, []).append(one)
    ready = sorted(one for one, others in waits.items() if not others)
    order: list[str] = []
    bits: dict[str, int] = {}
    ancestors: dict[str, int] = {}
    while ready:
        one = ready.pop()
        bits[one] = 1 << len(order)
        order.append(one)
        ancestors[one] = 0
        for other in logs[one].after:
            if other in bits:
                ancestors[one] |= bits[other] | ancestors[other]
        for follower in followers.get(one, ()):
            waits[follower].discard(one)
            if not waits[follower]:
                ready.append(follower)
    return order, ancestors, sorted(set(logs) - set(order))


def _latest(order: Sequence[str], ancestors: Mapping[str, int]) -> tuple[str, ...]:
    covered = 0
    for one in order:
        covered |= ancestors[one]
    return tuple(sorted(one for place, one in enumerate(order) if not covered >> place & 1))
