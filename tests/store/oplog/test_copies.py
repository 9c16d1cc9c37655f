"""Copies of logs in a cache: compiled, bounded, and believed no more than whoever could have written them."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

from store.errors import CacheUnusable
from store.layouts import object_path
from store.oid import MD5, MD5_DOS2UNIX, Oid
from store.oplog import hints, identities, remote_logs
from store.oplog.compiled import Compiled, Damaged
from store.oplog.copies import LogCopies
from store.oplog.hints import Hints
from store.oplog.identities import find_access, find_project, remote_key
from store.oplog.logs import DIRECTORY, Kind, Log, LogName, Record, format_oid, write_log
from store.oplog.remote_logs import COPIES
from store.remotes.opening import open_remote
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from store.tree import UNKNOWN
from tests.store.oplog.remotes import Counted

KEY, OTHER = "a" * 32, "b" * 32


def log(
    number: int, records: list[Record], kind: Kind = "end", after: tuple[str, ...] = ()
) -> tuple[str, bytes]:
    name = LogName(kind, "1" * 32, "2" * 16, f"{number:032x}")
    return str(name), write_log(Log(name, after, records))


def put(oid: Oid, size: int) -> Record:
    return Record("PUT", object_path(oid), format_oid(oid), size)


def some_oids(count: int) -> list[Oid]:
    digests = [hashlib.md5(b"%d" % number, usedforsecurity=False).hexdigest() for number in range(count)]
    return [Oid(digest) for digest in digests]


def test_objects_are_found_by_every_kind_of_oid(tmp_path: Path) -> None:
    oids = some_oids(3000)
    twins = [Oid(oid.digest, is_tree=True) for oid in oids[:3]]
    twins += [Oid(oid.digest, algorithm=MD5_DOS2UNIX) for oid in oids[:2]]
    records = [put(oid, number) for number, oid in enumerate(oids)]
    records += [put(oid, 10_000 + number) for number, oid in enumerate(twins)]
    records[7] = Record("HAS", records[7].path, records[7].oid)
    records.append(Record("PUT", "files/md5/ab/else", "md5:" + "cd" * 16, 5))  # in a place of another
    made = LogCopies(tmp_path)
    made.add(KEY, *log(1, records))
    compiled = made.compile(KEY)
    assert compiled is not None
    assert compiled.summary.objects == len(oids) + len(twins)
    for number, oid in enumerate(oids):
        assert compiled.find(oid) == (UNKNOWN if number == 7 else number)
    for number, oid in enumerate(twins):
        assert compiled.find(oid) == 10_000 + number
    assert compiled.find(Oid("cd" * 16)) is None
    raw = [oid.raw for oid in random.Random(1).sample(oids, 500)]
    assert compiled.sizes(raw, MD5) == [compiled.find(Oid.from_bytes(one)) for one in raw]
    assert compiled.sizes([bytes(16), oids[2].raw], MD5_DOS2UNIX) == [UNKNOWN, UNKNOWN]


def test_digests_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    """One of them lies across two others, byte for byte."""
    one, two = bytes(8) + b"\1" * 8, b"\0\0" + b"\2" * 14
    across = Oid.from_bytes(one[8:] + two[:8])
    decoy = Oid.from_bytes(b"\0\0" + bytes(6) + b"\1" * 6 + b"\0\0")
    made = LogCopies(tmp_path)
    made.add(KEY, *log(1, [put(Oid.from_bytes(one), 1), put(Oid.from_bytes(two), 2)]))
    compiled = made.compile(KEY)
    assert compiled is not None
    for oid in (across, decoy):
        assert compiled.find(oid) is None
        assert compiled.sizes([oid.raw], MD5) == [UNKNOWN]
    assert compiled.sizes([one, two], MD5) == [1, 2]


def test_a_damaged_file_is_none_and_made_anew(tmp_path: Path) -> None:
    made = LogCopies(tmp_path)
    made.add(KEY, *log(1, [put(oid, 1) for oid in some_oids(5)]))
    assert made.compile(KEY) is not None
    path = tmp_path / "fusefs/logs" / KEY / "holdings"
    whole = path.read_bytes()
    for place in [*range(200), *range(200, len(whole), 9973)]:
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        opened = made.open(KEY)
        assert opened is None or opened.find(some_oids(1)[0]) == 1  # between columns nothing counts
    for length in (0, 10, 100, len(whole) - 8):
        path.write_bytes(whole[:length])
        assert made.open(KEY) is None
    compiled = made.compile(KEY)
    assert compiled is not None and compiled.summary.objects == 5
    descriptor = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(Damaged):
        Compiled.open(descriptor)
    os.close(descriptor)


def test_links_are_not_followed(tmp_path: Path) -> None:
    made = LogCopies(tmp_path / "cache")
    made.add(KEY, *log(1, []))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache/fusefs/logs" / OTHER).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheUnusable):
        made.add(OTHER, *log(2, []))
    assert list((tmp_path / "elsewhere").iterdir()) == []
    name, data = log(3, [put(some_oids(1)[0], 1)])
    (tmp_path / "elsewhere" / name).write_bytes(data)
    (tmp_path / "cache/fusefs/logs" / KEY / name).symlink_to(tmp_path / "elsewhere" / name)
    assert len(list(made.logs(KEY))) == 1


def test_a_refresh_follows_the_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with copies of another remote's logs; what is too much is said, and what is no log passed over."""
    spec = RemoteSpec("far", str(tmp_path / "remote"))
    oids = some_oids(4)
    storage = Counted(open_remote(spec).storage)
    for place, (name, data) in (
        (DIRECTORY, log(1, [put(oids[0], 0)])),
        (DIRECTORY, log(2, [put(oids[1], 1)])),
        (f"{COPIES}{OTHER}/", log(3, [put(oids[2], 2)])),
        (f"{COPIES}no/", log(4, [put(oids[3], 3)])),
        (DIRECTORY, ("notes", b"no log")),
    ):
        path = tmp_path / "remote" / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    made = LogCopies(tmp_path / "cache")
    assert made.is_behind(KEY, storage)
    made.refresh(KEY, "far", storage)
    assert not made.is_behind(KEY, storage)
    assert made.remotes() == [KEY, OTHER] and made.name(KEY) == "far"
    known = Hints(tmp_path / "cache")
    known.load()
    assert [known.has(KEY, oid) for oid in oids] == [True, True, False, False]
    assert known.has(OTHER, oids[2]) and known.has("c" * 32, oids[0]) is None
    assert known.sizes([oid.raw for oid in oids], MD5) == [0, 1, 2, UNKNOWN]
    (tmp_path / "remote" / DIRECTORY / log(1, [])[0]).unlink()
    made.refresh(KEY, "far", storage)
    known.load(now=True)
    assert [known.has(KEY, oid) for oid in oids[:2]] == [False, True]
    monkeypatch.setattr(remote_logs, "LARGEST", 100)
    many = LogCopies(tmp_path / "other")
    notes = many.refresh(KEY, "far", storage).notes
    assert any("left out" in note for note in notes) and not list(many.logs(KEY))


