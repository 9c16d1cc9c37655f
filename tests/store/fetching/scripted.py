"""Remotes that do as a test says, and what a daemon has around large objects, with the real remote set."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from store.errors import RangeRefused, RemoteCorrupt, RemoteError, RemoteMissing
from store.fetching.arrivals import Arrivals
from store.fetching.flight_locks import FlightLocks
from store.fetching.ranged_object import RangedObject, RangedObjects
from store.fetching.remote_pool import RemotePool
from store.fetching.remote_set import RemoteSet
from store.layouts import object_path
from store.metrics import Metrics
from store.oid import Oid
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from store.remotes.storage import CHUNK_BYTES, Address, Body, Listed
from store.threads import Threads

MIB = 1 << 20
SECONDS = 30


def random_bytes(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def oid_of(data: bytes) -> Oid:
    return Oid(hashlib.md5(data, usedforsecurity=False).hexdigest())


def place_of(cache: Path, oid: Oid) -> Path:
    return cache / object_path(oid)


def partial_of(cache: Path, oid: Oid) -> Path:
    return cache / "fusefs" / "partials" / object_path(oid)


@dataclass
class ScriptedBody:
    storage: ScriptedStorage
    data: bytes
    offset: int
    size: int
    validator: str

    @property
    def length(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[bytes]:
        step = self.storage.step
        for start in range(0, len(self.data), step):
            self.storage.before_part(self.offset + start)
            yield self.data[start : start + step]


@dataclass
class ScriptedStorage:
    """The bytes by key; `before_part(offset)` is called in the remote's thread and may wait or raise."""

    objects: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    validator: str = ""
    step: int = CHUNK_BYTES
    before_request: Callable[[int], object] = lambda _: None
    before_part: Callable[[int], object] = lambda _: None
    requests: list[tuple[int, int]] = field(default_factory=list)
    can_list: bool = False

    def holds(self, data: bytes, *, instead: bytes | None = None) -> Oid:
        oid = oid_of(data)
        self.objects[object_path(oid)] = data if instead is None else instead
        return oid

    @property
    def moved(self) -> int:
        return sum(length for _, length in self.requests)

    def size(self, address: Address) -> int:
        if address.key not in self.objects:
            raise RemoteMissing("no such object")
        return len(self.objects[address.key])

    @contextlib.contextmanager
    def read(
        self, address: Address, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> Iterator[Body]:
        self.before_request(offset)
        data = self.objects.get(address.key)
        if data is None:
            raise RemoteMissing("no such object")
        if length is not None and not self.ranges:
            raise RangeRefused("only whole")
        if validator and validator != self.validator:
            raise RemoteCorrupt("it has changed")
        wanted = data[offset:] if length is None else data[offset : offset + length]
        self.requests.append((offset, len(wanted)))
        yield ScriptedBody(self, wanted, offset, len(data), self.validator)

    def list(self, prefix: str) -> Iterator[Listed]:
        raise RemoteError("cannot list")

    def renew(self) -> None:
        """Nothing to read again."""

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Daemon:
    """What a test reads by."""

    objects: RangedObjects
    remotes: RemoteSet
    threads: Threads
    cache: Path
    corrupt: list[Oid] = field(default_factory=list)
    arrived: list[tuple[Oid, int]] = field(default_factory=list)
    happened: trio.Event = field(default_factory=trio.Event)

    async def open(self, oid: Oid, size: int) -> RangedObject:
        return await self.objects.open(oid, size, self.remotes)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something that is told of makes it so."""
        with trio.fail_after(SECONDS):
            while not is_so():
                self.happened = trio.Event()
                await self.happened.wait()

    def tell(self, event: Callable[[], object]) -> None:
        event()
        self.happened.set()


@contextlib.asynccontextmanager
async def daemon(cache: Path, *storages: ScriptedStorage | Any, **options: Any) -> AsyncIterator[Daemon]:
    """Large objects of one cache, with remotes `remote0`, `remote1`, … in this order."""
    by_url = {f"test://{number}": storage for number, storage in enumerate(storages)}
    specs = [RemoteSpec(f"remote{number}", url) for number, url in enumerate(by_url)]
    cache.mkdir(exist_ok=True)
    threads = Threads()
    pool = RemotePool(lambda spec: Remote(spec.name, by_url[spec.url]), Metrics())
    locks = FlightLocks(cache)
    arrivals = Arrivals(cache)
    with trio.fail_after(2 * SECONDS):
        async with trio.open_nursery() as nursery:
            made = Daemon(
                RangedObjects(
                    threads,
                    nursery,
                    locks,
                    arrivals,
                    cache,
                    on_corrupt=lambda oid: made.tell(lambda: made.corrupt.append(oid)),
                    on_arrival=lambda oid, size: made.tell(lambda: made.arrived.append((oid, size))),
                    **options,
                ),
                RemoteSet(specs, pool, threads),
                threads,
                cache,
            )
            yield made
            nursery.cancel_scope.cancel()
        made.objects.close()
    arrivals.close()
    locks.close()


async def read_all(opened: RangedObject, piece: int = 128 << 10) -> bytes:
    return b"".join([bytes(await opened.read(offset, piece)) for offset in range(0, opened.size, piece)])


@dataclass
class Gate:
    """Lets nothing pass beyond an offset until it is opened."""

    at: int
    opened: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)

    def __call__(self, offset: int) -> None:
        if offset >= self.at:
            self.reached.set()
            assert self.opened.wait(SECONDS)
