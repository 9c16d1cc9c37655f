"""A push is a transaction of its remote, whatever ends it, and a check puts right what was left."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from store.errors import LockTimeout, RemoteDenied, RemoteError, RemoteUnreachable
from store.oid import Oid
from store.oplog import giving_way
from store.oplog.logs import DIRECTORY, Kind, Log, LogName, Record, seal, write_log
from store.pushing import asking
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from tests.mount.datasets import filler, md5
from tests.store.oplog.remotes import User, dies, names

FILES = {f"dir{number % 2}/{number}": filler(500 + 17 * number, number) for number in range(4)}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.0)


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path / "user", RemoteSpec("far", str(tmp_path / "remote")))


@pytest.fixture
def other(tmp_path: Path) -> User:
    return User(tmp_path / "other", RemoteSpec("afar", str(tmp_path / "remote")), access="b" * 16)


def test_a_push_begins_before_it_asks_and_ends_when_all_is_there(user: User) -> None:
    oid = user.add(FILES)
    storage = user.storage()
    user.push(oid, storage=storage)
    calls = [(call, key.rpartition("/")[2].partition("==")[0]) for call, key in storage.keys]
    changes = [(call, key) for call, key in storage.keys if call == "put"]
    assert changes[0][1].startswith(f"{DIRECTORY}begin==")
    assert changes[-1][1].startswith(f"{DIRECTORY}end==")
    assert calls.index(("put", "begin")) < min(n for n, (call, _) in enumerate(calls) if call == "size")
    assert user.logs() == ["begin", "end"]
    assert user.known() == user.objects() == names(oid, FILES)
    assert not list((user.home / "state/transactions").iterdir())


def test_a_push_of_what_is_there_leaves_no_logs(user: User) -> None:
    oid = user.add(FILES)
    user.push(oid)
    user.push(oid)
    assert user.logs() == ["begin", "end"]


def test_what_somebody_else_put_without_a_log_is_logged_when_it_is_met(user: User, other: User) -> None:
    """As `dvc push` does."""
    oid = user.add(FILES)
    user.push(oid)
    for path in (user.root / "META/logs").iterdir():
        path.unlink()
    other.add(FILES)
    other.push(oid)
    assert other.known() == names(oid, FILES)
    compiled = other.copies.open(other.key)
    assert compiled is not None
    assert all(compiled.find(Oid(md5(data))) == len(data) for data in FILES.values())


def test_a_second_user_reads_only_what_is_new(user: User, other: User) -> None:
    first, second = user.add(FILES), user.add({"x": b"another"})
    user.push(first)
    storage = other.storage()
    other.journal(storage).refresh()
    assert storage.calls == {"list": 1, "read": 1}  # the begin of what has ended is not needed
    user.push(second)
    storage = other.storage()
    other.journal(storage).refresh()
    assert storage.calls == {"list": 1, "read": 1}
    assert other.known() == user.objects()
    storage = other.storage()
    other.journal(storage).refresh()
    assert storage.calls == {"list": 1}


def test_a_remote_that_takes_no_logs_is_pushed_to(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept here, and put when it takes them."""
    oid = user.add(FILES)

    def refuse(call: str) -> None:
        if call == "put" and storage.keys[-1][1].startswith(DIRECTORY):
            raise RemoteDenied("it takes no logs")

    storage = user.storage(refuse)
    user.push(oid, storage=storage)
    assert user.objects() == names(oid, FILES) and user.logs() == []
    assert user.known() == names(oid, FILES)
    user.push(user.add({"x": b"another"}))
    assert user.logs() == ["begin", "begin", "end", "end"]
    assert not user.copies.own(user.key)
    assert user.known() == user.objects()


def test_a_push_that_failed_tells_what_it_has_done(user: User) -> None:
    oid = user.add(FILES)

    def fail(call: str) -> None:
        if call == "put" and storage.calls["put"] > 3 and "META" not in storage.keys[-1][1]:
            raise RemoteUnreachable("it is gone")

    storage = user.storage(fail)
    user.push(oid, storage=storage, jobs=1)
    assert user.known() == user.objects() < names(oid, FILES)
    user.push(oid)
    assert user.known() == user.objects() == names(oid, FILES)


