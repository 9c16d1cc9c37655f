"""What a push in content directories leaves on a remote, whatever goes wrong with it; what it asks for."""

from __future__ import annotations

import hashlib
import itertools
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from store.cache_chain import CacheChain
from store.contents import archiving
from store.contents.catalogue import Catalogue
from store.contents.index import decode_archive, decode_parts
from store.contents.names import (
    ARCHIVE,
    ARCHIVE_INDEX,
    CATALOGUE,
    PARTS,
    PARTS_INDEX,
    WHOLE,
    ContentName,
    Place,
    parse_key,
)
from store.contents.reading import Contents
from store.errors import (
    ObjectCorrupt,
    ObjectMissing,
    RemoteDenied,
    RemoteFull,
    RemoteSlow,
    RemoteUnreachable,
)
from store.local_cache import LocalCache
from store.manifest import parse_manifest
from store.oid import MD5_DOS2UNIX, Oid
from store.oplog.push_log import PushLog
from store.pushing import asking, lacking
from store.pushing.content_push import ContentPush
from store.pushing.push import Push
from store.remotes.opening import open_remote
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Limits
from tests.mount.datasets import Cache, filler, md5
from tests.servers.object_stores import ObjectStoreServer, moto, new_s3_bucket
from tests.store.oplog.remotes import Counted, User, dies
from tests.store.remotes.contract import LIMITS

__all__ = ["moto"]

