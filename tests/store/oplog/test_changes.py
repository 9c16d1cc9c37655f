"""Changes of a published cache: written down by whoever makes them, read once, and doubted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from store.commit.publish import Staged, open_writer
from store.fetching.arrivals import Arrival, Arrivals
from store.oid import MD5_DOS2UNIX, Oid
from store.oplog import changes
from store.oplog.changes import FILE, GONE, Mark, begin_changes, note_changes, read_changes
from store.oplog.logs import seal
from tests.mount.datasets import md5

FIRST, SECOND, THIRD = Oid("1" * 32), Oid("2" * 32, is_tree=True), Oid("3" * 32, algorithm=MD5_DOS2UNIX)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_nothing_is_written_before_a_cache_is_published(tmp_path: Path, root: int) -> None:
    note_changes(root, put=[(FIRST, 1)])
    assert not (tmp_path / "fusefs").exists()
    assert read_changes(tmp_path, Mark("", 0)) is None


def test_what_changed_is_told_once(tmp_path: Path, root: int) -> None:
    mark = begin_changes(tmp_path)
    note_changes(root, put=[(FIRST, 10), (SECOND, 20)])
    note_changes(root, gone=[FIRST])
    note_changes(root, put=[(THIRD, 0)])
    assert begin_changes(tmp_path).generation == mark.generation
    found = read_changes(tmp_path, mark)
    assert found is not None
    assert found[0] == {FIRST: GONE, SECOND: 20, THIRD: 0}
    again = read_changes(tmp_path, found[1])
    assert again == ({}, found[1])
    note_changes(root, put=[(FIRST, 10)])
    last = read_changes(tmp_path, found[1])
    assert last is not None and last[0] == {FIRST: 10}


def test_commits_and_arrivals_are_changes(tmp_path: Path) -> None:
    mark = begin_changes(tmp_path)
    with open_writer(tmp_path, shared_with_group=False, new_mode=0o777) as writer:
        for name, data in (("a", b"one"), ("b", b"one")):
            with open(writer.room.create(name), "wb") as file:
                file.write(data)
        assert writer.publish([Staged(name, md5(b"one"), 3) for name in "ab"]) == 1
    arrivals = Arrivals(tmp_path)
    for below, data in (("", b"two"), ("elsewhere", b"three")):
        arrivals = Arrivals(tmp_path, below=below)
        descriptor, path = arrivals.new_file()
        os.write(descriptor, data)
        assert arrivals.admit_all([Arrival(Oid(md5(data)), path, descriptor)]) == [None]
        os.close(descriptor)
        arrivals.close()
    found = read_changes(tmp_path, mark)
    assert found is not None
    assert found[0] == {Oid(md5(b"one")): 3, Oid(md5(b"two")): 3}


def test_what_was_torn_costs_itself_alone(tmp_path: Path, root: int) -> None:
    mark = begin_changes(tmp_path)
    note_changes(root, put=[(FIRST, 10)])
    place = tmp_path / "fusefs" / FILE
    whole = place.read_bytes()
    for length in range(mark.position, len(whole)):
        place.write_bytes(whole[:length])
        found = read_changes(tmp_path, mark)
        assert found == ({}, mark)  # it may still be being written
        note_changes(root, put=[(SECOND, 20)])
        found = read_changes(tmp_path, mark)
        assert found is not None
        assert found == ({SECOND: 20}, Mark(mark.generation, place.stat().st_size))


@pytest.mark.parametrize(
    "line",
    [
        b"x",
        seal(b'{"put":[["md5:zz",1]],"gone":["sha1:1"]}'),
        seal(b'{"put":[["md5:' + b"1" * 32 + b'",-1]]}'),
        seal(b'{"put":{}}'),
        seal(b'{"gone":[1]}'),
        seal(b"[\xff]"),
    ],
)
def test_what_somebody_else_may_have_written(tmp_path: Path, root: int, line: bytes) -> None:
    mark = begin_changes(tmp_path)
    place = tmp_path / "fusefs" / FILE
    place.write_bytes(place.read_bytes() + b"\n" + line)
    note_changes(root, put=[(SECOND, 20)])
    found = read_changes(tmp_path, mark)
    assert found is not None and found[0] == {SECOND: 20}
    place.unlink()
    place.symlink_to(tmp_path / "other")
    note_changes(root, put=[(SECOND, 20)])
    assert not (tmp_path / "other").exists()
    assert read_changes(tmp_path, mark) is None


def test_one_that_is_too_long_is_begun_anew(
    tmp_path: Path, root: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "LARGEST", 1000)
    mark = begin_changes(tmp_path)
    for _ in range(50):
        note_changes(root, put=[(FIRST, 10)])
    assert not (tmp_path / "fusefs" / FILE).exists()
    assert read_changes(tmp_path, mark) is None
    later = begin_changes(tmp_path)
    assert later.generation != mark.generation
    assert read_changes(tmp_path, mark) is None


def test_many_write_at_once(tmp_path: Path, root: int) -> None:
    mark = begin_changes(tmp_path)
    oids = [Oid(f"{number:032x}") for number in range(2000)]

    def note(start: int) -> None:
        for oid in oids[start::8]:
            note_changes(root, put=[(oid, 1)])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(note, range(8)))
    found = read_changes(tmp_path, mark)
    assert found is not None and found[0] == dict.fromkeys(oids, 1)