def test_a_push_may_die_anywhere(tmp_path: Path) -> None:
    """Every object that is there is whole, a check finds what the logs say, and the next push ends it."""
    number = 0
    died = True
    while died:
        number += 1
        user = User(tmp_path / f"user{number}", RemoteSpec("far", str(tmp_path / f"remote{number}")))
        before = {"old": b"what was there before"}
        first = user.add(before)
        user.push(first)
        oid = user.add(FILES)
        died = dies(lambda tell, user=user, oid=oid: user.push(oid, storage=user.storage(tell)), number)  # type: ignore[misc]
        there = user.objects()
        assert there >= names(first, before)
        report = user.check()
        assert (report.findings, report.strays, report.running) == ([], [], [])
        assert user.known() == user.objects() == there
        user.push(oid)
        assert user.known() == user.objects() == names(first, before) | names(oid, FILES)
    assert number > 2 * len(FILES)


def test_a_check_may_die_anywhere(tmp_path: Path) -> None:
    number = 0
    died = True
    while died:
        number += 1
        user = User(tmp_path / f"user{number}", RemoteSpec("far", str(tmp_path / f"remote{number}")))
        oid = user.add(FILES)
        user.push(oid)
        user.push(user.add({"more": b"more"}))
        dies(lambda tell, user=user: user.push(user.add({"x": b"x"}), storage=user.storage(tell)), 6)  # type: ignore[misc]
        lost = md5(next(iter(FILES.values())))
        user.place(lost).unlink()
        died = dies(lambda tell, user=user: user.check(user.storage(tell), repair=True), number)  # type: ignore[misc]
        report = user.check(repair=True)
        assert all(finding.mended for finding in report.findings)
        assert not report.strays and not report.running
        assert user.objects() >= names(oid, FILES)
        assert user.known() == user.objects()
        again = user.check(user.storage())
        assert (again.findings, again.ended, again.running) == ([], [], [])
        assert user.logs() == ["base"]
    assert number > 10


