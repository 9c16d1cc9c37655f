"""The process that brings small objects: what it brings, what goes wrong, and what happens when it ends."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from store.budget import Limits
from store.engine import Engine, Settings, open_engine
from store.errors import ObjectMissing, RemoteCorrupt
from store.fetching import courier, courier_process
from store.fetching import courier_messages as messages
from store.fetching.download import WHOLE_LIMIT, Downloader, Fetched, Large
from store.fetching.flight import Flight
from store.fetching.flights import Flights
from store.fetching.remote_set import RemoteSet
from store.layouts import object_path
from store.metrics import RemoteMetrics
from store.oid import Oid
from store.pace import DiskPace
from store.remotes.opening import open_remote
from store.remotes.remote import Remote
from store.remotes.spec import RemoteSpec
from store.tree import UNKNOWN
from tests.store.fetching.scripted import oid_of, place_of, random_bytes

pytestmark = pytest.mark.usefixtures("unhurried")

SECONDS = 120
MANY = 200
UNLIMITED = Limits()


@pytest.fixture(autouse=True, params=[True, False], ids=["short way", "by tasks"])
def short_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A disk of this machine lets most objects come without a task for each."""
    is_local = bool(request.param)
    monkeypatch.setattr(DiskPace, "is_local", property(lambda _: is_local))
    return is_local


def put(root: Path, data: bytes, *, instead: bytes | None = None) -> Oid:
    oid = oid_of(data)
    path = root / object_path(oid)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if instead is None else instead)
    return oid


@contextlib.asynccontextmanager
async def engine_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    threads: bool = False,
    limits: Limits = UNLIMITED,
) -> AsyncIterator[Engine]:
    """With a courier that is ready, and without `threads` that could do its work."""
    monkeypatch.setattr(courier, "STARTS_AFTER", 0)
    settings = Settings(
        caches=[tmp_path / "cache"],
        blobs=tmp_path / "blobs",
        own=tmp_path / "own",
        courier=True,
        limits=limits,
    )
    with trio.fail_after(SECONDS):
        async with open_engine(settings, open_remote) as engine:
            engine.remote_set([RemoteSpec("far", str(tmp_path / "far"))])
            made = engine._courier
            assert made is not None
            while not made.is_ready():
                await trio.sleep(0.01)
            with monkeypatch.context() as patch:
                if not threads:
                    patch.setattr(Downloader, "download", _not_here)
                yield engine


def _not_here(*_: object) -> None:
    raise AssertionError("a thread of this process asks the remote")


def flights_of(engine: Engine) -> Flights:
    flights = engine.store._flights
    assert flights is not None
    return flights


async def fetch(engine: Engine, oid: Oid, known: int = UNKNOWN) -> Fetched | Large:
    remotes = engine.remote_set([RemoteSpec("far", str(engine.settings.caches[0].parent / "far"))])
    return await flights_of(engine).fetch(oid, known, remotes)


async def look_for_contents(engine: Engine, remotes: RemoteSet) -> None:
    """Have it known that the remote has no content directories, where threads would look otherwise."""
    contents = remotes.remotes[0].contents
    assert contents is not None
    assert await engine.threads.on_disk(contents.find, oid_of(b"anything")) is None


def bytes_of(fetched: Fetched | Large) -> bytes:
    assert isinstance(fetched, Fetched)
    return fetched.data if fetched.data is not None else os.pread(fetched.descriptor, fetched.size + 1, 0)


def process_of(engine: Engine) -> int:
    assert engine._courier is not None
    assert engine._courier._process is not None
    return engine._courier._process.pid


async def fetch_all(engine: Engine, wanted: dict[Oid, bytes]) -> None:
    async def one(oid: Oid, data: bytes) -> None:
        assert bytes_of(await fetch(engine, oid)) == data

    async with trio.open_nursery() as nursery:
        for oid, data in wanted.items():
            nursery.start_soon(one, oid, data)


