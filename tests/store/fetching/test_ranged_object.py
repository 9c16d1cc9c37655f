"""Large objects by range: what is served, what is moved, what is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from store.errors import CacheUnusable, ObjectCorrupt, ObjectMissing, RemoteSlow, RemoteUnreachable
from store.fetching import suspicion
from store.fetching.completion import FINISH_LOCK
from store.fetching.flight_locks import FlightLocks
from store.oid import Oid
from tests.descriptors import open_below
from tests.store.conftest import StoppedClock
from tests.store.fetching.scripted import (
    MIB,
    Gate,
    ScriptedStorage,
    daemon,
    oid_of,
    partial_of,
    place_of,
    random_bytes,
    read_all,
)

pytestmark = pytest.mark.usefixtures("suspicion_clock", "unhurried")

DATA = random_bytes(5 * MIB + 12345)
SIZE = len(DATA)
OTHER = random_bytes(SIZE, seed=1)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_a_range_moves_its_blocks_only(cache: Path) -> None:
    storage = ScriptedStorage()
    oid = storage.holds(DATA)

    async def main() -> None:
        async with daemon(cache, storage) as made:
            opened = await made.open(oid, SIZE)
            assert await opened.read(2 * MIB + 5, 1000) == DATA[2 * MIB + 5 :][:1000]
            assert storage.requests == [(2 * MIB, MIB)]
            assert await opened.read(SIZE - 7, 1000) == DATA[-7:]
            assert storage.requests[1:] == [(5 * MIB, 12345)]
            assert await opened.read(3 * MIB - 1, 2) == DATA[3 * MIB - 1 : 3 * MIB + 1]
            assert storage.requests[2:] == [(3 * MIB, MIB)]
            assert await opened.read(2 * MIB, MIB) == DATA[2 * MIB : 3 * MIB]
            assert await opened.read(SIZE, 1) == b""
            assert len(storage.requests) == 3
            assert opened.verified == "length"
            opened.close()
        assert not place_of(cache, oid).exists()

    trio.run(main)


def test_a_whole_object_is_hashed_and_admitted(cache: Path) -> None:
    storage = ScriptedStorage()
    oid = storage.holds(DATA)

    async def main() -> None:
        async with daemon(cache, storage) as made:
            opened = await made.open(oid, SIZE)
            assert await read_all(opened) == DATA
            await made.until(lambda: bool(made.arrived))
            assert made.arrived == [(oid, SIZE)]
            assert opened.verified == "hash"
            assert storage.moved == SIZE
            assert await read_all(opened) == DATA
            opened.close()

    trio.run(main)
    assert place_of(cache, oid).read_bytes() == DATA
    assert place_of(cache, oid).stat().st_mode & 0o777 == 0o444
    assert not partial_of(cache, oid).exists()
    assert [path for path in (cache / "fusefs").rglob("*") if path.is_file()] == [cache / "fusefs" / "locks"]


def test_what_another_process_gives_its_place_is_waited_for(cache: Path) -> None:
    """Meanwhile it is neither a partial nor in the cache, and would all be fetched again."""
    storage = ScriptedStorage()
    oid = storage.holds(DATA)

    async def main() -> None:
        async with daemon(cache, storage) as made:
            other = FlightLocks(cache)
            assert not await made.objects.await_kept(oid)
            assert other.try_hold(oid, FINISH_LOCK)
            partial_of(cache, oid).parent.mkdir(parents=True)
            partial_of(cache, oid).touch()
            assert not await made.objects.await_kept(oid)  # it is hashed, and can be read meanwhile
            partial_of(cache, oid).unlink()
            told: list[bool] = []

            async def wait() -> None:
                told.append(await made.objects.await_kept(oid))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.sleep(0.2)
                assert not told
                other.release(oid, FINISH_LOCK)
            assert told == [True]
            other.close()

    trio.run(main)


def test_many_readers_share_one_download(cache: Path) -> None:
    storage = ScriptedStorage()
    oid = storage.holds(DATA)

    async def main() -> None:
        async with daemon(cache, storage) as made, trio.open_nursery() as nursery:

            async def read() -> None:
                opened = await made.open(oid, SIZE)
                assert await read_all(opened) == DATA
                opened.close()

            for _ in range(20):
                nursery.start_soon(read)

    trio.run(main)
    assert storage.moved == SIZE


def test_a_reader_is_woken_by_its_block_and_not_by_the_run(cache: Path) -> None:
    gate = Gate(MIB)
    storage = ScriptedStorage(before_part=gate)
    oid = storage.holds(DATA)

    async def main() -> None:
        async with daemon(cache, storage) as made:
            opened = await made.open(oid, SIZE)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(opened.read, 0, 3 * MIB)
                await trio.to_thread.run_sync(gate.reached.wait)
                assert await opened.read(0, MIB) == DATA[:MIB]
                assert (0, 3 * MIB) in storage.requests
                gate.opened.set()
            assert await opened.read(0, SIZE) == DATA
            opened.close()

    trio.run(main)


def test_a_reader_that_leaves_takes_nobody_s_blocks_along(cache: Path) -> None:
    gate = Gate(0)
    storage = ScriptedStorage(before_part=gate)
    oid = storage.holds(DATA)

    async def main() -> None:
        async with daemon(cache, storage) as made:
            opened = await made.open(oid, SIZE)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(opened.read, 0, 10)
                    await trio.to_thread.run_sync(gate.reached.wait)
                    scope.cancel()
            opened.close()
            again = await made.open(oid, SIZE)
            gate.opened.set()
            assert await again.read(0, 10) == DATA[:10]
            again.close()

    trio.run(main)
    assert storage.requests == [(0, MIB)]


def test_what_an_earlier_process_brought_is_not_moved_again(cache: Path) -> None:
    storage = ScriptedStorage(validator='"1"')
    oid = storage.holds(DATA)

    async def read(offset: int, length: int) -> None:
        async with daemon(cache, storage) as made:
            opened = await made.open(oid, SIZE)
            assert await opened.read(offset, length) == DATA[offset : offset + length]
            opened.close()

    trio.run(read, 2 * MIB - 5, 10)
    assert storage.requests == [(MIB, 2 * MIB)]
    trio.run(read, 2 * MIB - 5, 10)
    assert storage.requests == [(MIB, 2 * MIB)]
    trio.run(read, 0, SIZE)
    assert sorted(storage.requests[1:]) == [(0, MIB), (3 * MIB, SIZE - 3 * MIB)]


def test_a_partial_that_is_complete_is_finished_by_the_next_who_opens_it(cache: Path) -> None:
    storage = ScriptedStorage()
    oid = storage.holds(DATA)

    async def main(verify: str) -> None:
        async with daemon(cache, storage, verify=verify) as made:
            opened = await made.open(oid, SIZE)
            if verify == "off":
                assert await read_all(opened) == DATA
                assert opened.verified == "length"
            else:
                await made.until(lambda: bool(made.arrived))
            opened.close()

    trio.run(main, "off")
    assert partial_of(cache, oid).read_bytes() == DATA
    assert not place_of(cache, oid).exists()
    trio.run(main, "blocks")
    assert place_of(cache, oid).read_bytes() == DATA
    assert storage.moved == SIZE


def test_blocks_that_the_disk_lost_are_fetched_again(cache: Path) -> None:
    storage = ScriptedStorage()
    oid = storage.holds(DATA)

    async def read(offset: int, length: int) -> None:
        async with daemon(cache, storage) as made:
            opened = await made.open(oid, SIZE)
            assert await opened.read(offset, length) == DATA[offset : offset + length]
            opened.close()

    trio.run(read, 0, 3 * MIB)
    with partial_of(cache, oid).open("r+b") as file:
        file.seek(MIB + 77)
        file.write(bytes([DATA[MIB + 77] ^ 1]))
    storage.requests.clear()
    trio.run(read, 0, 3 * MIB)
    assert [request for request in storage.requests if request[0] < 3 * MIB] == [(MIB, MIB)]


def test_damage_found_at_the_end_is_repaired_and_blamed_on_nobody(cache: Path) -> None:
    storage = ScriptedStorage()
    oid = storage.holds(DATA)

    async def main() -> None:
        async with daemon(cache, storage) as made:
            opened = await made.open(oid, SIZE)
            for offset in range(0, 5 * MIB, MIB):
                assert await opened.read(offset, 10) == DATA[offset:][:10]
            with partial_of(cache, oid).open("r+b") as file:
                file.write(bytes([DATA[0] ^ 1]))
            storage.requests.clear()
            await opened.read(5 * MIB, 1)
            while not made.arrived:
                assert len(await opened.read(0, 1)) == 1
                await trio.sleep(0.01)
            assert storage.requests == [(5 * MIB, 12345), (0, MIB)]
            assert made.corrupt == []
            opened.close()

    trio.run(main)
    assert place_of(cache, oid).read_bytes() == DATA


@pytest.mark.parametrize("suffix", ["", ".map"])
def test_files_that_become_shorter_while_they_are_used(cache: Path, suffix: str) -> None:
    storage = ScriptedStorage()
    oid = storage.holds(DATA)

    async def main() -> None:
        async with daemon(cache, storage) as made:
            opened = await made.open(oid, SIZE)
            assert await opened.read(0, 2 * MIB) == DATA[: 2 * MIB]
            path = partial_of(cache, oid)
            os.truncate(path.with_name(path.name + suffix), 100)
            assert await opened.read(0, 2 * MIB) == DATA[: 2 * MIB]
            assert await read_all(opened) == DATA
            opened.close()

    trio.run(main)


def test_a_remote_that_changes_its_mind_begins_the_object_anew(cache: Path) -> None:
    """What one state of it gave is not mixed with what another gives."""
    storage = ScriptedStorage(validator='"1"')
    oid = storage.holds(DATA, instead=OTHER)

    async def main() -> None:
        async with daemon(cache, storage) as made:
            opened = await made.open(oid, SIZE)
            assert await opened.read(0, 10) == OTHER[:10]
            storage.holds(DATA)
            storage.validator = '"2"'
            assert await opened.read(4 * MIB, 10) == DATA[4 * MIB :][:10]
            assert opened.verified == "hash"
            assert made.corrupt == [oid]
            opened.close()

    trio.run(main)
    assert place_of(cache, oid).read_bytes() == DATA


def test_wrong_bytes_are_found_out_and_fetched_elsewhere(cache: Path) -> None:
    liar, honest = ScriptedStorage(), ScriptedStorage()
    oid = liar.holds(DATA, instead=OTHER)
    honest.holds(DATA)

    async def main() -> None:
        async with daemon(cache, liar, honest) as made:
            opened = await made.open(oid, SIZE)
            assert await read_all(opened) == OTHER
            await made.until(lambda: bool(made.corrupt))
            assert made.corrupt == [oid]
            assert await read_all(opened) == DATA
            assert opened.verified == "hash"
            opened.close()

    trio.run(main)
    assert liar.moved == honest.moved == SIZE
    assert place_of(cache, oid).read_bytes() == DATA


def test_wrong_bytes_of_the_only_remote_are_an_error_until_it_is_mended(
    cache: Path, suspicion_clock: StoppedClock
) -> None:
    liar = ScriptedStorage()
    oid = liar.holds(DATA, instead=OTHER)

    async def main() -> None:
        async with daemon(cache, liar) as made:
            opened = await made.open(oid, SIZE)
            await read_all(opened)
            await made.until(lambda: bool(made.corrupt))
            for _ in range(3):
                with pytest.raises(ObjectCorrupt, match="remote0"):
                    await opened.read(0, 1)
            opened.close()
            again = await made.open(oid, SIZE)
            with pytest.raises(ObjectCorrupt, match="remote0"):
                await again.read(0, 1)
            assert liar.moved == SIZE
            assert not place_of(cache, oid).exists()
            liar.holds(DATA)
            suspicion_clock.now += suspicion.FIRST_SECONDS
            assert await again.read(0, 1) == DATA[:1]
            again.close()

    trio.run(main)
    assert liar.moved == 2 * SIZE
    assert place_of(cache, oid).read_bytes() == DATA


def test_whole_serves_nothing_before_all_is_hashed(cache: Path) -> None:
    storage, liar = ScriptedStorage(), ScriptedStorage()
    oid = storage.holds(DATA)
    liar.holds(DATA, instead=OTHER)

    async def main() -> None:
        async with daemon(cache, liar, storage, verify="whole") as made:
            opened = await made.open(oid, SIZE)
            assert await opened.read(0, 5) == DATA[:5]
            assert opened.verified == "hash"
            opened.close()

    trio.run(main)
    assert place_of(cache, oid).read_bytes() == DATA


@pytest.mark.parametrize("verify", ["blocks", "whole", "off"])
def test_an_object_can_be_brought_ahead_of_readers(cache: Path, verify: str) -> None:
    storage = ScriptedStorage()
    oid = storage.holds(DATA)

    async def main() -> None:
        async with daemon(cache, storage, verify=verify) as made:
            opened = await made.open(oid, SIZE)
            await opened.bring()
            await opened.bring()
            assert storage.moved == SIZE
            assert place_of(cache, oid).exists() == (verify != "off")
            assert partial_of(cache, oid).exists() == (verify == "off")
            opened.close()

    trio.run(main)


@pytest.mark.parametrize("verify", ["blocks", "off"])
def test_an_object_that_the_cache_has_no_room_for_cannot_be_brought_there(cache: Path, verify: str) -> None:
    storage = ScriptedStorage()
    oid = storage.holds(DATA)

    async def main() -> None:
        async with daemon(cache, storage, verify=verify, may_keep=lambda _: False) as made:
            opened = await made.open(oid, SIZE)
            with pytest.raises(CacheUnusable, match="no room"):
                await opened.bring()
            assert await opened.read(0, 5) == DATA[:5]
            opened.close()

    trio.run(main)


@pytest.mark.parametrize("verify", ["blocks", "whole"])
def test_a_remote_without_ranges_is_read_once(cache: Path, verify: str) -> None:
    storage = ScriptedStorage(ranges=False)
    oid = storage.holds(DATA)

    async def main() -> None:
        async with daemon(cache, storage, verify=verify) as made:
            opened = await made.open(oid, SIZE)
            async with trio.open_nursery() as nursery:
                for offset in (SIZE - 10, 3 * MIB, 0):
                    nursery.start_soon(opened.read, offset, 10)
                assert await opened.read(4 * MIB, 10) == DATA[4 * MIB :][:10]
            assert await read_all(opened) == DATA
            await made.until(lambda: bool(made.arrived))
            opened.close()

    trio.run(main)
    assert storage.requests == [(0, SIZE)]
    assert place_of(cache, oid).read_bytes() == DATA


def test_readers_of_a_remote_without_ranges_wake_as_their_blocks_come(cache: Path) -> None:
    gate = Gate(2 * MIB)
    storage = ScriptedStorage(ranges=False, before_part=gate)
    oid = storage.holds(DATA)

    async def main() -> None:
        async with daemon(cache, storage) as made:
            opened = await made.open(oid, SIZE)
            assert await opened.read(MIB, 10) == DATA[MIB:][:10]
            gate.opened.set()
            assert await opened.read(4 * MIB, 10) == DATA[4 * MIB :][:10]
            opened.close()

    trio.run(main)


def test_a_break_in_the_middle_goes_on_where_it_broke(cache: Path) -> None:
    broken = []

    def break_once(offset: int) -> None:
        if offset == 2 * MIB and not broken:
            broken.append(offset)
            raise RemoteUnreachable("reset")

    storage = ScriptedStorage(before_part=break_once)
    oid = storage.holds(DATA)

    async def main() -> None:
        async with daemon(cache, storage) as made:
            opened = await made.open(oid, SIZE)
            assert await opened.read(0, 4 * MIB) == DATA[: 4 * MIB]
            opened.close()

    trio.run(main)
    assert [request for request in storage.requests if request[0] < 4 * MIB] == [
        (0, 4 * MIB),
        (2 * MIB, 2 * MIB),
    ]


def test_an_object_of_another_length_is_not_taken(cache: Path) -> None:
    short, good = ScriptedStorage(), ScriptedStorage()
    oid = short.holds(DATA, instead=DATA[:-1])
    good.holds(DATA)

    async def main() -> None:
        async with daemon(cache, short, good) as made:
            opened = await made.open(oid, SIZE)
            assert await read_all(opened) == DATA
            opened.close()

    trio.run(main)


def test_errors_reach_the_reader_and_the_next_read_tries_again(cache: Path) -> None:
    storage = ScriptedStorage()
    oid = oid_of(DATA)

    def fail(_: int) -> None:
        raise RemoteSlow("down", retry_after=3600)  # which is not waited for

    async def main() -> None:
        async with daemon(cache, storage) as made:
            opened = await made.open(oid, SIZE)
            with pytest.raises(ObjectMissing):
                await opened.read(0, 1)
            opened.close()
        storage.holds(DATA)
        async with daemon(cache, storage) as made:
            storage.before_request = fail
            opened = await made.open(oid, SIZE)
            with pytest.raises(RemoteSlow, match="down"):
                await opened.read(0, 1)
            opened.close()
        storage.before_request = lambda _: None
        async with daemon(cache, storage) as made:
            opened = await made.open(oid, SIZE)
            assert await opened.read(0, 1) == DATA[:1]
            opened.close()

    trio.run(main)


def test_nobody_waits_past_the_deadline(cache: Path) -> None:
    gate = Gate(0)
    storage = ScriptedStorage(before_part=gate)
    oid = storage.holds(DATA)

    async def main() -> None:
        async with daemon(cache, storage, deadline=0.2) as made:
            opened = await made.open(oid, SIZE)
            with pytest.raises(RemoteSlow):
                await opened.read(0, 1)
            gate.opened.set()
            opened.close()

    trio.run(main)


@pytest.mark.parametrize("verify", ["blocks", "whole", "off"])
def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, verify: str) -> None:
    storage = ScriptedStorage()
    oid = storage.holds(DATA)
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "fusefs").write_text("in the way")

    async def main() -> None:
        async with daemon(cache, storage, verify=verify) as made:
            opened = await made.open(oid, SIZE)
            assert await read_all(opened) == DATA
            assert opened.verified == ("hash" if verify == "whole" else "length")
            opened.close()

    trio.run(main)


def test_many_readers_of_what_cannot_be_kept(tmp_path: Path) -> None:
    """More blocks than the memory holds: each reader gets its own all the same."""
    storage = ScriptedStorage()
    oid = storage.holds(DATA)

    async def main() -> None:
        async with (
            daemon(tmp_path / "cache", storage, budget=8 * MIB, may_keep=lambda _: False) as made,
            trio.open_nursery() as nursery,
        ):

            async def read(begin: int) -> None:
                opened = await made.open(oid, SIZE)
                for offset in range(begin, SIZE, 300_000):
                    assert await opened.read(offset, 300_000) == DATA[offset : offset + 300_000]
                opened.close()

            for number in range(6):
                nursery.start_soon(read, number * MIB // 2)

    trio.run(main)
    assert not place_of(tmp_path / "cache", oid).exists()


def test_a_bug_on_the_way_to_the_cache_ends_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage = ScriptedStorage()
    oid = storage.holds(DATA)

    def fail(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("store.fetching.arrivals.Arrivals.admit", fail)

    async def main() -> None:
        async with daemon(cache, storage) as made:
            opened = await made.open(oid, SIZE)
            with pytest.raises(CacheUnusable, match="a bug"):
                await opened.bring()
            assert await read_all(opened) == DATA
            opened.close()

    trio.run(main)
    assert "a bug in our own code" in caplog.text


def test_nothing_stays_open_or_remembered_when_the_last_reader_has_gone(cache: Path) -> None:
    storage = ScriptedStorage()
    oid = storage.holds(DATA)

    def descriptors() -> list[str]:
        return [path for path in open_below(cache) if oid.digest[2:] in path]

    async def main() -> None:
        async with daemon(cache, storage) as made:
            first, second = await made.open(oid, SIZE), await made.open(oid, SIZE)
            await first.read(0, 10)
            first.close()
            first.close()
            assert len(descriptors()) == 2
            second.close()
            with trio.fail_after(30):
                while made.objects.opened:
                    await trio.lowlevel.checkpoint()
            assert descriptors() == []

    trio.run(main)


def test_sizes_that_no_file_has_are_refused(cache: Path) -> None:
    storage = ScriptedStorage()

    async def main(size: int) -> None:
        async with daemon(cache, storage) as made:
            with pytest.raises(ObjectCorrupt, match=str(size)):
                await made.open(Oid("0" * 32), size)

    for size in (0, -1, (1 << 44) + 1, 1 << 62):
        trio.run(main, size)