def test_two_pushes_at_once(user: User, other: User) -> None:
    shared = {"shared": filler(3000, 99)}
    mine, theirs = user.add({**FILES, **shared}), other.add({"o": b"theirs", **shared})
    failures: list[BaseException] = []

    def work(who: User, oid: Oid) -> None:
        try:
            who.push(oid)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in ((user, mine), (other, theirs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    user.journal(user.storage()).refresh()
    assert (
        user.known()
        == user.objects()
        == names(mine, {**FILES, **shared}) | names(theirs, {"o": b"theirs", **shared})
    )


def test_logs_that_cannot_be_read_are_named_and_skipped(user: User) -> None:
    user.push(user.add(FILES))
    place = user.root / "META/logs"
    torn = LogName("end", "9" * 32, "9" * 16, "1" * 32)
    data = write_log(Log(torn, (), (Record("DELETE", "files/md5/x", "md5:" + "0" * 32),)))
    (place / str(torn)).write_bytes(data[:-20])
    newer = LogName("base", "9" * 32, "9" * 16, "2" * 32)
    (place / str(newer)).write_bytes(b'{"log":2}\n{}\n{}\n')
    (place / "notes.txt").write_text("not a log")
    report = user.check()
    assert any(str(torn) in note and "torn" in note for note in report.notes)
    assert any(str(newer) in note for note in report.notes)
    assert user.known() == user.objects()
    assert (place / str(newer)).exists() and (place / "notes.txt").exists()


def newer(name: LogName) -> bytes:
    """A log as a newer version may write it, sound but for what we do not know."""
    lines = [b'{"log":2,"kind":"%s"}' % name.kind.encode(), b'{"what":"else"}', b'{"records":1}']
    return b"".join(seal(line) + b"\n" for line in lines)


@pytest.mark.parametrize("kind", ["begin", "end", "base"])
def test_logs_of_a_newer_version_are_named_and_stay(
    user: User, other: User, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its base has taken the place of all that could be read: then nothing is known, and asked."""
    oid = user.add(FILES)
    user.push(oid)
    place = user.root / DIRECTORY
    if kind == "base":
        for path in place.iterdir():
            path.unlink()
    name = LogName(kind, "9" * 32, "9" * 16, "2" * 32)
    (place / str(name)).write_bytes(newer(name))
    other.add(FILES)
    if kind == "begin":  # it may be that of a collection
        monkeypatch.setattr(giving_way.wait_for_collections, "__defaults__", (0.0,))
        with pytest.raises(LockTimeout):
            other.push(oid)
    else:
        work = other.push(oid)
        assert (work.tally.there, work.tally.pushed) == (len(FILES) + 1, 0)
    for repair in (False, True):
        report = other.check(other.storage(), repair=repair, adopt=repair, end_all=True)
        assert any(str(name) in note and "newer fusefs" in note for note in report.notes)
        assert not report.findings
        assert (place / str(name)).read_bytes() == newer(name)
    assert other.known() == user.objects() == names(oid, FILES)


@pytest.mark.parametrize("kind", ["begin", "end", "base"])
def test_what_is_torn_goes_when_nobody_writes_it(user: User, other: User, kind: Kind) -> None:
    """Else garbage could never be collected there; what it told of is in no log then, and named."""
    user.push(user.add(FILES))
    known = user.known()
    name = LogName(kind, "9" * 32, "9" * 16, "1" * 32)
    oid = Oid(md5(b"told"))
    told = Record("PUT", user.place(oid).relative_to(user.root).as_posix(), f"md5:{oid}", 4)
    (user.root / DIRECTORY / str(name)).write_bytes(write_log(Log(name, (), [told]))[:-20])
    user.place(oid).parent.mkdir(parents=True, exist_ok=True)
    user.place(oid).write_bytes(b"told")
    assert any(str(name) in note for note in user.check().notes)
    assert len(user.logs()) == 2
    assert user.check(end_all=True).base and user.logs() == ["base"]
    held = user.copies.settle(user.key)
    assert not held.faults and held.projects == {user.project, name.project}
    assert user.known() == known
    assert [str(one) for one in user.check().strays] == [str(oid)]
    user.check(adopt=True)
    assert user.known() == user.objects() == known | {str(oid)}


def test_a_copy_that_is_damaged_here_is_brought_anew(user: User) -> None:
    oid = user.add(FILES)
    user.push(oid)
    (copy,) = (user.cache / "fusefs/logs" / user.key).glob("end==*")
    copy.chmod(0o644)
    copy.write_bytes(b"x" * copy.stat().st_size)
    assert user.copies.settle(user.key).faults
    report = user.check(end_all=True)
    assert (report.findings, report.strays, report.ended, report.notes) == ([], [], [], [])
    assert user.known() == user.objects() == names(oid, FILES)


def test_the_begin_of_a_torn_end_is_read(user: User, other: User) -> None:
    user.push(user.add(FILES))
    (end,) = (user.root / "META/logs").glob("end==*")
    data = end.read_bytes()
    end.chmod(0o644)
    end.write_bytes(data[: len(data) // 2])
    other.journal(other.storage()).refresh()
    assert len(other.copies.settle(other.key).open) == 1
    report = other.check(end_all=True)
    assert len(report.ended) == 1 and not report.findings
    assert other.known() == user.objects()


def test_a_transaction_that_runs_is_left_alone(user: User, other: User) -> None:
    journal = user.journal(user.storage())
    oid = Oid(md5(b"planned"))
    planned = Record("PUT", "files/md5/" + oid.digest[:2] + "/" + oid.digest[2:], f"md5:{oid}", 7)
    with journal.running() as transaction:
        journal.begin(transaction, (), [planned])
        assert user.check().running == [transaction]  # its lock is held
        assert other.check().running == [transaction]  # somebody else's, begun a moment ago
        assert user.check(end_all=True).running == [transaction]
    assert user.check().ended == [transaction]
    assert not user.copies.settle(user.key).open


def test_a_lost_object_is_named_until_it_is_mended_or_forgotten(user: User) -> None:
    oid = user.add(FILES)
    user.push(oid)
    data = FILES["dir0/0"]
    user.place(md5(data)).unlink()
    (user.cache / "files/md5" / md5(data)[:2] / md5(data)[2:]).unlink()
    for _ in range(2):
        (finding,) = user.check().findings
        assert (str(finding.oid), finding.what, finding.mended) == (md5(data), "lost", "")
    (finding,) = user.check(repair=True).findings
    assert "neither the cache nor another remote" in finding.said
    elsewhere = User(user.home.parent / "more", RemoteSpec("elsewhere", str(user.root.parent / "second")))
    elsewhere.add(FILES)
    elsewhere.push(oid)
    (finding,) = user.check(others=[Remote("elsewhere", elsewhere.storage())], repair=True).findings
    assert finding.mended == "elsewhere"
    assert not user.check().findings and user.objects() == names(oid, FILES)
    user.place(md5(data)).unlink()
    assert len(user.check(forget=True).findings) == 1
    assert not user.check().findings


def test_deep_finds_bytes_that_went_bad_and_puts_them_right(user: User) -> None:
    oid = user.add(FILES)
    user.push(oid)
    victim = user.place(md5(FILES["dir1/1"]))
    victim.chmod(0o644)
    victim.write_bytes(b"\0" * len(FILES["dir1/1"]))
    assert not user.check().findings
    report = user.check(deep=True)
    assert [finding.what for finding in report.findings] == ["damaged"]
    assert report.hashed == len(FILES) + 1
    report = user.check(deep=True, repair=True)
    assert report.findings[0].mended == "the cache"
    assert user.objects() == names(oid, FILES)
    longer = user.place(md5(FILES["dir1/1"]))
    longer.chmod(0o644)
    longer.write_bytes(b"longer than it was, and so found without --deep" * 100)
    assert [finding.what for finding in user.check().findings] == ["damaged"]


def test_a_log_that_lies_about_a_size_is_corrected(user: User) -> None:
    oid = user.add(FILES)
    user.push(oid)
    (end,) = (user.root / "META/logs").glob("end==*")
    name = LogName.parse(end.name)
    assert name is not None
    digest = md5(FILES["dir0/0"])
    lie = Record("PUT", f"files/md5/{digest[:2]}/{digest[2:]}", f"md5:{digest}", 5)
    liar = LogName("end", "9" * 32, "9" * 16, "8" * 32)
    (end.parent / str(liar)).write_bytes(write_log(Log(liar, (name.transaction,), (lie,))))
    report = user.check()
    assert report.corrected == 1 and not report.findings
    compiled = user.copies.open(user.key)
    assert compiled is not None and compiled.find(Oid(digest)) == len(FILES["dir0/0"])


def test_strays_are_named_and_adopted(user: User) -> None:
    user.push(user.add(FILES))
    data = b"pushed by something else"
    path = user.place(md5(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    for _ in range(2):
        assert [str(oid) for oid in user.check().strays] == [md5(data)]
    assert user.check(adopt=True).adopted == 1
    assert user.check().strays == [] and md5(data) in user.known()


def test_many_logs_become_one_base(user: User) -> None:
    for number in range(5):
        user.push(user.add({"x": b"%d" % number}))
    known = user.known()
    assert user.check().base
    assert user.logs() == ["base"] and user.known() == known == user.objects()
    assert not user.check().base  # it says so already
    user.push(user.add({"x": b"after"}))
    assert user.known() == user.objects() > known


def test_a_push_that_ends_while_a_check_runs_is_believed(user: User, other: User) -> None:
    """The check has seen its begin, takes it for dead and has listed the remote; then it puts the rest."""
    user.push(user.add({"old": b"old"}))
    oid = other.add(FILES)
    goes_on, has_put = threading.Event(), threading.Event()

    def stop_once(call: str) -> None:
        if call == "put" and storage.calls["put"] == 3:
            has_put.set()
            assert goes_on.wait(60)

    storage = other.storage(stop_once)
    pushing = threading.Thread(target=other.push, args=[oid], kwargs={"storage": storage, "jobs": 1})
    pushing.start()
    assert has_put.wait(60)
    looked = False

    def let_go(call: str) -> None:
        nonlocal looked
        if call == "list" and checking.keys[-1][1].startswith("META") and checking.calls["list"] > 1:
            looked = True
            goes_on.set()
            pushing.join()

    checking = user.storage(let_go)
    report = user.check(checking, end_all=True)
    assert looked and not report.ended and not report.findings and not report.strays
    user.journal(user.storage()).refresh()
    assert user.known() == user.objects() >= names(oid, FILES)


def test_a_remote_that_loses_a_base_keeps_its_logs(user: User) -> None:
    oid = user.add(FILES)
    user.push(oid)

    def lose(call: str) -> None:
        if call == "put done":
            for path in (user.root / DIRECTORY).glob("base==*"):
                path.unlink()

    with pytest.raises(RemoteError):
        user.check(user.storage(lose))
    assert user.logs() == ["begin", "end"]
    assert user.check().base and user.known() == user.objects()


def test_where_nothing_may_be_deleted_an_end_tells_of_nothing(user: User) -> None:
    oid = user.add(FILES)
    user.push(oid)

    def refuse(call: str) -> None:
        if call == "delete":
            raise RemoteDenied("what is here stays")

    user.push(oid, storage=user.storage(refuse))
    assert user.logs() == ["begin", "begin", "end", "end"]
    assert not user.copies.settle(user.key).open


def test_two_checks_at_once(user: User, other: User) -> None:
    oid = user.add(FILES)
    user.push(oid)
    user.push(user.add({"more": b"more"}))
    other.add(FILES)
    begun = threading.Barrier(2)
    failures: list[BaseException] = []

    def work(who: User) -> None:
        def meet(call: str) -> None:
            if call == "put":
                begun.wait(60)

        try:
            who.check(who.storage(meet))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[who]) for who in (user, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert user.logs() == ["base", "base"]
    assert not user.check().findings
    assert user.logs() == ["base"] and user.known() == user.objects() >= names(oid, FILES)
