"""Garbage of content directories: archives and parts go when nothing in them is kept, and not before."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from store.cache_chain import CacheChain
from store.collecting.remote_side import Interfered
from store.contents import archiving
from store.contents.names import ARCHIVE, ARCHIVE_INDEX, CATALOGUE, WHOLE, ContentName
from store.errors import InputError
from store.local_cache import LocalCache
from store.oid import Oid
from store.oplog import giving_way
from store.oplog.push_log import PushLog
from store.pushing.content_push import ContentPush
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from tests.mount.datasets import Cache, filler, md5
from tests.servers.object_stores import ObjectStoreServer, moto, new_s3_bucket
from tests.store.collecting.test_remote_side import collect, collection
from tests.store.oplog.remotes import User, dies
from tests.store.pushing.test_content_push import Case, small_limits

__all__ = ["moto", "small_limits"]

SHARED = {f"shared{number}": filler(700 + number, number) for number in range(4)}
OLD = {
    **SHARED,
    **{f"old{number}": filler(4000 + number, 50 + number) for number in range(8)},
    "whole": filler(600 << 10, 1),
    "large": filler(3 << 20, 2),
}
NEW = {**SHARED, "new": b"new", "large": OLD["large"][: 2 << 20] + b"changed" + OLD["large"][2 << 20 :]}


def push(case: Case, user: User, *oids: Oid) -> None:
    storage = user.storage()
    log = PushLog(user.journal(storage))
    with log.running():
        caches = CacheChain(LocalCache(case.cache.root))
        ContentPush(caches, Remote("far", storage), log=log).run(oids)
    user.copies.compile(user.key)


def make(home: Path) -> tuple[Case, User, Oid, Oid]:
    """Two versions, the old one pushed before the new one."""
    case = Case(Cache(home / "cache"), home / "remote", Oid("0" * 32))
    user = User(home, RemoteSpec("far", str(case.root)))
    old, new = case.add(OLD), case.add(NEW)
    push(case, user, old)
    push(case, user, new)
    return case, user, old, new


def names(oid: Oid, files: dict[str, bytes]) -> set[str]:
    return {str(oid), *map(md5, files.values())}


def files_in(case: Case, kind: str) -> set[str]:
    return {path.parent.name for path in case.root.glob(f"contents/{kind}/*/*/*")}


def test_what_no_kept_version_names_goes(tmp_path: Path) -> None:
    case, user, old, new = make(tmp_path)
    archives, parts = files_in(case, "archives"), files_in(case, "parts")
    plan = collection(user, new).plan()
    assert {thing.kind for thing in plan.garbage} == {"manifests", "indexes", "files", "archives", "parts"}
    outcome = collect(user, new)
    assert len(outcome.deleted) == len(plan.garbage)
    left = case.contents()  # each proved, and whole
    assert left.keys() >= names(new, NEW)
    assert not left.keys() & {str(old), md5(OLD["whole"]), md5(OLD["large"])}
    assert files_in(case, "archives") < archives and files_in(case, "parts") < parts
    held = user.copies.settle(user.key)
    assert not held.unsure and all((case.root / path).exists() for path, _ in held.there)
    report = user.check(deep=True)
    assert (report.findings, report.strays, report.running) == ([], [], [])
    push(case, user, old)
    assert case.contents().keys() >= names(old, OLD) | names(new, NEW)


def test_members_that_are_kept_keep_their_archive(tmp_path: Path) -> None:
    case, user, old, _ = make(tmp_path)
    collect(user, Oid(md5(OLD["old3"])))
    left = case.contents()
    assert md5(OLD["old3"]) in left and str(old) not in left
    assert len(files_in(case, "archives")) == 1 and not files_in(case, "parts")


def test_both_layouts_of_a_remote_are_collected(tmp_path: Path) -> None:
    case, user, old, new = make(tmp_path)
    user.push(old, new)
    collect(user, new)
    assert user.objects() == names(new, NEW)
    assert str(old) not in case.contents()


def test_an_object_store_is_collected(tmp_path: Path, moto: ObjectStoreServer) -> None:
    bucket = new_s3_bucket(moto)
    options = {"endpointurl": moto.url, "access_key_id": "key", "secret_access_key": "secret"}
    user = User(tmp_path, RemoteSpec("far", f"s3://{bucket}/pre fix", options))
    case = Case(Cache(user.cache), user.cache, Oid("0" * 32))
    old, new = case.add(OLD), case.add(NEW)
    push(case, user, old)
    push(case, user, new)
    user.push(old, new)
    assert not collection(user, new, grace=86400.0).plan().garbage  # the store tells that all is young
    outcome = collect(user, new, grace=-86400.0)  # whatever the clocks of its server say
    assert {str(old), md5(OLD["whole"])} <= {str(thing.oid) for thing in outcome.deleted}
    report = user.check(deep=True)
    assert (report.findings, report.strays) == ([], [])
    told = {name.partition(":")[2] for _, name in user.copies.settle(user.key).there}
    assert told >= names(new, NEW) and not told & {str(old), md5(OLD["whole"]), md5(OLD["large"])}
    there = {one.key for one in user.storage().list("")}
    assert all(path in there for path, _ in user.copies.settle(user.key).there)


def test_what_is_young_keeps_what_it_names(tmp_path: Path) -> None:
    case, user, old, new = make(tmp_path)
    manifest = case.place(ContentName.of(old), WHOLE)
    for path in case.root.rglob("contents/**/*"):
        if path.is_file() and path != manifest:
            os.utime(path, (1e9, 1e9))
    before = case.contents().keys()
    plan = collection(user, new, grace=86400.0).plan()
    assert not plan.garbage and plan.stays["young"].objects > 3
    collect(user, new, grace=86400.0)
    assert case.contents().keys() == before


def test_what_no_log_tells_of_stays(tmp_path: Path) -> None:
    """The log of a push may not have come yet."""
    case, user, old, new = make(tmp_path)
    for log in (case.root / "META/logs").iterdir():
        log.unlink()
    push(case, user, new)
    before = case.contents().keys()
    plan = collection(user, new).plan()
    assert not plan.garbage and plan.stays["unlogged"].objects > 0
    assert case.contents().keys() == before >= names(old, OLD)


def test_an_index_that_cannot_be_read_keeps_what_it_may_name(tmp_path: Path) -> None:
    case, user, old, new = make(tmp_path)
    archives = sorted(case.root.glob(f"contents/archives/*/*/{ARCHIVE_INDEX}"))
    for path in [*archives, *case.root.glob("contents/md5/*/*/parts.idx")]:
        path.chmod(0o644)
        path.write_bytes(b"damaged" + path.read_bytes()[7:])
    foreign = case.root / "contents/notes.txt"
    foreign.write_text("not of this layout")
    parts = files_in(case, "parts")
    plan = collection(user, new).plan()
    assert {thing.kind for thing in plan.garbage} <= {"manifests", "indexes", "files"}
    assert plan.stays["unreadable"].objects >= 2 * len(archives) + len(parts)
    collect(user, new)
    assert files_in(case, "parts") == parts and foreign.exists()
    assert sorted(case.root.glob(f"contents/archives/*/*/{ARCHIVE}")) == [
        path.with_name(ARCHIVE) for path in archives
    ]
    assert not case.has(old) and not case.place(ContentName.of(old), CATALOGUE).exists()


def test_one_that_gives_way_between_an_index_and_its_archive_is_no_loss(tmp_path: Path) -> None:
    """Logs know that what was in the archive is gone, and of the archive, for the next collection."""
    case, user, _, new = make(tmp_path)
    other = User(tmp_path / "other", RemoteSpec("afar", str(case.root)), access="b" * 16)
    journal = other.journal(other.storage())
    begun: list[str] = []

    def begin(call: str) -> None:
        if call == "delete done" and storage.keys[-1][1].endswith(ARCHIVE_INDEX) and not begun:
            begun.append("f" * 32)
            journal.begin(begun[0], (), [])

    storage = user.storage(begin)
    with pytest.raises(Interfered):
        collect(user, new, storage=storage)
    archives = {path.parent.name for path in case.root.rglob(ARCHIVE)}
    assert archives > {path.parent.name for path in case.root.rglob(ARCHIVE_INDEX)}
    journal.end(begun[0], (), [])
    report = user.check()
    assert (report.findings, report.running) == ([], [])
    collect(user, new)
    assert {path.parent.name for path in case.root.rglob(ARCHIVE)} < archives
    assert case.contents().keys() >= names(new, NEW)
    report = user.check(deep=True)
    assert (report.findings, report.stray_files) == ([], [])


def test_pushes_and_collections_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever order their steps come, no manifest names what is gone."""
    monkeypatch.setattr(giving_way, "PAUSE_SECONDS", 0.01)
    case, user, old, new = make(tmp_path)
    other = User(tmp_path / "other", RemoteSpec("afar", str(case.root)), access="b" * 16)
    theirs = Case(Cache(other.cache), case.root, old)
    chance = random.Random(5)
    again = {**OLD, "more": b"more"}
    versions = [theirs.add(dict(chance.sample(sorted(again.items()), 7))) for _ in range(3)]
    failures: list[BaseException] = []

    def push_all() -> None:
        for oid in versions:
            push(theirs, other, oid)

    def collect_often() -> None:
        for _ in range(4):
            try:
                collect(user, new)
            except Interfered:
                continue
            except InputError as error:
                assert "has begun" in str(error) or "others are working" in str(error)

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    for _ in range(4):
        threads = [threading.Thread(target=guarded, args=[work]) for work in (push_all, collect_often)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert case.contents().keys() >= names(new, NEW)  # and all that manifests name is there, and right
        report = user.check()
        assert (report.findings, report.running) == ([], [])


def test_it_may_die_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever can be read is whole, and all that is kept is there."""
    monkeypatch.setattr("store.pushing.content_push.WHOLE_BYTES", 1 << 17)
    monkeypatch.setattr("store.pushing.content_survey.WHOLE_BYTES", 1 << 17)
    monkeypatch.setattr(archiving, "SMALL_BYTES", 1000)
    monkeypatch.setattr("store.pushing.content_push.SMALL_BYTES", 1000)
    made = Case(Cache(tmp_path / "made/cache"), tmp_path / "made/remote", Oid("0" * 32))
    owner = User(tmp_path / "made", RemoteSpec("far", str(made.root)))
    files = {"a": b"a", "whole": filler(2000, 1), "large": filler(200 << 10, 2)}
    kept = {"b": b"b", "whole": filler(2000, 3), "large": filler(190 << 10, 4)}
    old, new = made.add(files), made.add(kept)
    push(made, owner, old)
    push(made, owner, new)
    number, died = 0, True
    while died:
        number += 1
        home = tmp_path / str(number)
        shutil.copytree(made.root.parent, home)
        case = Case(Cache(home / "cache"), home / "remote", new)
        user = User(home, RemoteSpec("far", str(case.root)))

        def work(tell: Callable[[str], object], user: User = user) -> None:
            changes = ("put", "put done", "delete", "delete done")
            collect(user, new, storage=user.storage(lambda call: tell(call) if call in changes else None))

        died = dies(work, number)
        assert case.contents().keys() >= names(new, kept)
        report = user.check()
        assert (report.findings, report.running) == ([], [])
        collect(user, new)
        assert case.contents().keys() == names(new, kept)
        assert not user.check(deep=True).findings
    assert number > 15