SMALL = {f"dir{number % 3}/{number:02d}": filler(700 + 17 * number, number) for number in range(20)}
SMALL["empty"] = b""
FILES = {**SMALL, "middle": filler(600 << 10, 76), "large": filler(3 << 20, 77)}

Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Case:
    """A version in a cache, and a directory that is to be its remote."""

    cache: Cache
    root: Path
    oid: Oid

    def add(self, files: dict[str, bytes]) -> Oid:
        for data in files.values():
            self.cache.put(data)
        manifest = [{"md5": md5(data), "relpath": path} for path, data in files.items()]
        return Oid.parse(self.cache.put_manifest(manifest))

    def push(self, tell: Tell = lambda _: None, *, jobs: int = 4) -> tuple[ContentPush, Counted]:
        storage = Counted(open_remote(RemoteSpec("far", str(self.root)), LIMITS).storage, tell)
        caches = CacheChain(LocalCache(self.cache.root))
        return ContentPush(caches, Remote("far", storage), jobs=jobs), storage

    def place(self, name: ContentName, file: str) -> Path:
        return self.root / name.key(file)

    def has(self, oid: Oid) -> bool:
        return self.place(ContentName.of(oid), WHOLE).exists()

    def contents(self) -> dict[str, bytes]:
        """All contents that can be read there, by digest. Whatever is there must be right, and all that it
        needs must be there, too."""
        found: dict[str, bytes] = {}
        trees: list[Oid] = []
        for path in sorted((self.root / "contents").rglob("*")) if self.root.exists() else ():
            if path.is_dir():
                continue
            place = parse_key(path.relative_to(self.root).as_posix())
            assert place is not None, path
            name, oid, data = place.name, place.name.oid, path.read_bytes()
            if (place.file == WHOLE and oid is None) or place.file == ARCHIVE:
                assert hashlib.sha256(data).hexdigest() == name.digest
            elif place.file == WHOLE and oid is not None:
                assert md5(data) == name.digest
                if oid.is_tree:
                    trees.append(oid)
                found[str(oid)] = data
            elif place.file == ARCHIVE_INDEX:
                archive = path.with_name(ARCHIVE).read_bytes()
                for member in decode_archive(data, name.digest).members():
                    found[member.oid.digest] = archive[member.offset : member.offset + member.length]
                    assert md5(found[member.oid.digest]) == member.oid.digest
            elif place.file == PARTS_INDEX and oid is not None:
                pieces = decode_parts(data, oid).pieces()
                parts = (self.place(ContentName.of_part(piece.part), WHOLE) for piece in pieces)
                found[oid.digest] = b"".join(part.read_bytes() for part in parts)
                assert md5(found[oid.digest]) == oid.digest
        for tree in trees:
            self._check_tree(tree, found)
        return found

    def _check_tree(self, tree: Oid, found: dict[str, bytes]) -> None:
        catalogue = Catalogue.from_bytes(self.place(ContentName.of(tree), CATALOGUE).read_bytes(), tree)
        members = set()
        for archive in catalogue.archives:
            index = self.place(ContentName.of_archive(archive), ARCHIVE_INDEX).read_bytes()
            members |= {member.oid.digest for member in decode_archive(index, archive).members()}
        for digest in {entry.md5 for entry in parse_manifest(found[str(tree)], str(tree))}:
            raw, size = bytes.fromhex(digest), len(found[digest])
            told = (catalogue.whole.get(raw), catalogue.parts.get(raw))
            assert told in ((size, None), (None, size)) or (digest in members and told == (None, None))


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that little data has all kinds: archives of some contents, and 2 MiB in parts."""
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(archiving, "ARCHIVE_BYTES", 16 << 10)
    monkeypatch.setattr("store.pushing.content_push.WHOLE_BYTES", 2 << 20)
    monkeypatch.setattr("store.pushing.content_survey.WHOLE_BYTES", 2 << 20)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    empty = Case(Cache(tmp_path / "cache"), tmp_path / "remote", Oid("0" * 32))
    return Case(empty.cache, empty.root, empty.add(FILES))


def test_a_version_is_pushed_and_its_manifest_last(case: Case) -> None:
    push, storage = case.push()
    push.run([case.oid])
    assert {digest: data for digest, data in case.contents().items() if digest != str(case.oid)} == {
        md5(data): data for data in FILES.values()
    }
    keys = [key for call, key in storage.keys if call == "put"]
    tree = ContentName.of(case.oid)
    assert keys[-2:] == [tree.key(CATALOGUE), tree.key(WHOLE)]
    tally = push.tally
    assert (tally.objects, tally.there, tally.pushed) == (len(FILES) + 1, 0, len(FILES) + 1)
    assert (tally.lacking, tally.failures) == (len(FILES) + 1, [])
    size = case.cache.place(str(case.oid)).stat().st_size
    assert tally.bytes == tally.lacking_bytes == sum(map(len, FILES.values())) + size
    places = [parse_key(key) for key in keys]
    kept = [(place.name.namespace, place.file) for place in places if place is not None]
    assert kept.count(("archives", ARCHIVE)) == kept.count(("archives", ARCHIVE_INDEX)) == 2
    assert kept.count(("md5", PARTS_INDEX)) == 1 and kept.count((PARTS, WHOLE)) > 5
    assert kept.count(("md5", WHOLE)) == 2


def test_the_largest_goes_first(case: Case) -> None:
    push, storage = case.push(jobs=1)
    push.run([case.oid])
    put = [parse_key(key) for call, key in storage.keys if call == "put"]
    places = [place for place in put if place is not None and place.name != ContentName.of(case.oid)]
    kinds = [(place.name.namespace, place.file) for place in places]
    parts = [place for place in places if place.name.namespace == PARTS]
    assert parts and kinds[: len(parts)] == [(PARTS, WHOLE)] * len(parts)  # of all that there is the largest
    whole = [place for place in places if place.file in (WHOLE, ARCHIVE)]
    others = [sum(lengths_of(case, place)) for place in whole[len(parts) :]]
    assert len(others) > 2 and others == sorted(others, reverse=True)


def lengths_of(case: Case, place: Place) -> list[int]:
    """Of the contents in a file."""
    if place.file == WHOLE:
        return [case.place(place.name, WHOLE).stat().st_size]
    index = case.place(place.name, ARCHIVE_INDEX).read_bytes()
    return list(decode_archive(index, place.name.digest).lengths)


def test_what_is_there_is_not_sent_again(case: Case) -> None:
    case.push()[0].run([case.oid])
    push, storage = case.push()
    push.run([case.oid])
    assert not storage.calls["put"]
    assert (push.tally.there, push.tally.pushed) == (len(FILES) + 1, 0)
    single, storage = case.push()
    single.run([Oid(md5(SMALL["empty"])), Oid(md5(FILES["large"])), Oid(md5(FILES["middle"]))])
    assert (single.tally.there, storage.calls["put"]) == (3, 0)


def test_versions_share_what_did_not_change(case: Case) -> None:
    large = filler(16 << 20, 5)
    first = case.add({**SMALL, "large": large})
    case.push()[0].run([first])
    edited = large[: 9 << 20] + b"an edit" + large[(9 << 20) + 3 :]
    second = case.add({**SMALL, "more": b"more", "most": b"most", "large": edited})
    push, storage = case.push()
    push.run([second])
    sizes = {key: (case.root / key).stat().st_size for call, key in storage.keys if call == "put"}
    assert sum(sizes.values()) <= 0.05 * len(large)
    assert sum(key.endswith(ARCHIVE) for key in sizes) == 1
    assert push.tally.there == len(SMALL) and push.tally.pushed == 4
    assert md5(edited) in case.contents()


def read_all(case: Case, oid: Oid, files: dict[str, bytes]) -> None:
    """As a mount finds it."""
    storage = open_remote(RemoteSpec("far", str(case.root)), LIMITS).storage
    contents = Contents("far", storage)
    remote = Remote("far", storage, contents=contents, manifests=(oid,))
    contents.learn((oid,))
    for content in (oid, *(Oid(md5(data)) for data in files.values())):
        with remote.read(content) as body:
            assert md5(b"".join(body)) == content.digest


def test_what_lies_in_the_other_layout_is_not_sent_again(case: Case) -> None:
    caches = CacheChain(LocalCache(case.cache.root))
    plain = Push(caches, open_remote(RemoteSpec("far", str(case.root)), LIMITS))
    plain.run([case.oid])
    push, storage = case.push()
    push.run([case.oid])
    assert (push.tally.there, storage.calls["put"]) == (len(FILES) + 1, 0)
    files = {**FILES, **{f"new{number}": filler(500, 90 + number) for number in range(3)}}
    second = case.add(files)
    push, storage = case.push()
    push.run([second])
    assert push.tally.there == len(FILES) and push.tally.pushed == 4
    names = [key.rpartition("/")[2] for call, key in storage.keys if call == "put"]
    assert names == [ARCHIVE, ARCHIVE_INDEX, CATALOGUE, WHOLE]
    read_all(case, case.oid, FILES)
    read_all(case, second, files)
    (case.root / f"files/md5/{md5(SMALL['empty'])[:2]}/{md5(SMALL['empty'])[2:]}").unlink()
    push, _ = case.push()
    push.run([second])
    assert (push.tally.there, push.tally.pushed) == (len(files), 1)
    read_all(case, second, files)
    both = ContentPush(caches, open_remote(RemoteSpec("far", str(case.root)), LIMITS), in_both=True)
    both.run([second])
    assert both.tally.pushed == len(FILES) - 1  # what the last push has put is there
    shutil.rmtree(case.root / "files")
    assert case.contents().keys() >= {str(second), *map(md5, files.values())}


def test_a_push_may_stop_anywhere(case: Case) -> None:
    """From the k-th change on everything fails, for every k; then another push goes on from there."""
    whole, storage = case.push(jobs=1)
    whole.run([case.oid])
    puts = storage.calls["put"]
    everything = case.contents()
    for stop in range(1, puts + 1):
        case.root.rename(case.root.with_name(f"old{stop}"))
        calls = iter(range(1, 10 * puts))

        def tell(call: str, calls: Iterator[int] = calls, stop: int = stop) -> None:
            if call == "put" and next(calls) >= stop:
                raise RemoteFull("far has no room")

        push, _ = case.push(tell, jobs=1)
        with pytest.raises(RemoteFull):
            push.run([case.oid])
        there = case.contents()
        assert there.items() <= everything.items() and not case.has(case.oid)
        assert push.tally.failures
        push, storage = case.push()
        push.run([case.oid])
        assert case.contents() == everything
        assert not push.tally.failures and push.tally.there >= len(there)
        if stop > puts - 2:  # all but the manifest was there
            assert storage.calls["put"] <= 2


@pytest.mark.parametrize("depth", [0, 2])
def test_what_lies_at_another_depth_is_found(case: Case, depth: int) -> None:
    case.push()[0].run([case.oid])
    for path in [path for path in case.root.rglob("*") if path.is_file()]:
        place = parse_key(path.relative_to(case.root).as_posix())
        assert place is not None
        if place.name != ContentName.of(case.oid):  # it is put where it is looked for first
            moved = case.root / place.name.key(place.file, depth)
            moved.parent.mkdir(parents=True, exist_ok=True)
            path.rename(moved)
    push, storage = case.push()
    push.run([case.oid])
    assert (push.tally.there, storage.calls["put"]) == (len(FILES) + 1, 0)


def test_two_pushes_at_once_do_no_harm(case: Case) -> None:
    other = case.add({**SMALL, "large": FILES["large"][: 2 << 20] + b"changed" * 9, "else": b"else"})
    works = [case.push()[0] for _ in range(4)]
    threads = [
        threading.Thread(target=work.run, args=[[oid]])
        for work, oid in zip(works, [case.oid, case.oid, other, other], strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(work.tally.failures for work in works)
    assert {str(case.oid), str(other)} <= case.contents().keys()


def test_what_passes_is_tried_again(case: Case) -> None:
    calls = iter(range(10_000))

    def tell(call: str) -> None:
        number = next(calls)
        if number % 3 == 0 and "done" not in call:
            raise RemoteSlow("far is slow") if number % 2 else RemoteUnreachable("far is away")

    push, _ = case.push(tell)
    push.run([case.oid])
    assert not push.tally.failures
    assert len(case.contents()) == len(FILES) + 1


def test_who_may_not_list_is_asked_by_the_catalogue(case: Case) -> None:
    case.push()[0].run([case.oid])

    def tell(call: str) -> None:
        if call == "list":
            raise RemoteDenied("far lets nothing be listed")

    push, storage = case.push(tell)
    push.run([case.oid])
    assert push.tally.there == len(FILES) + 1 and not storage.calls["put"]


@pytest.mark.parametrize("damage", ["corrupt", "short", "missing"])
def test_no_wrong_byte_goes_out(case: Case, damage: str) -> None:
    victims = ("large", "middle", "dir0/03")
    for victim in victims:
        place = case.cache.place(md5(FILES[victim]))
        place.chmod(0o644)
        data = FILES[victim]
        if damage == "missing":
            place.unlink()
        else:
            place.write_bytes(data[:-1] + b"\0" if damage == "corrupt" else data[:-1])
    push, _ = case.push()
    push.run([case.oid])
    assert case.contents().keys() == {md5(data) for path, data in FILES.items() if path not in victims}
    failed = {failure.oid.digest: type(failure.error) for failure in push.tally.failures}
    assert len(failed) == len(push.tally.failures) == len(victims) + 1
    for victim in victims:
        assert failed[md5(FILES[victim])] is (ObjectMissing if damage == "missing" else ObjectCorrupt)
    assert failed[case.oid.digest] is ObjectMissing
    for victim in victims:
        case.cache.place(md5(FILES[victim])).unlink(missing_ok=True)
        case.cache.put(FILES[victim])
    push, _ = case.push()
    push.run([case.oid])
    assert case.has(case.oid) and len(case.contents()) == len(FILES) + 1


def test_what_is_not_here_may_be_there(case: Case) -> None:
    case.push()[0].run([case.oid])
    case.place(ContentName.of(case.oid), WHOLE).unlink()
    for path in ("large", "middle", "dir0/03"):
        case.cache.place(md5(FILES[path])).unlink()
    push, _ = case.push()
    push.run([case.oid])
    assert not push.tally.failures and case.has(case.oid)
    assert len(case.contents()) == len(FILES) + 1


@pytest.mark.parametrize("way", ["lost", "torn"])
def test_what_a_remote_loses_is_put_again(case: Case, way: str) -> None:
    case.push()[0].run([case.oid])
    everything = case.contents()
    files = [path for path in sorted((case.root / "contents").rglob("*")) if path.is_file()]
    one_of_each = {(path.name, path.parts[-4], path.parent.suffix): path for path in files}
    assert len(one_of_each) == 7
    for path in one_of_each.values():
        data = path.read_bytes()
        path.unlink()
        if way == "torn":
            path.write_bytes(data[:-1])
        push, _ = case.push()
        push.run([case.oid])
        assert not push.tally.failures
        if way == "torn" and path.name == ARCHIVE and len(case.contents()) == len(everything):
            path.write_bytes(data)  # its contents are in another archive now
        assert case.contents() == everything, path


def test_single_files_and_those_of_older_repositories_have_their_places(case: Case) -> None:
    data = b"one\r\ntwo\r\n"
    old = Oid(md5(b"one\ntwo\n"), algorithm=MD5_DOS2UNIX)
    place = case.cache.root / old.digest[:2] / old.digest[2:]
    place.parent.mkdir()
    place.write_bytes(data)
    push, _ = case.push()
    push.run([Oid(md5(SMALL["dir1/01"])), old, old])
    assert (push.tally.objects, push.tally.pushed) == (2, 2)
    assert case.place(ContentName.of(old), WHOLE).read_bytes() == data
    again, storage = case.push()
    again.run([Oid(md5(SMALL["dir1/01"])), old])
    assert again.tally.there == 2 and not storage.calls["put"]


def test_many_small_files_cost_few_requests(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "ARCHIVE_BYTES", 1 << 20)
    numbers = random.Random(1)
    many = {f"{number}": numbers.randbytes(300) for number in range(3000)}
    oid = case.add(many)
    push, storage = case.push()
    push.run([oid])
    assert push.tally.pushed == len(many) + 1
    assert storage.calls["put"] == 2 * 3 + 2
    assert sum(storage.calls[call] for call in ("size", "read", "list")) <= 7
    push, storage = case.push()
    push.run([oid])
    assert push.tally.there == len(many) + 1
    assert sum(storage.calls[call] for call in ("size", "read", "list", "put")) <= 10


def test_a_remote_that_has_much_is_listed_by_directories(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lacking, "PAGE_OBJECTS", 1)
    monkeypatch.setattr(archiving, "ARCHIVE_BYTES", 0)  # an archive of one is none
    many = {f"{number}": b"%d" % number for number in range(60)}
    oid = case.add(many)
    case.push()[0].run([oid])
    assert len(list(case.root.glob("contents/md5/*/*/whole"))) == len(many) + 1
    push, storage = case.push()
    push.run([oid])
    assert (push.tally.there, storage.calls["put"]) == (len(many) + 1, 0)


def test_whoever_watches_can_end_it(case: Case) -> None:
    class Enough(Exception):
        pass

    def tick() -> None:
        raise Enough

    def tell(call: str) -> None:
        if call == "put":
            assert push._sender.crew._stop.wait(60)  # whoever is at it now ends what it has begun

    storage = Counted(open_remote(RemoteSpec("far", str(case.root)), LIMITS).storage, tell)
    push = ContentPush(CacheChain(LocalCache(case.cache.root)), Remote("far", storage), tick=tick)
    with pytest.raises(Enough):
        push.run([case.oid])
    assert not case.has(case.oid)


def pushed_with_log(case: Case, user: User, tell: Tell = lambda _: None) -> Counted:
    storage = user.storage(tell)
    log = PushLog(user.journal(storage))
    with log.running():
        caches = CacheChain(LocalCache(case.cache.root))
        ContentPush(caches, Remote("far", storage), log=log).run([case.oid])
    user.copies.compile(user.key)
    return storage


def test_logs_tell_what_is_there(case: Case, tmp_path: Path) -> None:
    user = User(tmp_path, RemoteSpec("far", str(case.root)))
    changes = [key for call, key in pushed_with_log(case, user).keys if call == "put"]
    assert "/begin==" in changes[0] and "/end==" in changes[-1]
    known = user.copies.open(user.key)
    assert known is not None
    for data in FILES.values():
        assert known.find(Oid(md5(data))) == len(data)
    assert known.find(case.oid) == case.cache.place(str(case.oid)).stat().st_size
    held = user.copies.settle(user.key)
    assert not held.unsure
    named = {name.partition(":")[2] for path, name in held.there if name.startswith("sha256:")}
    files = [
        *case.root.glob("contents/parts/*/*/whole"),
        *case.root.glob("contents/archives/*/*/archive.tar"),
    ]
    assert named == {path.parent.name for path in files}
    for path, _ in held.there:
        assert (case.root / path).exists()
    assert not any("/end==" in key for call, key in pushed_with_log(case, user).keys if call == "put")
    assert user.logs() == ["begin", "end"]


def test_a_push_may_die_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before or after its k-th put, for every k; the logs are right, and another push goes on."""
    monkeypatch.setattr("store.pushing.content_push.WHOLE_BYTES", 1 << 17)
    monkeypatch.setattr("store.pushing.content_survey.WHOLE_BYTES", 1 << 17)
    monkeypatch.setattr(archiving, "SMALL_BYTES", 1000)
    monkeypatch.setattr("store.pushing.content_push.SMALL_BYTES", 1000)
    files = {"a": b"a", "b": b"b", "whole": filler(2000, 1), "large": filler(200 << 10, 2)}
    for number in itertools.count(1):
        root = tmp_path / str(number)
        case = Case(Cache(root / "cache"), root / "remote", Oid("0" * 32))
        case = Case(case.cache, case.root, case.add(files))
        user = User(root / "user", RemoteSpec("far", str(case.root)))

        def push(tell: Tell, case: Case = case, user: User = user) -> None:
            pushed_with_log(case, user, lambda call: tell(call) if call.startswith("put") else None)

        died = dies(push, number)
        case.contents()
        if not died:
            break
        report = user.check()
        assert not report.findings and len(report.ended) <= 1
        pushed_with_log(case, user)
        assert len(case.contents()) == len(files) + 1
        held = user.copies.settle(user.key)
        assert not held.unsure
        assert {str(case.oid), *map(md5, files.values())} <= {name[4:] for _, name in held.there}
    assert number > 15


