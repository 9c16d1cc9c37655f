"""The ledger of what was fetched: rows for arrivals, none for what is somebody's own."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import threading
import time
from pathlib import Path

import pytest

from store.keeping.records import Fetched
from store.ledger import CORRELATED, Ledger
from store.oid import MD5_DOS2UNIX, Oid

NOW = 4_000_000_000.0
"""Later than any file of a test."""


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def put(cache: Path, data: bytes) -> Oid:
    """An object in its place."""
    oid = Oid(hashlib.md5(data, usedforsecurity=False).hexdigest())
    path = cache / "files/md5" / oid.digest[:2] / oid.digest[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o444)
    return oid


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def oids(ledger: Ledger, *, again: bool = False) -> list[Oid]:
    return [fetched.oid for fetched in ledger.by_use(again=again)]


def test_what_arrived_is_known_to_all_who_share_the_cache(cache: Path) -> None:
    one, other = Ledger(cache), Ledger(cache)
    oid = put(cache, b"data")
    one.arrived(oid, 4, "near 12")
    assert one.is_waiting
    one.flush()
    assert not one.is_waiting
    [found] = other.find([oid, Oid("0" * 32)])
    assert (found.oid, found.size, found.remote, found.uses, found.on_disk) == (oid, 4, "near 12", 0, 4096)
    totals = other.totals()
    assert (totals.objects, totals.once, totals.again, totals.bytes) == (1, 4096, 0, 4096)
    assert totals.oldest == found.used
    one.close()
    other.close()


def test_the_same_digits_of_two_algorithms_are_two_objects(cache: Path) -> None:
    ledger = Ledger(cache)
    oid = put(cache, b"data")
    old = Oid(oid.digest, algorithm=MD5_DOS2UNIX)
    (cache / oid.digest[:2]).mkdir()
    (cache / oid.digest[:2] / oid.digest[2:]).write_bytes(b"data")
    for one in (oid, old):
        ledger.arrived(one, 4, "r")
    ledger.flush()
    ledger.disown([old])
    assert oids(ledger) == [oid]
    ledger.close()


def test_uses_close_together_are_one(cache: Path) -> None:
    clock = Clock()
    ledger = Ledger(cache, clock=clock)
    oid = put(cache, b"data")
    ledger.arrived(oid, 4, "r")
    ledger.flush()
    for later, uses in ((1, 0), (CORRELATED, 0), (CORRELATED + 1, 1), (CORRELATED + 2, 1), (5000, 2)):
        clock.now = NOW + later
        ledger.used([oid])
        ledger.flush()
        [found] = ledger.find([oid])
        assert (found.uses, found.used) == (uses, clock.now)
    assert oids(ledger) == []
    assert oids(ledger, again=True) == [oid]
    ledger.close()


def test_pages_come_in_order_and_whole(cache: Path) -> None:
    clock = Clock()
    ledger = Ledger(cache, clock=clock)
    made = [put(cache, b"%d" % number) for number in range(600)]
    for number, oid in enumerate(made):
        clock.now = NOW + number // 3  # several at one time
        ledger.arrived(oid, len(b"%d" % number), "r")
    ledger.flush()
    found = list(ledger.by_use(again=False))
    assert {one.oid for one in found} == set(made)
    assert len(found) == len(made)
    assert [one.used for one in found] == sorted(one.used for one in found)
    assert sum(1 for _ in ledger.by_check()) == len(made)
    ledger.close()


def test_what_was_committed_is_nobodys_to_evict(cache: Path) -> None:
    """Also what another process has fetched a moment ago and not yet written down."""
    daemon, command = Ledger(cache), Ledger(cache, create=False)
    known, waiting, unrelated = (put(cache, data) for data in (b"a", b"b", b"c"))
    daemon.arrived(known, 1, "r")
    daemon.flush()
    daemon.arrived(waiting, 1, "r")
    assert command.commit_ended([known, waiting])
    daemon.arrived(unrelated, 1, "r")
    daemon.flush()
    assert oids(daemon) == []  # of `unrelated` it is not known when it came
    path = cache / "files/md5" / unrelated.digest[:2] / unrelated.digest[2:]
    path.unlink()
    assert put(cache, b"c") == unrelated
    ended = time.time()
    while path.stat().st_ctime <= ended:  # until the file system's clock has moved on
        os.utime(path)
    daemon.arrived(unrelated, 1, "r")
    daemon.flush()
    assert oids(daemon) == [unrelated]
    for ledger in (daemon, command):
        ledger.close()


def test_what_is_not_there_gets_no_row(cache: Path) -> None:
    ledger = Ledger(cache)
    oid = put(cache, b"data")
    ledger.arrived(oid, 5, "r")
    ledger.arrived(Oid("1" * 32), 5, "r")
    ledger.flush()
    assert ledger.totals().objects == 0
    ledger.close()


def test_what_waits_has_a_bound(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.ledger.MAX_WAITING", 10)
    ledger = Ledger(cache)
    made = [put(cache, b"%02d" % number) for number in range(20)]
    for oid in made:
        ledger.arrived(oid, 2, "r")
    ledger.used(made)
    ledger.flush()
    assert set(oids(ledger)) == set(made[:10])
    ledger.close()


def test_what_cannot_be_written_now_waits_on(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.database.BUSY_SECONDS", 0.0)
    ledger = Ledger(cache)
    assert ledger.is_there
    oid = put(cache, b"data")
    ledger.arrived(oid, 4, "r")
    other = sqlite3.connect(ledger.path)
    other.execute("BEGIN EXCLUSIVE")
    ledger.flush()
    assert ledger.is_waiting
    other.rollback()
    other.close()
    ledger.flush()
    assert oids(ledger) == [oid]
    ledger.close()


def test_a_clock_that_was_wrong(cache: Path) -> None:
    clock = Clock()
    ledger = Ledger(cache, clock=clock)
    early, late = put(cache, b"1"), put(cache, b"2")
    ledger.arrived(early, 1, "r")
    ledger.flush()
    clock.now = NOW + 1e9
    ledger.arrived(late, 1, "r")
    ledger.flush()
    clock.now = NOW + 10
    ledger.settle_clock()
    assert [found.used for found in ledger.by_use(again=False)] == [NOW, NOW + 10]
    ledger.close()


def test_threads_share_one(cache: Path) -> None:
    ledger = Ledger(cache)
    made = [put(cache, b"%d" % number) for number in range(200)]

    def work(part: list[Oid]) -> None:
        for oid in part:
            ledger.arrived(oid, len(str(made.index(oid))), "r")
            ledger.used([oid])
            ledger.flush()

    threads = [threading.Thread(target=work, args=(made[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(oids(ledger)) == set(made)
    ledger.close()


def test_one_that_is_damaged_forgets_and_begins_anew(cache: Path) -> None:
    ledger = Ledger(cache)
    oid = put(cache, b"data")
    ledger.arrived(oid, 4, "r")
    ledger.close()
    ledger.path.write_bytes(b"no database at all" * 1000)
    again = Ledger(cache)
    assert again.is_there
    assert again.totals().objects == 0
    assert again.path.with_name("ledger.sqlite.damaged").exists()
    again.close()


@pytest.mark.parametrize(
    "row",
    [
        ("text", 0, 0, 1, "r"),
        (b"short", 0, 0, 1, "r"),
        (b"0" * 16, 7, 0, 1, "r"),
        (b"0" * 16, 0, 0, -1, "r"),
        (b"0" * 16, 0, 0, "many", "r"),
        (b"0" * 16, -3, 0, 1, "r"),
    ],
)
def test_rows_that_somebody_else_wrote(cache: Path, row: tuple[object, ...]) -> None:
    ledger = Ledger(cache)
    oid = put(cache, b"data")
    ledger.arrived(oid, 4, "r")
    ledger.flush()
    with sqlite3.connect(ledger.path) as db:
        db.execute("INSERT INTO objects VALUES (?, ?, ?, ?, ?, 1, 1, 1, 0, 1)", row)
    db.close()
    assert oids(ledger) == [oid]
    ledger.close()


def test_a_remote_whose_name_is_no_text(cache: Path) -> None:
    ledger = Ledger(cache)
    oid = put(cache, b"data")
    ledger.arrived(oid, 4, "r")
    ledger.flush()
    with sqlite3.connect(ledger.path) as db:
        db.execute("UPDATE objects SET remote = CAST(x'ff' AS TEXT)")
    db.close()
    [found] = ledger.find([oid])
    assert isinstance(found, Fetched)
    ledger.close()


@pytest.mark.parametrize(("mode", "expected"), [(0o700, 0o600), (0o2775, 0o660)])
def test_it_is_of_the_caches_people(cache: Path, mode: int, expected: int) -> None:
    cache.chmod(mode)
    ledger = Ledger(cache)
    assert ledger.is_there
    status = ledger.path.stat()
    assert stat.S_IMODE(status.st_mode) == expected
    assert status.st_gid == cache.stat().st_gid
    assert stat.S_IMODE(ledger.path.parent.stat().st_mode) == mode
    ledger.close()


def test_there_is_none_behind_a_link(cache: Path, tmp_path: Path) -> None:
    (cache / "fusefs").mkdir()
    (cache / "fusefs/ledger.sqlite").symlink_to(tmp_path / "elsewhere")
    ledger = Ledger(cache)
    assert not ledger.is_there
    assert not (tmp_path / "elsewhere").exists()
    ledger.close()


def test_looking_makes_none(cache: Path) -> None:
    ledger = Ledger(cache, create=False)
    assert not ledger.is_there
    assert ledger.totals().objects == 0
    assert list(cache.iterdir()) == []
    ledger.close()


def test_none_on_a_network_file_system(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.database.is_on_network", lambda _: True)
    ledger = Ledger(cache)
    ledger.arrived(put(cache, b"data"), 4, "r")
    ledger.flush()
    assert not ledger.is_there
    assert list(ledger.by_use(again=False)) == []
    ledger.close()
