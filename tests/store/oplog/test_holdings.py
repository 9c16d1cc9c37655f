"""What follows from logs: order by knowledge, not by clocks; doubt where two knew nothing of each other."""

from __future__ import annotations

import itertools
import random

from store.oplog.holdings import base_records, settle
from store.oplog.logs import Kind, Log, LogName, Record, Verb

A, B = ("a", "md5:" + "aa" * 16), ("b", "md5:" + "bb" * 16)


def log(
    kind: Kind, number: int, after: tuple[int, ...] = (), *operations: tuple[Verb, tuple[str, str]]
) -> Log:
    name = LogName(kind, "1" * 32, "2" * 16, f"{number:032x}")
    records = tuple(Record(op, path, oid, 5) for op, (path, oid) in operations)
    return Log(name, tuple(f"{other:032x}" for other in after), records)


def test_what_was_put_is_there_and_what_was_deleted_is_not() -> None:
    logs = [
        log("end", 1, (), ("PUT", A), ("PUT", B)),
        log("end", 2, (1,), ("DELETE", A), ("GET", B)),
    ]
    for order in itertools.permutations(logs):
        held = settle(order)
        assert (dict(held.there), held.unsure, held.faults) == ({B: 5}, frozenset(), ())
        assert held.latest == (f"{2:032x}",)


def test_order_goes_through_transactions_that_did_nothing_to_it() -> None:
    logs = [log("end", 1, (), ("PUT", A)), log("end", 2, (1,)), log("end", 3, (2,), ("DELETE", A))]
    for order in itertools.permutations(logs):
        assert not settle(order).there


def test_two_that_did_not_know_of_each_other() -> None:
    put, delete = log("end", 1, (), ("PUT", A)), log("end", 2, (), ("DELETE", A))
    assert settle([put, delete]).unsure == {A}
    again = log("end", 3, (), ("PUT", A))
    assert settle([put, again]).there == {A: 5}
    later = log("end", 4, (1, 2), ("PUT", A))
    held = settle([put, delete, later])
    assert (dict(held.there), held.unsure) == ({A: 5}, frozenset())


def test_what_an_unfinished_transaction_planned_is_unsure() -> None:
    logs = [log("end", 1, (), ("PUT", A)), log("begin", 2, (1,), ("DELETE", A), ("PUT", B))]
    held = settle(logs)
    assert (dict(held.there), held.unsure) == ({}, {A, B})
    assert [one.begin.name.transaction for one in held.open] == [f"{2:032x}"]
    ended = settle([*logs, log("end", 2, (1,), ("PUT", B))])
    assert (dict(ended.there), ended.unsure, ended.open) == ({A: 5, B: 5}, frozenset(), ())


def test_putting_what_is_there_once_more_loses_nothing() -> None:
    assert settle([log("end", 1, (), ("PUT", A)), log("begin", 2, (1,), ("PUT", A))]).there == {A: 5}


def test_a_torn_end_is_no_end() -> None:
    torn = Log(LogName("end", "1" * 32, "2" * 16, f"{2:032x}"), fault="it is torn")
    held = settle([log("end", 1, (), ("PUT", A)), log("begin", 2, (1,), ("DELETE", A)), torn])
    assert held.unsure == {A}
    assert len(held.faults) == 1


def test_a_base_stands_for_all_before_it() -> None:
    logs = [log("end", 1, (), ("PUT", A), ("PUT", B)), log("end", 2, (1,), ("DELETE", A))]
    base = log("base", 3, (1, 2), ("HAS", B))
    concurrent = log("end", 4, (1,), ("PUT", ("c", "")))
    everything = [*logs, base, concurrent]
    for count in range(3):  # the logs that it was made of may be gone
        held = settle(everything[count:])
        assert dict(held.there) == {B: 5, ("c", ""): 5}
        assert not held.unsure
    later = log("end", 5, (3,), ("DELETE", B))
    assert dict(settle([*everything, later]).there) == {("c", ""): 5}


def test_one_that_comes_after_itself_is_left_out() -> None:
    held = settle(
        [log("end", 1, (2,), ("PUT", A)), log("end", 2, (1,), ("PUT", B)), log("end", 3, (), ("PUT", B))]
    )
    assert dict(held.there) == {B: 5}
    assert len(held.faults) == 2


def test_a_base_of_what_is_known_says_the_same() -> None:
    """Random histories in which everybody knows some of what was before, in any order of reading."""
    for seed in range(200):
        order = random.Random(seed)
        keys = [(f"p{n}", "") for n in range(4)]
        logs: list[Log] = []
        for number in range(8):
            after = tuple(order.sample(range(number), order.randrange(number + 1)))
            verbs: list[Verb] = ["PUT", "DELETE"]
            operations = [(order.choice(verbs), order.choice(keys)) for _ in range(3)]
            chosen = {key: verb for verb, key in operations}
            logs.append(log("end", number, after, *((verb, key) for key, verb in chosen.items())))
        held = settle(logs)
        shuffled = order.sample(logs, len(logs))
        assert settle(shuffled) == held
        if held.unsure:
            continue  # nobody may write a base yet
        records = tuple(base_records(held.there))
        base = Log(
            LogName("base", "1" * 32, "2" * 16, "f" * 32), tuple(f"{n:032x}" for n in range(8)), records
        )
        for kept in range(len(logs) + 1):
            again = settle([*shuffled[kept:], base])
            assert again.there == held.there