def test_a_check_holds_contents_against_what_is_there(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = User(tmp_path, RemoteSpec("far", str(case.root)))
    pushed_with_log(case, user)
    for deep in (False, True):
        report = user.check(deep=deep)
        assert (report.findings, report.strays, report.corrected) == ([], [], 0)
    assert report.known == report.objects and user.logs() == ["base"]
    part, archive, whole = (
        next(path for path in sorted(case.root.glob(f"contents/{kind}")) if path.stat().st_size > 1000)
        for kind in ("parts/*/*/whole", "archives/*/*/archive.tar", "md5/*/*[0-9a-f]/whole")
    )
    index = decode_archive(archive.with_name(ARCHIVE_INDEX).read_bytes(), archive.parent.name)
    members = {member.oid.digest for member in index.members()}
    sound = archive.read_bytes()
    part.unlink()
    whole.unlink()
    member = index.member(1)
    spoilt = bytes(byte ^ 1 for byte in sound[member.offset : member.offset + member.length])
    damaged = sound[: member.offset] + spoilt + sound[member.offset + member.length :]
    archive.write_bytes(damaged)
    gone = {md5(FILES["large"]), md5(FILES["middle"])}
    assert {(one.oid.digest, one.what) for one in user.check().findings} == {(d, "lost") for d in gone}
    found = {(one.oid.digest, one.what) for one in user.check(deep=True).findings}
    assert found == {(d, "lost") for d in gone} | {(member.oid.digest, "damaged")}
    archive.unlink()
    assert {one.oid.digest for one in user.check().findings} == gone | members
    repaired = user.check(repair=True)
    assert {one.oid.digest: one.mended for one in repaired.findings} == dict.fromkeys(
        gone | members, "the cache"
    )
    assert archive.read_bytes() == sound and part.exists() and whole.exists()
    assert not (case.root / "files").exists()
    archive.write_bytes(damaged)
    assert [one.mended for one in user.check(repair=True, deep=True).findings] == ["the cache"]
    archive.unlink()
    archive.with_name(ARCHIVE_INDEX).unlink()  # so nothing tells how it was made
    assert {one.mended for one in user.check(repair=True).findings} == {"the cache"}
    assert not archive.exists()
    read_all(case, case.oid, FILES)
    report = user.check(deep=True)
    assert [one.oid for one in report.findings] == [case.oid]  # its catalogue names that archive
    assert [one.mended for one in user.check(deep=True, repair=True).findings] == ["what is there"]
    report = user.check(deep=True)
    assert (report.findings, report.stray_files, report.strays) == ([], [], [])
    read_all(case, case.oid, FILES)


def test_what_is_mended_comes_from_another_remote(case: Case, tmp_path: Path) -> None:
    user = User(tmp_path, RemoteSpec("far", str(case.root)))
    pushed_with_log(case, user)
    other = tmp_path / "other"
    shutil.copytree(case.root / "contents", other / "contents")
    before = {path.relative_to(other): path.read_bytes() for path in other.rglob("*") if path.is_file()}
    for path in (*case.root.glob("contents/a*/*/*/*"), *case.root.glob("contents/parts/*/*/whole")):
        path.unlink()
    next(case.root.glob("contents/md5/*/*/parts.idx")).unlink()
    shutil.rmtree(case.cache.root / "files")
    other_remote = Remote("other", open_remote(RemoteSpec("other", str(other)), LIMITS).storage)
    report = user.check(others=[other_remote], repair=True)
    assert len(report.findings) == len(FILES) - 1
    assert {one.mended for one in report.findings} == {"other"}
    for name, data in before.items():
        assert (case.root / name).read_bytes() == data
    report = user.check(deep=True)
    assert (report.findings, report.stray_files) == ([], [])


def test_strays_of_content_directories_are_named_and_adopted(case: Case, tmp_path: Path) -> None:
    user = User(tmp_path, RemoteSpec("far", str(case.root)))
    pushed_with_log(case, user)
    assert user.check().stray_files == []
    lone = case.place(ContentName.of_part("ab" * 32), WHOLE)
    lone.parent.mkdir(parents=True)
    lone.write_bytes(b"x")
    (case.root / "contents/what").write_bytes(b"")
    (case.root / "fusefs/uploads").mkdir(parents=True, exist_ok=True)
    (case.root / "fusefs/uploads/half").write_bytes(b"half")
    next(case.root.glob("contents/md5/*/*.dir/catalogue")).unlink()
    more = {"one": b"1", "two": b"22", "large": filler(3 << 20, 5)}
    second = case.add(more)
    case.push()[0].run([second])  # nobody tells of it
    kinds = {"archives", "md5", "parts"}
    report = user.check()
    assert [(one.oid, one.what) for one in report.findings] == [(case.oid, "lost")]
    said = {one.path: one.said for one in report.stray_files}
    assert {"contents/what", "fusefs/uploads/half", lone.relative_to(case.root).as_posix()} <= said.keys()
    assert {path.split("/")[1] for path, why in said.items() if why == "in no log"} == kinds
    assert user.check(repair=True, adopt=True).findings[0].mended
    left = {one.path: one.said for one in user.check(deep=True).stray_files}
    assert left.keys() == {"contents/what", "fusefs/uploads/half", lone.relative_to(case.root).as_posix()}
    assert left[lone.relative_to(case.root).as_posix()] == "no index names it"
    held = {name for _, name in user.copies.settle(user.key).there}
    assert held >= {f"md5:{name}" for name in (second, *map(md5, more.values()))}


def test_an_object_store_is_pushed_to(case: Case, moto: ObjectStoreServer) -> None:
    bucket = new_s3_bucket(moto)
    options = {"endpointurl": moto.url, "access_key_id": "key", "secret_access_key": "secret"}
    remote = open_remote(RemoteSpec("far", f"s3://{bucket}/p", options), Limits())
    for there in (0, len(FILES) + 1):
        push = ContentPush(CacheChain(LocalCache(case.cache.root)), remote)
        push.run([case.oid])
        assert push.tally.there == there and not push.tally.failures
    # What is there is what a directory has that was pushed to.
    case.push()[0].run([case.oid])
    for key, size, *_ in remote.storage.list("contents/"):
        assert (case.root / key).stat().st_size == size
