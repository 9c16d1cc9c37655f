"""Garbage of a remote is collected as a transaction: nothing that is kept goes, whatever ends it."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from store.cache_chain import CacheChain
from store.collecting.claims import Claim
from store.collecting.kept import Manifests, keep
from store.collecting.plan import Outcome, Plan
from store.collecting.remote_side import Interfered, RemoteCollection
from store.errors import (
    InputError,
    LockTimeout,
    ObjectMissing,
    RemoteDenied,
    RemoteError,
    RemoteUnreachable,
    StoreError,
)
from store.local_cache import LocalCache
from store.oid import Oid
from store.oplog import giving_way
from store.oplog.giving_way import COLLECTING
from store.oplog.logs import DIRECTORY, Log, LogName, Record, write_log
from store.pushing import asking
from store.remotes.opening import open_remote
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from tests.mount.datasets import filler, md5
from tests.store.oplog.remotes import Counted, User, dies, names
from tests.store.remotes.contract import LIMITS

OLD = {f"dir{number % 2}/{number}": filler(500 + 17 * number, number) for number in range(4)}
NEW = {**OLD, "dir0/0": b"changed", "more": b"more"}
DAY = 86400.0
NOBODY = str(LogName("begin", "1" * 32, "2" * 16, "3" * 32))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(giving_way, "PAUSE_SECONDS", 0.01)


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path / "user", RemoteSpec("far", str(tmp_path / "remote")))


@pytest.fixture
def other(tmp_path: Path) -> User:
    return User(tmp_path / "other", RemoteSpec("afar", str(tmp_path / "remote")), access="b" * 16)


def copied(made: User, home: Path) -> User:
    """The same user with a remote and a cache of his own."""
    shutil.copytree(made.root, home / "remote")
    shutil.copytree(made.cache, home / "cache")
    return User(home, RemoteSpec("far", str(home / "remote")))


def nobody(oids: Sequence[Oid]) -> dict[Oid, bytes | StoreError]:
    return {oid: ObjectMissing(f"{oid} is nowhere") for oid in oids}


def collection(
    user: User,
    *kept: Oid,
    storage: Counted | None = None,
    grace: float = 0.0,
    projects: frozenset[str] | None = None,
) -> RemoteCollection:
    storage = storage or user.storage()
    manifests = Manifests(CacheChain(LocalCache(user.cache)), nobody)
    found, unknown = keep([Claim(oid, "test", True) for oid in kept], manifests, frozenset())
    assert not unknown
    return RemoteCollection(
        Remote(user.spec.name, storage),
        user.journal(storage),
        found,
        manifests,
        projects=projects if projects is not None else frozenset([user.project]),
        grace=grace,
    )


def collect(user: User, *kept: Oid, storage: Counted | None = None, grace: float = 0.0) -> Outcome:
    work = collection(user, *kept, storage=storage, grace=grace)
    outcome = Outcome()
    work.collect(work.plan(), outcome)
    return outcome


def pushed(user: User) -> tuple[Oid, Oid]:
    """Two versions on the remote."""
    old, new = user.add(OLD), user.add(NEW)
    user.push(old, new)
    return old, new


def planned(plan: Plan) -> set[str]:
    return {str(item.oid) for item in plan.garbage}


def test_what_no_kept_version_names_goes_and_the_logs_know_it(user: User) -> None:
    old, new = pushed(user)
    work = collection(user, new)
    plan = work.plan()
    assert planned(plan) == {str(old), md5(OLD["dir0/0"])}
    assert plan.there.objects == len(names(old, OLD) | names(new, NEW))
    assert plan.kept.objects == len(NEW) + 1 and not plan.stays
    assert user.objects() == names(old, OLD) | names(new, NEW)  # a plan deletes nothing
    outcome = Outcome()
    work.collect(plan, outcome)
    assert {str(item.oid) for item in outcome.deleted} == planned(plan) and not outcome.left
    assert user.objects() == user.known() == names(new, NEW)
    report = user.check()
    assert (report.findings, report.strays, report.running) == ([], [], [])
    assert not collection(user, new).plan().garbage


def test_manifests_go_before_files_and_the_begin_before_everything(user: User) -> None:
    _, new = pushed(user)
    storage = user.storage()
    collect(user, new, storage=storage)
    changes = [(call, key) for call, key in storage.keys if call in ("put", "delete")]
    told, *changes, taken_back = changes
    assert (told, taken_back) == (("put", COLLECTING), ("delete", COLLECTING))
    assert changes[0][1].startswith(f"{DIRECTORY}begin==") and changes[-1][1].startswith(f"{DIRECTORY}end==")
    deleted = [key for call, key in changes if call == "delete"]
    assert deleted[0].endswith(".dir") and len(deleted) == 2


def test_what_is_young_stays_and_what_it_names(user: User) -> None:
    """Somebody may have pushed it whose commit is not here yet."""
    old, new = pushed(user)
    for path in (user.root / "files").rglob("*"):
        if path.is_file() and path.name != old.digest[2:] + ".dir":
            os.utime(path, (1e9, 1e9))
    plan = collection(user, new, grace=DAY).plan()
    assert not plan.garbage and plan.stays["young"].objects == 2
    assert planned(collection(user, new, grace=0.0).plan()) == {str(old), md5(OLD["dir0/0"])}


def test_a_young_manifest_that_cannot_be_read_stops_everything(user: User) -> None:
    old, new = pushed(user)
    (user.cache / "files/md5" / old.digest[:2] / f"{old.digest[2:]}.dir").unlink()
    with pytest.raises(InputError, match=f"{old} names.*nowhere"):
        collection(user, new, grace=DAY).plan()


def test_objects_in_no_log_are_not_touched(user: User) -> None:
    _, new = pushed(user)
    stray = user.place(md5(b"by dvc"))
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"by dvc")
    with pytest.raises(InputError, match=r"in no log .* --adopt"):
        collection(user, new).plan()
    assert not collection(user, new, Oid(md5(b"by dvc"))).plan().stays  # a project that was given names it
    user.check(adopt=True)
    assert md5(b"by dvc") in planned(collection(user, new).plan())


def test_other_projects_have_to_be_given(user: User, tmp_path: Path) -> None:
    old, new = pushed(user)
    theirs = User(tmp_path / "theirs", user.spec, access="c" * 16, project="2" * 32)
    third = theirs.add({"their": b"own"})
    theirs.push(third)
    with pytest.raises(InputError, match=r"the project 2{32} uses it"):
        collection(user, new).plan()
    user.check()  # makes one base of all logs, which remembers whose they were
    assert user.logs() == ["base"]
    with pytest.raises(InputError, match=r"the project 2{32} uses it"):
        collection(user, new).plan()
    user.add({"their": b"own"})
    both = frozenset([user.project, theirs.project])
    assert planned(collection(user, new, third, projects=both).plan()) == {str(old), md5(OLD["dir0/0"])}


def test_somebodys_open_transaction_stops_a_plan(user: User, other: User) -> None:
    _, new = pushed(user)
    journal = other.journal(other.storage())
    with journal.running() as transaction:
        journal.begin(transaction, (), [Record("PUT", "files/md5/ab/cd", "md5:" + "ab" * 16, 7)])
        with pytest.raises(InputError, match=f"{transaction} has begun"):
            collection(user, new).plan()
    with pytest.raises(InputError, match="fsck far"):
        collection(user, new).plan()


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b'{"log":2}\n{}\n{}\n'])
def test_logs_that_cannot_be_read_stop_a_plan(user: User, damage: Callable[[bytes], bytes]) -> None:
    _, new = pushed(user)
    name = LogName("base", user.project, "9" * 16, "8" * 32)
    (user.root / DIRECTORY / str(name)).write_bytes(damage(write_log(Log(name))))
    with pytest.raises(InputError, match=str(name)):
        collection(user, new).plan()


def test_a_push_that_began_meanwhile_stops_it(user: User, other: User) -> None:
    old, new = pushed(user)
    work = collection(user, new)
    plan = work.plan()
    other.add(OLD)
    other.push(old)  # everything is there, and no log is left; then something new
    other.push(other.add({"theirs": b"theirs"}))
    with pytest.raises(Interfered):
        work.collect(plan, Outcome())
    assert user.objects() >= names(old, OLD) | names(new, NEW)
    assert user.logs() == ["begin", "begin", "end", "end"]  # its begin was withdrawn


class Unlisted(Counted):
    """As a remote over HTTP."""

    @property
    def can_list(self) -> bool:
        return False


@pytest.mark.parametrize("kind", [Counted, Unlisted])
def test_a_push_waits_for_a_collection_and_finds_what_it_left(
    user: User, other: User, kind: type[Counted]
) -> None:
    """The push begins when the first manifest is gone: it puts what it relies on again."""
    old, new = pushed(user)
    other.add(OLD)
    begun = threading.Event()
    pushing: list[threading.Thread] = []

    def begin_push(call: str) -> None:
        if call == "delete" and not pushing:
            opened = open_remote(other.spec, LIMITS).storage
            storage = kind(opened, lambda call: begun.set() if call == "put done" else None)
            pushing.append(threading.Thread(target=other.push, args=[old], kwargs={"storage": storage}))
            pushing[0].start()
            assert begun.wait(60)

    with pytest.raises(Interfered):
        collect(user, new, storage=user.storage(begin_push))
    pushing[0].join()
    assert user.objects() == names(old, OLD) | names(new, NEW)
    user.journal(user.storage()).refresh()
    if kind is Unlisted:  # it knew of no log, so neither of the two came first
        assert not user.check().findings
    assert user.known() == user.objects()


def test_where_nothing_can_be_listed_a_collection_tells_of_itself(
    user: User, other: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = pushed(user)
    other.add(OLD)
    monkeypatch.setattr(giving_way.wait_for_collections, "__defaults__", (0.0,))
    refused: list[str] = []

    def push(call: str) -> None:
        if call == "delete" and not refused:
            with pytest.raises(LockTimeout) as told:
                other.push(old, storage=Unlisted(open_remote(other.spec, LIMITS).storage))
            refused.append(str(told.value))

    collect(user, new, storage=user.storage(push))
    assert "garbage is being collected" in refused[0]
    # What is left behind hinders nobody, for it has ended, or never began.
    for mark in (next(user.root.glob("META/logs/begin==*")).name, NOBODY):
        (user.root / COLLECTING).write_text(mark)
        assert not other.push(old, storage=Unlisted(open_remote(other.spec, LIMITS).storage)).tally.failures
    assert user.objects() == names(old, OLD) | names(new, NEW)
    collect(user, new)
    assert not (user.root / COLLECTING).exists() and user.objects() == names(new, NEW)


def test_who_is_announced_goes_on_alone(user: User) -> None:
    _, new = pushed(user)

    def steal(call: str) -> None:
        mark = user.root / COLLECTING
        if call == "list" and mark.exists():
            mark.write_text(NOBODY)

    work = collection(user, new, storage=user.storage(steal))
    plan = work.plan()
    with pytest.raises(Interfered):
        work.collect(plan, outcome := Outcome())
    assert not outcome.deleted and (user.root / COLLECTING).exists()


def test_a_push_does_not_wait_for_ever(user: User, other: User, monkeypatch: pytest.MonkeyPatch) -> None:
    old, _ = pushed(user)
    monkeypatch.setattr(giving_way, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(giving_way.wait_for_collections, "__defaults__", (0.0,))
    journal = user.journal(user.storage())
    other.add(OLD)
    with journal.running() as transaction:
        path = user.place(old).relative_to(user.root).as_posix()
        journal.begin(transaction, (), [Record("DELETE", path, f"md5:{old}", 7)])
        with pytest.raises(LockTimeout, match="fsck afar --end-open"):
            other.push(old)
        assert user.logs() == ["begin", "begin", "end"]  # theirs was withdrawn
    user.push(user.add({"x": b"x"}))  # its own, which is known to be dead


def test_two_at_once(user: User, other: User) -> None:
    old, new = pushed(user)
    other.add(NEW)
    together = threading.Barrier(2)
    ends: list[BaseException] = []

    def meet() -> Callable[[str], None]:
        puts = itertools.count()

        def put(call: str) -> None:
            if call == "put done" and not next(puts):  # of its begin
                together.wait(60)

        return put

    def work(work: RemoteCollection, plan: Plan) -> None:
        try:
            work.collect(plan, Outcome())
        except BaseException as error:
            ends.append(error)

    works = [collection(who, new, storage=who.storage(meet())) for who in (user, other)]
    threads = [threading.Thread(target=work, args=[one, one.plan()]) for one in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Who gives way withdraws its begin, so the other one may see nobody any more.
    assert {type(end) for end in ends} == {Interfered}
    assert user.objects() == names(new, NEW) | (names(old, OLD) if len(ends) == 2 else set())
    collect(other, new)
    assert user.objects() == names(new, NEW)


def test_a_remote_that_loses_deletes_of_manifests_keeps_the_files(user: User) -> None:
    old, new = pushed(user)
    kept_back = user.place(old).read_bytes()

    def lose(call: str) -> None:
        if call == "delete done" and storage.keys[-1][1].endswith(".dir"):
            user.place(old).write_bytes(kept_back)

    storage = user.storage(lose)
    work, outcome = collection(user, new, storage=storage), Outcome()
    with pytest.raises(RemoteError, match="still there"):
        work.collect(work.plan(), outcome)
    assert not outcome.deleted and outcome.left == {"still there": 1}
    assert user.objects() == names(old, OLD) | names(new, NEW) == user.known()


@pytest.mark.parametrize("place", ["META", "files"])
def test_a_remote_that_denies_keeps_everything(user: User, place: str) -> None:
    old, new = pushed(user)

    def deny(call: str) -> None:
        refused = "put" if place == "META" else "delete"
        if call == refused and storage.keys[-1][1].startswith(place):
            raise RemoteDenied("it is not yours")

    storage = user.storage(deny)
    work = collection(user, new, storage=storage)
    with pytest.raises(RemoteDenied, match="not yours"):
        work.collect(work.plan(), Outcome())
    assert user.objects() == user.known() == names(old, OLD) | names(new, NEW)
    assert user.logs() == ["begin", "end"]


def test_it_may_die_anywhere(tmp_path: Path) -> None:
    """What is kept is there, no manifest names what is gone, and a check and another run end it."""
    made = User(tmp_path / "user", RemoteSpec("far", str(tmp_path / "remote")))
    _, new = pushed(made)
    number, died = 0, True
    while died:
        number += 1
        user = copied(made, tmp_path / str(number))
        died = dies(lambda tell, user=user: collect(user, new, storage=user.storage(tell)), number)  # type: ignore[misc]
        there = user.objects()
        assert there >= names(new, NEW)
        report = user.check()
        assert (report.findings, report.strays, report.running) == ([], [], [])
        assert user.known() == there
        collect(user, new)
        assert user.objects() == user.known() == names(new, NEW)
    assert number > 10


def test_a_remote_may_go_away_anywhere(tmp_path: Path) -> None:
    """With what was done before its k-th answer, and without what was asked then."""
    made = User(tmp_path / "user", RemoteSpec("far", str(tmp_path / "remote")))
    _, new = pushed(made)
    number, failed = 0, True
    while failed:
        number += 1
        user = copied(made, tmp_path / str(number))
        count, failed = itertools.count(1), False

        def tell(call: str, count: Iterator[int] = count, number: int = number) -> None:
            if next(count) >= number:
                raise RemoteUnreachable("it is gone")

        outcome = Outcome()
        work = collection(user, new, storage=user.storage(tell))
        try:
            work.collect(work.plan(), outcome)
        except RemoteError:
            failed = True
        there = user.objects()
        assert there >= names(new, NEW)
        assert not there & {str(thing.oid) for thing in outcome.deleted}
        report = user.check()
        assert (report.findings, report.strays, report.running) == ([], [], [])
        assert user.known() == there
        collect(user, new)
        assert user.objects() == user.known() == names(new, NEW)
    assert number > 10


def test_pushes_and_collections_at_once(user: User, other: User) -> None:
    """In whatever order their steps come: each either ends or says that somebody else is at it."""
    chance = random.Random(7)
    kept = user.add(NEW)
    user.push(kept)
    contents = [bytes([number]) * (100 + number) for number in range(9)]
    failures: list[BaseException] = []

    def push() -> None:
        for _ in range(3):
            files = {str(number): data for number, data in enumerate(chance.sample(contents, 4))}
            assert not other.push(other.add(files)).tally.failures

    def collect_often() -> None:
        for _ in range(6):
            try:
                collect(user, kept)
            except Interfered:
                continue
            except InputError as error:
                assert "has begun" in str(error) or "others are working" in str(error)

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    for _ in range(6):
        threads = [threading.Thread(target=guarded, args=[work]) for work in (push, collect_often)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        there = user.objects()  # and no manifest names what is gone
        assert there >= names(kept, NEW)
        report = user.check()
        assert (report.findings, report.strays, report.running) == ([], [], [])
        assert user.known() == there