def test_it_brings_objects_of_every_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        lengths = [0, 1, 20_000, messages.DATA_BYTES, messages.DATA_BYTES + 1, WHOLE_LIMIT]
        wanted = {
            put(tmp_path / "far", data): data for data in map(random_bytes, lengths, range(len(lengths)))
        }
        too_large = put(tmp_path / "far", bytes(WHOLE_LIMIT + 1))
        async with engine_of(tmp_path, monkeypatch) as engine:
            await fetch_all(engine, wanted)
            assert await fetch(engine, too_large) == Large(WHOLE_LIMIT + 1)
            assert engine.metrics.bytes_received() == sum(lengths)
        for oid, data in wanted.items():
            place = place_of(tmp_path / "cache", oid)
            assert place.read_bytes() == data
            assert place.stat().st_mode & 0o777 == 0o444
        assert not list((tmp_path / "cache" / "fusefs" / "incoming").iterdir())

    trio.run(check)


def test_what_comes_as_usual_needs_no_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_way: bool
) -> None:
    tasks: list[Oid] = []
    fly = Flights._fly

    async def note(flights: Flights, flight: Flight) -> None:
        tasks.append(flight.oid)
        await fly(flights, flight)

    async def main() -> None:
        data = {put(tmp_path / "far", part): part for part in (b"one", b"another")}
        missing = oid_of(b"nowhere")
        async with engine_of(tmp_path, monkeypatch, threads=True) as engine:
            monkeypatch.setattr(Flights, "_fly", note)
            await fetch_all(engine, data)
            assert set(tasks) == (set() if short_way else set(data))  # they begin in no order
            tasks.clear()
            with pytest.raises(ObjectMissing):
                await fetch(engine, missing)
            assert tasks == [missing]

    trio.run(main)


def test_what_a_cache_has_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_way: bool
) -> None:
    """The courier looks for it, so that the loop waits for no disk; another length does not count."""

    async def main() -> None:
        here, wrong = oid_of(b"here"), put(tmp_path / "far", b"right")
        put(tmp_path / "cache", b"here")
        put(tmp_path / "cache", b"right", instead=b"of another length")
        async with engine_of(tmp_path, monkeypatch) as engine:
            with monkeypatch.context() as patch:
                if short_way:
                    patch.setattr(Flights, "_look", _not_here)
                found = await fetch(engine, here, known=4)
                assert bytes_of(found) == b"here"
                assert isinstance(found, Fetched) and found.remote is None
                assert engine.metrics.bytes_received() == 0
            assert bytes_of(await fetch(engine, wrong, known=5)) == b"right"
            assert engine.metrics.bytes_received() == 5

    trio.run(main)


def test_it_writes_down_what_it_has_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        oid = put(tmp_path / "far", b"known")
        async with engine_of(tmp_path, monkeypatch) as engine:
            await fetch(engine, oid)
            await engine.drain()
            assert engine.store.was_hashed(oid, 5)

    trio.run(check)


@pytest.mark.parametrize("off", [1, -1])
@pytest.mark.parametrize("length", [20_000, messages.DATA_BYTES + 100])
def test_what_has_another_length_than_is_known_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, off: int
) -> None:
    """Its hash is right, so whoever knows better may have it; the kernel does not."""

    async def check() -> None:
        data = random_bytes(length)
        oid = put(tmp_path / "far", data)
        async with engine_of(tmp_path, monkeypatch) as engine:
            fetched = await fetch(engine, oid, length + off)
            assert bytes_of(fetched) == data and isinstance(fetched, Fetched) and not fetched.keep
            assert not engine.store.is_on_its_way(oid)
            await engine.drain()
            assert not place_of(tmp_path / "cache", oid).exists()
        assert not list((tmp_path / "cache" / "fusefs" / "incoming").iterdir())
        async with engine_of(tmp_path, monkeypatch) as engine:
            assert bytes_of(await fetch(engine, oid, length)) == data
        assert place_of(tmp_path / "cache", oid).read_bytes() == data

    trio.run(check)


