"""A miss becomes an object of the cache: whole, verified, once; and nothing of a failure stays."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from store.engine import UNVERIFIED, Engine, Settings, open_engine
from store.errors import (
    ObjectCorrupt,
    ObjectMissing,
    RemoteCorrupt,
    RemoteSlow,
    RemoteUnreachable,
    StoreError,
)
from store.fetching import arrivals, breaker, download, flights, publisher
from store.fetching.download import IN_MEMORY, WHOLE_LIMIT
from store.fetching.flight_locks import FlightLocks
from store.fetching.remote_set import RemoteSet
from store.oid import Oid
from store.open_objects import OpenFile, OpenObject
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from store.tree import UNKNOWN
from tests.store.conftest import LONG
from tests.store.fetching.scripted import SECONDS, Gate, ScriptedStorage, oid_of, place_of, random_bytes

pytestmark = pytest.mark.usefixtures("unhurried")

DATA = random_bytes(20_000)
OID = oid_of(DATA)
LARGER = random_bytes(IN_MEMORY + 1)


@contextlib.asynccontextmanager
async def engine(
    tmp_path: Path, *storages: ScriptedStorage, **settings: Any
) -> AsyncIterator[tuple[Engine, RemoteSet]]:
    by_url = {f"test://{number}": storage for number, storage in enumerate(storages)}
    specs = [RemoteSpec(f"remote{number}", url) for number, url in enumerate(by_url)]
    settled = Settings((tmp_path / "cache",), tmp_path / "blobs", tmp_path / "own", **settings)
    with trio.fail_after(2 * SECONDS):
        async with open_engine(settled, lambda spec: Remote(spec.name, by_url[spec.url])) as made:
            yield made, made.remote_set(specs)


async def read(made: Engine, opened: OpenObject) -> bytes:
    try:
        return bytes(await made.store.read(opened, 0, opened.size + 1))
    finally:
        made.store.close(opened)


async def fetch(made: Engine, remotes: RemoteSet, oid: Oid = OID, known: int = UNKNOWN) -> bytes:
    return await read(made, await made.store.open(oid, known, None, remotes))


def left_behind(tmp_path: Path) -> list[str]:
    incoming = tmp_path / "cache" / "fusefs" / "incoming"
    return [path.name for path in incoming.iterdir()] if incoming.exists() else []


@pytest.mark.parametrize("known", [UNKNOWN, len(DATA)])
def test_a_miss_is_served_and_then_lies_where_dvc_looks_for_it(tmp_path: Path, known: int) -> None:
    storage = ScriptedStorage()
    storage.holds(DATA)

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes):
            for _ in range(3):
                assert await fetch(made, remotes, OID, known) == DATA
            assert (made.store.counters.misses, made.store.counters.hits) in ((1, 2), (3, 0), (2, 1))

    trio.run(main)
    assert place_of(tmp_path / "cache", OID).read_bytes() == DATA
    assert len(storage.requests) == 1
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("data", [b"", b"a\r\nb\r\n" * 100], ids=["empty", "text of DVC 2"])
def test_every_kind_of_object_is_verified_as_what_it_is(tmp_path: Path, data: bytes) -> None:
    storage = ScriptedStorage()
    oid = oid_of(data)
    if data:
        oid = Oid(oid_of(data.replace(b"\r\n", b"\n")).digest, algorithm="md5-dos2unix")
    storage.objects[f"{'' if data else 'files/md5/'}{str(oid)[:2]}/{str(oid)[2:]}"] = data

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes):
            assert await fetch(made, remotes, oid) == data

    trio.run(main)
    assert place_of(tmp_path / "cache", oid).read_bytes() == data


def test_the_disk_is_asked_for_many_at_once_and_at_once_where_somebody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    publish = publisher.Publisher._publish_batch

    async def note(made: publisher.Publisher) -> None:
        batches.append(len(made._queue))
        await publish(made)

    monkeypatch.setattr(publisher.Publisher, "_publish_batch", note)
    monkeypatch.setattr(publisher, "GATHER_SECONDS", 3 * SECONDS)
    storage = ScriptedStorage()
    oids = [storage.holds(random_bytes(100 + number)) for number in range(publisher.GATHERED + 2)]
    *many, lonely, last = oids

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes):
            for oid in many:
                await fetch(made, remotes, oid)
            await made.store.await_kept(many[-1])
            assert batches == [len(many)]
            await fetch(made, remotes, lonely)
            await made.store.await_kept(lonely)
            assert batches[1:] == [1]
            await fetch(made, remotes, last)  # which is waited for at the end

    trio.run(main)
    assert batches[2:] == [1]
    assert all(place_of(tmp_path / "cache", oid).exists() for oid in oids)


def test_a_hundred_readers_share_one_download_and_one_that_leaves_takes_nobody_along(tmp_path: Path) -> None:
    storage = ScriptedStorage()
    storage.holds(DATA)
    storage.before_part = gate = Gate(0)
    got: list[bytes] = []

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes), trio.open_nursery() as readers:
            hasty = trio.CancelScope()

            async def reader() -> None:
                got.append(await fetch(made, remotes))

            async def leaver() -> None:
                with hasty:
                    await reader()

            readers.start_soon(leaver)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(100):
                readers.start_soon(reader)
            await trio.to_thread.run_sync(gate.reached.wait, SECONDS)
            await trio.testing.wait_all_tasks_blocked()
            hasty.cancel()
            gate.opened.set()

    trio.run(main)
    assert got == [DATA] * 100
    assert len(storage.requests) == 1


def test_wrong_bytes_come_from_the_next_remote_and_never_into_the_cache(tmp_path: Path) -> None:
    wrong, right = ScriptedStorage(), ScriptedStorage()
    wrong.holds(DATA, instead=random_bytes(len(DATA), 1))
    right.holds(DATA)

    async def main() -> None:
        async with engine(tmp_path, wrong, right) as (made, remotes):
            assert await fetch(made, remotes) == DATA

    trio.run(main)
    assert place_of(tmp_path / "cache", OID).read_bytes() == DATA
    aside = tmp_path / "cache" / "fusefs" / "quarantine" / str(OID)
    assert aside.read_bytes() == random_bytes(len(DATA), 1)
    assert left_behind(tmp_path) == []


def test_wrong_bytes_from_all_remotes_are_an_error_and_leave_nothing(tmp_path: Path) -> None:
    storage = ScriptedStorage()
    storage.holds(DATA, instead=DATA[:-1])

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes):
            with pytest.raises(RemoteCorrupt, match="another hash"):
                await fetch(made, remotes)

    trio.run(main)
    assert not place_of(tmp_path / "cache", OID).exists()
    assert left_behind(tmp_path) == []


def test_an_error_is_not_remembered(tmp_path: Path) -> None:
    storage = ScriptedStorage()
    storage.holds(DATA)
    faults = [RuntimeError("a bug"), StoreError("a fault")]

    def fail(_: int) -> None:
        if faults:
            raise faults.pop()

    storage.before_part = fail

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes):
            with pytest.raises(StoreError, match="a fault"):
                await fetch(made, remotes)
            assert await fetch(made, remotes) == DATA

    trio.run(main)
    assert left_behind(tmp_path) == []


def test_a_bug_costs_one_read_and_not_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = ScriptedStorage()
    storage.holds(DATA)

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes):
            with monkeypatch.context() as patched:
                patched.setattr(flights.Flights, "_fetch", lambda *_: 1 / 0)
                with pytest.raises(StoreError, match="ZeroDivisionError"):
                    await fetch(made, remotes)
            assert await fetch(made, remotes) == DATA

    trio.run(main)


def test_an_object_that_a_remote_sends_is_not_judged_by_a_length_that_was_a_guess(tmp_path: Path) -> None:
    """Who asked with a wrong length is told; the object is right and stays."""
    storage = ScriptedStorage()
    storage.holds(DATA)

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes):
            with pytest.raises(ObjectCorrupt, match=f"{len(DATA)} bytes and not 7"):
                await fetch(made, remotes, OID, 7)
            assert await fetch(made, remotes) == DATA

    trio.run(main)
    assert len(storage.requests) <= 2


def test_a_damaged_file_in_the_cache_is_replaced(tmp_path: Path) -> None:
    storage = ScriptedStorage()
    storage.holds(DATA)
    place = place_of(tmp_path / "cache", OID)
    place.parent.mkdir(parents=True)
    place.write_bytes(DATA[:-7])

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes):
            assert await fetch(made, remotes, OID, len(DATA)) == DATA

    trio.run(main)
    assert place.read_bytes() == DATA


def test_what_another_process_has_brought_meanwhile_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights, "LOCK_SECONDS", LONG)
    storage = ScriptedStorage()
    storage.holds(DATA)
    locks: list[FlightLocks] = []

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes):
            (tmp_path / "cache").mkdir(exist_ok=True)
            other = FlightLocks(tmp_path / "cache")
            locks.append(other)
            assert other.try_hold(OID)
            async with trio.open_nursery() as nursery:

                async def reader() -> None:
                    assert await fetch(made, remotes) == DATA

                nursery.start_soon(reader)
                await trio.sleep(3 * flights.FIRST_POLL)  # time to see that somebody is at it
                place = place_of(tmp_path / "cache", OID)
                place.parent.mkdir(parents=True)
                (tmp_path / "whole").write_bytes(DATA)
                (tmp_path / "whole").rename(place)
                other.release(OID)

    trio.run(main)
    assert storage.requests == []
    locks[0].close()


def test_another_process_that_does_not_end_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights, "LOCK_SECONDS", 0.02)
    storage = ScriptedStorage()
    storage.holds(DATA)
    code = (
        "import sys; from pathlib import Path; from store.fetching.flight_locks import FlightLocks\n"
        "from store.oid import Oid; locks = FlightLocks(Path(sys.argv[1]))\n"
        "print(locks.try_hold(Oid(sys.argv[2])), flush=True); sys.stdin.read()"
    )
    (tmp_path / "cache").mkdir()
    command = [sys.executable, "-c", code, str(tmp_path / "cache"), str(OID)]

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes):
            assert await fetch(made, remotes) == DATA

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        trio.run(main)
        other.kill()
    assert len(storage.requests) == 1


def name_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("room", ["memory", "temporary files"])
@pytest.mark.parametrize("when", ["creating", "writing", "at its bound"])
def test_what_cannot_be_kept_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, room: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = random_bytes(3 << 20)
    storage = ScriptedStorage(step=100_000)
    oid = storage.holds(data)
    if room == "temporary files":
        monkeypatch.setattr(download.Spare.__init__, "__defaults__", (0,))
    if when == "creating":
        monkeypatch.setattr(arrivals.Arrivals, "_new_file", full)
    elif when == "writing":
        write = download.write_all

        def write_until_full(descriptor: int, part: bytes) -> None:
            if "incoming" in name_of(descriptor) and os.fstat(descriptor).st_size > 1 << 20:
                os.write(descriptor, part[:10])
                full()
            write(descriptor, part)

        monkeypatch.setattr(download, "write_all", write_until_full)
    else:
        monkeypatch.setattr("store.keeping.keeper.Keeper.may_keep", lambda *_: False)

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes):
            for _ in range(2):
                assert await fetch(made, remotes, oid) == data

    trio.run(main)
    assert not place_of(tmp_path / "cache", oid).exists()
    assert left_behind(tmp_path) == []
    lines = [line for line in caplog.messages if "served and not kept" in line]
    assert len(lines) == (0 if when == "at its bound" else 1)


def test_a_disk_that_fails_when_it_is_waited_for_costs_no_reader_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = ScriptedStorage()
    small, large = storage.holds(DATA), storage.holds(LARGER)
    monkeypatch.setattr("store.fetching.arrivals.os.fsync", full)

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes):
            opened = [await made.store.open(oid, UNKNOWN, None, remotes) for oid in (small, large)]
            await made.drain()
            assert isinstance(opened[1], OpenFile)
            assert name_of(opened[1].descriptor).startswith("/memfd:")
            assert [await read(made, one) for one in opened] == [DATA, LARGER]

    trio.run(main)
    for oid in (small, large):
        assert not place_of(tmp_path / "cache", oid).exists()
    assert left_behind(tmp_path) == []


def test_memory_for_what_is_not_kept_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare = download.Spare(100)
    descriptor, in_memory = spare.new_file(80)
    assert in_memory == 80
    fetched = download.Fetched(OID, descriptor, 80)
    fetched.charge(spare, in_memory)
    beyond, in_memory = spare.new_file(80)
    os.close(beyond)
    assert in_memory == 0
    del fetched
    again, in_memory = spare.new_file(80)
    os.close(again)
    assert in_memory == 80


def test_only_so_much_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "OUTSTANDING", 2)
    monkeypatch.setattr(publisher, "ROOM_SECONDS", 0.01)
    storage = ScriptedStorage()
    contents = [random_bytes(1000, seed) for seed in range(5)]
    oids = [storage.holds(data) for data in contents]
    disk = threading.Event()
    admit_all = arrivals.Arrivals.admit_all

    def wait_for_the_disk(self: Any, batch: Any) -> Any:
        assert disk.wait(SECONDS)
        return admit_all(self, batch)

    monkeypatch.setattr(arrivals.Arrivals, "admit_all", wait_for_the_disk)

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes):
            for oid, data in zip(oids, contents, strict=True):
                assert await fetch(made, remotes, oid) == data
            assert await fetch(made, remotes, oids[0]) == contents[0]  # on its way
            disk.set()

    trio.run(main)
    there = [place_of(tmp_path / "cache", oid).exists() for oid in oids]
    assert there == [True, True, False, False, False]
    assert len(storage.requests) == 5


def test_large_objects_are_not_fetched_whole_when_they_are_opened(tmp_path: Path) -> None:
    data = random_bytes(WHOLE_LIMIT + 1)
    storage = ScriptedStorage()
    oid = storage.holds(data)

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes):
            for known in (UNKNOWN, len(data)):
                opened = await made.store.open(oid, known, None, remotes)
                assert opened.size == len(data)
                assert bytes(await made.store.read(opened, 1 << 20, 100)) == data[1 << 20 :][:100]
                made.store.close(opened)

    trio.run(main)


def test_what_nobody_hashes_is_kept_apart(tmp_path: Path) -> None:
    storage = ScriptedStorage()
    storage.holds(DATA, instead=b"anything")

    async def main() -> None:
        async with engine(tmp_path, storage, verify="off") as (made, remotes):
            assert await fetch(made, remotes) == b"anything"
        async with engine(tmp_path, storage, verify="off") as (made, remotes):
            assert await fetch(made, remotes) == b"anything"
        storage.holds(DATA)
        async with engine(tmp_path, storage) as (made, remotes):
            assert await fetch(made, remotes) == DATA

    trio.run(main)
    assert place_of(tmp_path / "cache" / UNVERIFIED, OID).read_bytes() == b"anything"
    assert place_of(tmp_path / "cache", OID).read_bytes() == DATA
    assert len(storage.requests) == 2


def test_a_dead_remote_does_not_keep_cached_objects_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "FIRST_PAUSE", LONG)
    storage = ScriptedStorage()

    def refuse(_: int) -> None:
        raise RemoteUnreachable("refused")

    storage.before_request = refuse
    place = place_of(tmp_path / "cache", OID)
    place.parent.mkdir(parents=True)
    place.write_bytes(DATA)

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes):
            health = made.pool.members([RemoteSpec("remote0", "test://0")])[0].shared.health
            for _ in range(10):
                health.begin()
                health.fail(RemoteUnreachable("refused"))
            assert not remotes.is_ready(OID)
            assert await fetch(made, remotes) == DATA

    trio.run(main)
    assert storage.requests == []


@pytest.mark.parametrize("data", [DATA, LARGER], ids=["into memory", "into a file"])
def test_who_sends_a_little_now_and_then_keeps_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setattr(flights, "WHOLE_SECONDS", 0.2)
    storage = ScriptedStorage(step=10)
    oid = storage.holds(data)
    sent: list[int] = []
    ended = threading.Event()

    def send(offset: int) -> None:
        sent.append(offset)
        ended.wait(0.02)

    storage.before_part = send

    async def main() -> None:
        async with engine(tmp_path, storage) as (made, remotes):
            with pytest.raises(RemoteSlow):
                await fetch(made, remotes, oid)
            while made.threads.queues()["remote"].busy:
                await trio.sleep(0.01)

    try:
        trio.run(main)
    finally:
        ended.set()
    assert len(sent) < len(data) // 10, "the thread has not waited for all of it"
    assert left_behind(tmp_path) == []


def test_without_remotes_nothing_is_made_in_the_cache(tmp_path: Path) -> None:
    async def main() -> None:
        async with engine(tmp_path) as (made, remotes):
            assert not remotes
            with pytest.raises(ObjectMissing):
                await fetch(made, remotes)

    trio.run(main)
    assert not (tmp_path / "cache").exists()
