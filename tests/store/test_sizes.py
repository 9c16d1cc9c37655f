"""The index of sizes remembers what it is told, by how well it is known, and never more than that."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import database
from store import sizes as module
from store.oid import MD5, MD5_DOS2UNIX
from store.sizes import DATABASE, How, Learnt, Size, SizeIndex, find_place
from store.tree import UNKNOWN


def digest(number: int) -> bytes:
    return hashlib.md5(b"%d" % number).digest()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir(0o700)
    return path


def test_what_was_learnt_is_known_to_the_next_daemon(home: Path) -> None:
    first = SizeIndex(home)
    first.learn([Learnt(digest(n), n, How.REMOTE) for n in range(3000)], MD5)
    first.close()
    second = SizeIndex(home)
    assert second.look_up([digest(n) for n in range(3001)], MD5) == [*range(3000), UNKNOWN]
    assert second.look_up([digest(1)], MD5_DOS2UNIX) == [UNKNOWN]
    second.close()
    assert (home / DATABASE).stat().st_mode & 0o777 == 0o600


HOWS = st.sampled_from([How.STAT, How.REMOTE, How.HASHED])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), HOWS), min_size=1, max_size=12))
def test_what_was_hashed_stays_and_else_the_last_one_holds(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[int, int, How]]
) -> None:
    index = SizeIndex(tmp_path_factory.mktemp("index"))
    expected: dict[int, Size] = {}
    for number, size, how in told:
        index.learn([Learnt(digest(number), size, how, inode=size, mtime_ns=size)], MD5)
        before = expected.get(number)
        if before is None or how is How.HASHED:
            expected[number] = Size(size, how)
        elif before.how is not How.HASHED:
            same = before.size == size
            expected[number] = Size(size, max(how, before.how) if same else how)
    assert index.find([digest(n) for n in range(3)], MD5) == [expected.get(n) for n in range(3)]
    index.close()


def test_what_is_noted_is_written_at_the_end_at_the_latest(home: Path) -> None:
    index = SizeIndex(home)
    for number in range(1500):
        index.note(Learnt(digest(number), number, How.HASHED), MD5)
    assert index.look_up([digest(3)], MD5) == [3]
    index.close()
    index = SizeIndex(home)
    assert index.look_up([digest(number) for number in range(1500)], MD5) == list(range(1500))
    index.close()


def test_the_older_hash_leaves_the_length_open(home: Path) -> None:
    index = SizeIndex(home)
    index.learn([Learnt(digest(1), 8, How.HASHED)], MD5_DOS2UNIX)
    assert index.find([digest(1)], MD5_DOS2UNIX) == [Size(8, How.REMOTE)]
    index.close()


def test_large_numbers_and_nonsense(home: Path) -> None:
    index = SizeIndex(home)
    index.learn([Learnt(digest(1), (1 << 63) - 1, How.STAT, (1 << 64) - 1, -5)], MD5)
    index.learn([Learnt(digest(2), -1, How.HASHED)], MD5)
    assert index.look_up([digest(1), digest(2)], MD5) == [(1 << 63) - 1, UNKNOWN]
    index.close()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b"no database"), id="overwritten"),
        pytest.param(lambda path: os.truncate(path, 5000), id="cut"),
        pytest.param(lambda path: _alter(path, "UPDATE young SET size = size + 1"), id="a size"),
        pytest.param(lambda path: _alter(path, "UPDATE young SET how = 3"), id="how it is known"),
        pytest.param(lambda path: _alter(path, "UPDATE young SET size = 'x'"), id="a text"),
    ],
)
def test_damage_is_begun_anew_and_never_believed(home: Path, damage: object) -> None:
    index = SizeIndex(home)
    index.learn([Learnt(digest(n), n, How.REMOTE) for n in range(100)], MD5)
    index.close()
    assert callable(damage)
    damage(home / DATABASE)
    index = SizeIndex(home)
    numbers = range(100)
    assert index.look_up([digest(n) for n in numbers], MD5) == [UNKNOWN] * 100
    index.learn([Learnt(digest(7), 7, How.REMOTE)], MD5)
    assert index.look_up([digest(7)], MD5) == [7]
    index.close()


def _alter(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()


def test_what_is_of_use_outlives_what_is_not(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = 20_000
    monkeypatch.setattr(module, "_today", lambda: day)
    index = SizeIndex(home)
    index.learn([Learnt(digest(1), 1, How.REMOTE), Learnt(digest(2), 2, How.REMOTE)], MD5)
    for turn in range(1, 4):
        day = 20_000 + turn * (module.YOUNG_DAYS + 1)
        assert index.look_up([digest(1)], MD5) == [1]
        index.learn([Learnt(digest(100 + turn), 3, How.REMOTE)], MD5)
    assert index.look_up([digest(1), digest(2), digest(103)], MD5) == [1, UNKNOWN, 3]
    index.close()


def test_growth_is_bounded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "YOUNG_PAGES", 32)
    index = SizeIndex(home)
    for start in range(0, 40_000, 1000):
        index.learn([Learnt(digest(n), n, How.REMOTE) for n in range(start, start + 1000)], MD5)
    assert index.look_up([digest(39_999)], MD5) == [39_999]
    assert index.look_up([digest(0)], MD5) == [UNKNOWN]
    index.close()
    assert (home / DATABASE).stat().st_size < 120 * 4096


def _work(home: Path, first: int) -> None:
    database.BUSY_SECONDS = 60.0  # type: ignore[misc]  # what cannot be written by then is not remembered
    index = SizeIndex(home)
    for number in range(first, first + 200):
        index.learn([Learnt(digest(number), number, How.REMOTE)], MD5)
        assert index.look_up([digest(number)], MD5) == [number]
    index.close()


def test_several_daemons_share_it(home: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(home, 1000 * n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(100)
        assert worker.exitcode == 0
    index = SizeIndex(home)
    numbers = [1000 * n + k for n in range(3) for k in range(200)]
    assert index.look_up([digest(n) for n in numbers], MD5) == numbers
    index.close()


def test_nothing_is_kept_where_others_could_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, elsewhere = tmp_path / "shared", tmp_path / "var"
    shared.mkdir()
    shared.chmod(0o777)
    elsewhere.mkdir()
    private = elsewhere / f"fusefs-{os.geteuid()}"
    assert find_place(shared, elsewhere) == private / DATABASE
    assert private.stat().st_mode & 0o777 == 0o700
    private.rmdir()
    private.symlink_to(tmp_path)
    assert find_place(shared, elsewhere) is None
    private.unlink()
    private.mkdir(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    private.rename(elsewhere / f"fusefs-{os.geteuid()}")
    assert find_place(shared, elsewhere) is None


def test_a_network_file_system_has_no_database(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = home.with_name("var")
    elsewhere.mkdir()
    monkeypatch.setattr(module, "is_on_network", lambda path: path == home)
    place = find_place(home, elsewhere)
    assert place is not None
    assert place.is_relative_to(elsewhere)
    monkeypatch.setattr(module, "is_on_network", lambda _: True)
    assert find_place(home, elsewhere) is None


def test_without_a_database_nothing_is_known_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(module, "LOCAL_HOME", tmp_path / "missing")
    index = SizeIndex(tmp_path / "file")
    index.learn([Learnt(digest(1), 1, How.REMOTE)], MD5)
    assert index.look_up([digest(1)], MD5) == [UNKNOWN]
    index.close()