def test_what_there_is_no_room_for_is_not_on_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        data = random_bytes(20_000)
        oid = put(tmp_path / "far", data)
        async with engine_of(tmp_path, monkeypatch, limits=Limits(1)) as engine:
            assert bytes_of(await fetch(engine, oid)) == data
            assert not engine.store.is_on_its_way(oid)

    trio.run(check)


def test_it_tells_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        oid = put(tmp_path / "far", b"12345")
        async with engine_of(tmp_path, monkeypatch) as engine:
            remotes = engine.remote_set([RemoteSpec("far", str(tmp_path / "far"))])
            await look_for_contents(engine, remotes)
            with monkeypatch.context() as patch:
                patch.setattr(Remote, "size", _not_here)
                assert await engine.finder.size(oid, remotes) == 5
                with pytest.raises(ObjectMissing):
                    await engine.finder.size(oid_of(b"nowhere"), remotes)
            while any(queue.busy for queue in engine.threads.queues().values()):
                await trio.sleep(0.01)  # for one that was asked twice because the machine was slow

    trio.run(check)


def test_what_is_wrong_is_told_as_threads_tell_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        wrong = put(tmp_path / "far", b"right", instead=b"wrong")
        async with engine_of(tmp_path, monkeypatch) as engine:
            with pytest.raises(RemoteCorrupt, match="another hash"):
                await fetch(engine, wrong)
            await look_for_contents(engine, engine.remote_set([RemoteSpec("far", str(tmp_path / "far"))]))
            with pytest.raises(ObjectMissing):
                await fetch(engine, oid_of(b"nowhere"))
        aside = tmp_path / "cache" / "fusefs" / "quarantine" / str(wrong)
        assert aside.read_bytes() == b"wrong"

    trio.run(check)


def test_threads_go_on_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        objects = [random_bytes(1000, seed) for seed in range(MANY)]
        wanted = {put(tmp_path / "far", data): data for data in objects}
        async with engine_of(tmp_path, monkeypatch, threads=True) as engine:
            pid = process_of(engine)
            os.kill(pid, signal.SIGSTOP)  # so that errands are under way for certain
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fetch_all, engine, wanted)
                while not engine.threads.queues()["remote"].busy:
                    await trio.sleep(0.01)
                os.kill(pid, signal.SIGKILL)
        for oid, data in wanted.items():
            assert place_of(tmp_path / "cache", oid).read_bytes() == data

    trio.run(check)


def test_it_ends_with_its_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        async with engine_of(tmp_path, monkeypatch) as engine:
            pid = process_of(engine)
            os.kill(pid, 0)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    trio.run(check)


def test_a_remote_is_opened_anew_for_fresh_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []

    class Stored:
        def __init__(self) -> None:
            opened.append(len(opened))

        def size(self, _: object) -> int:
            return opened[-1]

        def close(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr(courier_process, "open_remote", lambda spec: Remote(spec.name, Stored()))  # type: ignore[arg-type]
    remotes = courier_process._Remotes(courier_process._Tally())
    wire = messages.pack_map(RemoteSpec("far", "test://").to_wire())
    oid = oid_of(b"")
    for generation, expected in ((0, 0), (0, 0), (1, 1), (0, 1), (1, 1)):
        order = messages.Bring(
            1, wire, generation, oid.digest, "md5", False, "key", "", 1, True, 1, 0.0, UNKNOWN, ()
        )
        assert remotes.get(order).size(oid) == expected


def test_bytes_are_counted_for_the_thread_that_receives_them() -> None:
    tally = courier_process._Tally()
    assert isinstance(tally, RemoteMetrics)
    tally.received(3)
    tally.received(4)
    assert tally.take() == 7
    assert tally.take() == 0