@pytest.mark.parametrize("most", [0, 1 << 20], ids=["by a child", "here"])
def test_hints_read_what_is_new_and_not_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(hints, "HERE_BYTES", most)
    oid = some_oids(1)[0]
    name, data = log(1, [put(oid, 7)])
    (tmp_path / "remote" / DIRECTORY).mkdir(parents=True)
    (tmp_path / "remote" / DIRECTORY / name).write_bytes(data)
    storage = Counted(open_remote(RemoteSpec("far", str(tmp_path / "remote"))).storage)
    remote = Remote("far", storage, key=KEY)
    known = Hints(tmp_path / "cache")
    known.load()
    assert known.has(KEY, oid) is None
    assert known.refresh(remote)
    assert known.has(KEY, oid) and known.sizes([oid.raw], MD5) == [7]
    storage.calls.clear()
    assert not known.refresh(remote)
    assert not storage.calls
    assert not Hints(tmp_path / "cache").refresh(remote)
    assert storage.calls == {"list": 1}


def test_a_cache_that_cannot_be_written_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/fusefs").write_text("something else")
    made = LogCopies(tmp_path / "cache")
    with pytest.raises(CacheUnusable, match="logs cannot be kept"):
        made.add(KEY, *log(1, []))
    assert made.remotes() == [] and made.compile(KEY) is None and made.own(KEY) == {}


def test_an_access_is_kept_and_is_one_for_many_processes(tmp_path: Path) -> None:
    first = find_access(tmp_path / "state")
    assert find_access(tmp_path / "state") == first and len(first) == 16
    assert find_access(tmp_path / "another") != first
    (tmp_path / "state/access").write_text("damaged")
    again = find_access(tmp_path / "state")
    assert again != "damaged" and find_access(tmp_path / "state") == again
    (tmp_path / "file").write_text("")
    assert len(find_access(tmp_path / "file")) == 16


def test_a_project_without_history_is_a_place(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    one = find_project(tmp_path / "project", "", "a" * 16)
    assert one == find_project(tmp_path / "project", "", "a" * 16)
    assert one != find_project(tmp_path / "project", "", "b" * 16)
    (tmp_path / "project/.dvc").mkdir()
    (tmp_path / "project" / identities.PROJECT_FILE).write_text("c" * 32)
    assert find_project(tmp_path / "project", "", "a" * 16) == "c" * 32


def test_a_place_has_one_key_whatever_it_is_called() -> None:
    one = RemoteSpec("a", "s3://bucket/base", {"endpointurl": "http://x"})
    assert remote_key(one) == remote_key(
        RemoteSpec("b", "s3://bucket/base/", {"endpointurl": "http://x", "secret_access_key": "k"})
    )
    assert remote_key(one) != remote_key(RemoteSpec("a", "s3://bucket/base"))
