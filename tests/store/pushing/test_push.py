"""What a push leaves on a remote, whatever goes wrong with it; and what it asks for."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from store.cache_chain import CacheChain
from store.errors import (
    ObjectCorrupt,
    ObjectMissing,
    RemoteDenied,
    RemoteError,
    RemoteFull,
    RemoteSlow,
    RemoteUnreachable,
)
from store.local_cache import LocalCache
from store.manifest import parse_manifest, serialize_manifest
from store.oid import MD5, MD5_DOS2UNIX, Oid
from store.pushing import asking, sending
from store.pushing.push import Push
from store.remotes.opening import open_remote
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Address, Body, Limits, Listed, WritableStorage
from tests.mount.datasets import Cache, filler, md5
from tests.servers.object_stores import ObjectStoreServer, moto, new_s3_bucket
from tests.store.remotes.contract import LIMITS

__all__ = ["moto"]

FILES = {f"dir{number % 3}/{number}": filler(1000 + 17 * number, number) for number in range(8)}
FILES["empty"] = b""
FILES["large"] = filler(3 << 20, 77)


class Watched:
    """A storage whose calls are counted, and fail when a test wants it."""

    def __init__(self, storage: WritableStorage, fault: Callable[[str, int], None]) -> None:
        self._storage = storage
        self._fault = fault
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.put_keys: list[str] = []

    @property
    def can_list(self) -> bool:
        return self._storage.can_list

    def _count(self, call: str) -> None:
        with self._lock:
            self.calls[call] += 1
            number = self.calls[call]
        self._fault(call, number)

    def size(self, address: Address) -> int:
        self._count("size")
        return self._storage.size(address)

    def read(
        self, address: Address, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> AbstractContextManager[Body]:
        return self._storage.read(address, offset, length, validator)

    def list(self, prefix: str) -> Iterator[Listed]:
        self._count("list")
        return self._storage.list(prefix)

    def put(self, key: str, parts: Iterable[bytes], size: int, *, if_absent: bool = False) -> bool:
        self._count("put")
        done = self._storage.put(key, parts, size, if_absent=if_absent)
        with self._lock:
            self.put_keys.append(key)
        return done

    def delete(self, keys: Sequence[str]) -> None:
        self._storage.delete(keys)

    def close(self) -> None:
        self._storage.close()


def nothing(call: str, number: int) -> None:
    """No fault."""


@dataclass(frozen=True, slots=True)
class Case:
    """A version in a cache, and a directory that is to be its remote."""

    cache: Cache
    root: Path
    oid: Oid

    def push(
        self, fault: Callable[[str, int], None] = nothing, *oids: Oid, jobs: int = 4
    ) -> tuple[Push, Watched]:
        storage = Watched(open_remote(RemoteSpec("far", str(self.root)), LIMITS).storage, fault)
        work = Push(CacheChain(LocalCache(self.cache.root)), Remote("far", storage), jobs=jobs)
        return work, storage

    def place(self, oid: Oid | str) -> Path:
        text = str(oid)
        return self.root / "files/md5" / text[:2] / text[2:]

    def check(self) -> int:
        """Every object there is what its name says, and a manifest names nothing that is not there."""
        count = 0
        for path in (self.root / "files").rglob("*") if self.root.exists() else ():
            if not path.is_file():
                continue
            count += 1
            name = path.parent.name + path.name
            assert md5(path.read_bytes()) == name.removesuffix(".dir")
            if name.endswith(".dir"):
                for entry in parse_manifest(path.read_bytes(), name):
                    assert self.place(entry.md5).exists()
        return count


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.0)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    cache = Cache(tmp_path / "cache")
    for data in FILES.values():
        cache.put(data)
    oid = cache.put_manifest([{"md5": md5(data), "relpath": path} for path, data in FILES.items()])
    return Case(cache, tmp_path / "remote", Oid.parse(oid))


def test_a_version_is_pushed_and_its_manifest_last(case: Case) -> None:
    work, storage = case.push()
    work.run([case.oid])
    assert case.check() == len(FILES) + 1
    assert storage.put_keys[-1].endswith(".dir")
    assert not any(key.endswith(".dir") for key in storage.put_keys[:-1])
    tally = work.tally
    assert (tally.objects, tally.there, tally.pushed) == (len(FILES) + 1, 0, len(FILES) + 1)
    assert (
        tally.bytes
        == tally.sent
        == sum(map(len, FILES.values())) + case.cache.place(str(case.oid)).stat().st_size
    )


def test_the_largest_goes_first(case: Case) -> None:
    work, storage = case.push(jobs=1)
    work.run([case.oid])
    sizes = [(case.root / key).stat().st_size for key in storage.put_keys[:-1]]
    small = [size for size in sizes if size <= sending.LARGE_BYTES]
    assert small == sorted(small, reverse=True)


def test_what_is_there_is_not_sent_again(case: Case) -> None:
    case.push()[0].run([case.oid])
    gone = case.place(md5(FILES["large"]))
    gone.unlink()
    work, storage = case.push()
    work.run([case.oid])
    assert storage.put_keys == [gone.relative_to(case.root).as_posix()]
    assert (work.tally.there, work.tally.pushed) == (len(FILES), 1)
    assert case.check() == len(FILES) + 1


def test_an_object_of_another_length_is_put_again(case: Case) -> None:
    case.push()[0].run([case.oid])
    torn = case.place(md5(FILES["large"]))
    torn.chmod(0o644)
    torn.write_bytes(b"torn")
    case.push()[0].run([case.oid])
    assert case.check() == len(FILES) + 1


def test_a_push_may_stop_anywhere(case: Case) -> None:
    """From the k-th put on everything fails, for every k; then another push goes on from there."""
    puts = len(FILES) + 1
    for stop in range(1, puts + 1):

        def fault(call: str, number: int, stop: int = stop) -> None:
            if call == "put" and number >= stop:
                raise RemoteFull("far has no room")

        work, _ = case.push(fault)
        with pytest.raises(RemoteFull):
            work.run([case.oid])
        there = case.check()
        assert there < puts and not case.place(case.oid).exists()
        assert work.tally.failures
        work, storage = case.push()
        work.run([case.oid])
        assert case.check() == puts
        assert len(storage.put_keys) == puts - there
        for path in (case.root / "files").rglob("*"):
            if path.is_file():
                path.unlink()


def test_what_passes_is_tried_again(case: Case) -> None:
    def fault(call: str, number: int) -> None:
        if number % 3 == 0:
            raise RemoteSlow("far is slow") if number % 2 else RemoteUnreachable("far is away")

    work, _ = case.push(fault)
    work.run([case.oid])
    assert case.check() == len(FILES) + 1
    assert not work.tally.failures


def test_a_link_that_bears_few_gets_few(case: Case) -> None:
    lock, met = threading.Lock(), threading.Event()
    under_way = 0
    slow = 0

    class Narrow(Watched):
        def put(self, key: str, parts: Iterable[bytes], size: int, *, if_absent: bool = False) -> bool:
            nonlocal under_way, slow
            with lock:
                under_way += 1
                too_many = under_way > 1
            try:
                if too_many:
                    slow += 1
                    met.set()
                    raise RemoteSlow("far is slow")
                assert met.wait(60)  # the first one until another is under way, too
                return super().put(key, parts, size, if_absent=if_absent)
            finally:
                with lock:
                    under_way -= 1

    storage = Narrow(open_remote(RemoteSpec("far", str(case.root)), LIMITS).storage, nothing)
    work = Push(CacheChain(LocalCache(case.cache.root)), Remote("far", storage), jobs=8)
    work.run([case.oid])
    assert not work.tally.failures and slow
    assert case.check() == len(FILES) + 1


def test_a_remote_that_stays_away_is_given_up(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "MOST_FAILURES", 3)

    def fault(call: str, number: int) -> None:
        if call == "put":
            raise RemoteUnreachable("far is away")

    work, storage = case.push(fault, jobs=1)
    with pytest.raises(RemoteUnreachable):
        work.run([case.oid])
    assert storage.calls["put"] < len(FILES) * asking.ATTEMPTS
    assert case.check() == 0


def test_a_remote_that_denies_is_asked_once_by_each(case: Case) -> None:
    def fault(call: str, number: int) -> None:
        raise RemoteDenied("far does not let us")

    work, storage = case.push(fault)
    with pytest.raises(RemoteDenied):
        work.run([case.oid])
    assert not storage.calls["put"]


def test_who_may_not_list_is_asked_one_by_one(case: Case) -> None:
    case.push()[0].run([case.oid])

    def fault(call: str, number: int) -> None:
        if call == "list":
            raise RemoteDenied("far lets nothing be listed")

    work, storage = case.push(fault)
    work.run([case.oid])
    assert storage.calls["size"] == len(FILES) + 1
    assert not storage.put_keys


@pytest.mark.parametrize("damage", ["corrupt", "short", "missing"])
def test_no_wrong_byte_goes_out(case: Case, damage: str) -> None:
    for victim in ("large", "dir0/0"):
        place = case.cache.place(md5(FILES[victim]))
        place.chmod(0o644)
        data = FILES[victim]
        if damage == "missing":
            place.unlink()
        else:
            place.write_bytes(data[:-1] + b"\0" if damage == "corrupt" else data[:-1])
    work, _ = case.push()
    work.run([case.oid])
    assert case.check() == len(FILES) - 2  # not the manifest either
    kinds = Counter(type(failure.error) for failure in work.tally.failures)
    assert kinds[ObjectMissing if damage == "missing" else ObjectCorrupt] >= 2
    assert sum(kinds.values()) == 3
    for victim in ("large", "dir0/0"):
        case.cache.place(md5(FILES[victim])).unlink(missing_ok=True)
        case.cache.put(FILES[victim])
    case.push()[0].run([case.oid])
    assert case.check() == len(FILES) + 1


def test_what_is_not_here_may_be_there(case: Case) -> None:
    case.push()[0].run([case.oid])
    case.place(case.oid).unlink()
    case.cache.place(md5(FILES["large"])).unlink()
    work, _ = case.push()
    work.run([case.oid])
    assert not work.tally.failures
    assert case.check() == len(FILES) + 1


def test_a_manifest_that_is_damaged_stays_here(case: Case) -> None:
    place = case.cache.place(str(case.oid))
    place.chmod(0o644)
    place.write_bytes(serialize_manifest([("a", md5(FILES["large"]))]))
    work, _ = case.push()
    work.run([case.oid, Oid(md5(FILES["empty"]))])
    assert [type(failure.error) for failure in work.tally.failures] == [ObjectCorrupt]
    assert case.check() == 1


def test_single_files_and_those_of_older_repositories_have_their_places(case: Case) -> None:
    data = b"one\r\ntwo\r\n"
    old = Oid(md5(b"one\ntwo\n"), algorithm=MD5_DOS2UNIX)
    place = case.cache.root / old.digest[:2] / old.digest[2:]
    place.parent.mkdir()
    place.write_bytes(data)
    single = Oid(md5(FILES["large"]), algorithm=MD5)
    work, _ = case.push()
    work.run([single, old, old])
    assert (work.tally.objects, work.tally.pushed) == (2, 2)
    assert (case.root / old.digest[:2] / old.digest[2:]).read_bytes() == data
    assert case.place(single).read_bytes() == FILES["large"]


def test_two_pushes_at_once_do_no_harm(case: Case) -> None:
    works = [case.push()[0] for _ in range(2)]
    threads = [threading.Thread(target=work.run, args=[[case.oid]]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert case.check() == len(FILES) + 1
    assert not any(work.tally.failures for work in works)


def test_whoever_watches_can_end_it(case: Case) -> None:
    class Enough(Exception):
        pass

    def tick() -> None:
        raise Enough

    def fault(call: str, number: int) -> None:
        if call == "put" and number > 3:
            assert work._sender.crew._stop.wait(60)  # whoever is at it now ends what it has begun

    storage = Watched(open_remote(RemoteSpec("far", str(case.root)), LIMITS).storage, fault)
    work = Push(CacheChain(LocalCache(case.cache.root)), Remote("far", storage), tick=tick)
    with pytest.raises(Enough):
        work.run([case.oid])
    assert case.check() < len(FILES) + 1
    assert not case.place(case.oid).exists()


def test_many_objects_are_listed_and_few_are_asked_for(case: Case) -> None:
    work, storage = case.push()
    case.root.mkdir()
    work.run([Oid(md5(FILES["large"])), Oid(md5(FILES["empty"]))])
    assert (storage.calls["list"], storage.calls["size"]) == (0, 2)
    many = {f"{number}": b"%d" % number for number in range(600)}
    for data in many.values():
        case.cache.put(data)
    oid = Oid.parse(
        case.cache.put_manifest([{"md5": md5(data), "relpath": path} for path, data in many.items()])
    )
    case.push()[0].run([oid])
    work, storage = case.push()
    work.run([oid])
    assert storage.calls["list"] == len({md5(data)[:2] for data in many.values()})
    assert storage.calls["size"] == 1  # the manifest's
    assert not storage.calls["put"]


def test_an_object_store_is_pushed_to(case: Case, moto: ObjectStoreServer) -> None:
    bucket = new_s3_bucket(moto)
    options = {"endpointurl": moto.url, "access_key_id": "key", "secret_access_key": "secret"}
    remote = open_remote(RemoteSpec("far", f"s3://{bucket}/p", options), Limits())
    for there in (0, len(FILES) + 1):
        work = Push(CacheChain(LocalCache(case.cache.root)), remote)
        work.run([case.oid])
        assert work.tally.there == there
    for data in FILES.values():
        with remote.read(Oid(md5(data))) as body:
            assert b"".join(body) == data
    options["endpointurl"] = moto.url
    nowhere = open_remote(RemoteSpec("far", "s3://no-such-bucket", options), Limits())
    with pytest.raises(RemoteError, match="does not exist"):
        Push(CacheChain(LocalCache(case.cache.root)), nowhere).run([case.oid])
