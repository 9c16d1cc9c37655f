"""A version in a cache, a directory as its remote, and everything that a push or a check of it takes."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from store.cache_chain import CacheChain
from store.local_cache import LocalCache
from store.manifest import parse_manifest
from store.oid import Oid
from store.oplog.checking import Check
from store.oplog.copies import LogCopies
from store.oplog.identities import remote_key
from store.oplog.mending import Mender
from store.oplog.push_log import PushLog
from store.oplog.report import Report, Wishes
from store.oplog.transactions import Journal, Writer
from store.pushing.push import Push
from store.remotes.opening import open_remote
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from store.remotes.storage import Address, Body, Listed, WritableStorage
from tests.mount.datasets import Cache, md5
from tests.store.remotes.contract import LIMITS

DIED = 77


class Counted:
    """A storage that tells of every call before it is made, and of every change after it, too."""

    def __init__(self, storage: WritableStorage, tell: Callable[[str], object] = lambda _: None) -> None:
        self._storage = storage
        self._tell = tell
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.keys: list[tuple[str, str]] = []

    def _count(self, call: str, key: str) -> None:
        with self._lock:
            self.calls[call] += 1
            self.keys.append((call, key))
        self._tell(call)

    @property
    def can_list(self) -> bool:
        return self._storage.can_list

    def size(self, address: Address) -> int:
        self._count("size", address.key)
        return self._storage.size(address)

    def read(
        self, address: Address, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> AbstractContextManager[Body]:
        self._count("read", address.key)
        return self._storage.read(address, offset, length, validator)

    def list(self, prefix: str) -> Iterator[Listed]:
        self._count("list", prefix)
        return self._storage.list(prefix)

    def put(self, key: str, parts: Iterable[bytes], size: int, *, if_absent: bool = False) -> bool:
        self._count("put", key)
        done = self._storage.put(key, parts, size, if_absent=if_absent)
        self._tell("put done")
        return done

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._count("delete", key)
            self._storage.delete([key])
            self._tell("delete done")

    def close(self) -> None:
        self._storage.close()


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with a cache and a state of his own."""

    home: Path
    spec: RemoteSpec
    access: str = "a" * 16
    project: str = "1" * 32
    caches: list[Cache] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def copies(self) -> LogCopies:
        return LogCopies(self.cache)

    @property
    def key(self) -> str:
        return remote_key(self.spec)

    @property
    def root(self) -> Path:
        return Path(self.spec.url)

    def add(self, files: dict[str, bytes]) -> Oid:
        """A version of these files, in the cache."""
        cache = Cache(self.cache)
        for data in files.values():
            cache.put(data)
        manifest = [{"md5": md5(data), "relpath": path} for path, data in files.items()]
        return Oid.parse(cache.put_manifest(manifest))

    def storage(self, tell: Callable[[str], object] = lambda _: None) -> Counted:
        return Counted(open_remote(self.spec, LIMITS).storage, tell)

    def journal(self, storage: WritableStorage) -> Journal:
        writer = Writer(self.project, self.access, self.home / "state")
        return Journal(self.copies, self.key, self.spec.name, storage, writer)

    def push(self, *oids: Oid, storage: Counted | None = None, jobs: int = 2) -> Push:
        storage = storage or self.storage()
        log = PushLog(self.journal(storage))
        remote = Remote(self.spec.name, storage)
        push = Push(CacheChain(LocalCache(self.cache)), remote, log=log, jobs=jobs)
        with log.running():
            push.run(oids)
        self.copies.compile(self.key)
        return push

    def check(self, storage: Counted | None = None, others: Sequence[Remote] = (), **wishes: bool) -> Report:
        storage = storage or self.storage()
        mender = Mender(CacheChain(LocalCache(self.cache)), others)
        work = Check(Remote(self.spec.name, storage), self.journal(storage), mender, Wishes(**wishes))
        work.run()
        return work.report

    def place(self, oid: Oid | str) -> Path:
        text = str(oid)
        return self.root / "files/md5" / text[:2] / text[2:]

    def objects(self) -> set[str]:
        """What is on the remote, each proved; and a manifest there names nothing that is not there."""
        found = set()
        for path in (self.root / "files").rglob("*") if self.root.exists() else ():
            if path.is_file():
                name = path.parent.name + path.name
                assert md5(path.read_bytes()) == name.removesuffix(".dir")
                found.add(name)
                if name.endswith(".dir"):
                    for entry in parse_manifest(path.read_bytes(), name):
                        assert self.place(entry.md5).exists()
        return found

    def logs(self) -> list[str]:
        """The kinds of the logs on the remote, sorted."""
        place = self.root / "META/logs"
        return sorted(path.name.partition("==")[0] for path in place.iterdir()) if place.exists() else []

    def known(self) -> set[str]:
        """What the logs say that the remote has, settled."""
        held = self.copies.settle(self.key)
        assert not held.unsure
        return {name.removeprefix("md5:") for _, name in held.there}


def die_at(number: int) -> Callable[[str], object]:
    count = 0
    lock = threading.Lock()

    def tell(call: str) -> None:
        nonlocal count
        with lock:
            count += 1
            if count == number:
                os._exit(DIED)

    return tell


def dies(work: Callable[[Callable[[str], object]], object], number: int) -> bool:
    """Run in a process that ends at its `number`-th step; whether it came so far."""
    pid = os.fork()
    if pid == 0:
        try:
            work(die_at(number))
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, DIED)
    return code == DIED


def names(oid: Oid, files: Mapping[str, bytes]) -> set[str]:
    """The digests of a version: its manifest's and its files'."""
    return {str(oid), *map(md5, files.values())}
