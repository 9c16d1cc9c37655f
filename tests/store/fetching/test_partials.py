"""Partials and their maps: what survives, what is begun anew, and whom they let in."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import CacheUnusable
from store.fetching.block_map import HEADER_BYTES, BlockMap, End
from store.fetching.flight_locks import FlightLocks
from store.fetching.partials import NAMES_LOCK, Partial, Partials
from tests.store.fetching.scripted import MIB, oid_of, partial_of, random_bytes

DATA = random_bytes(2 * MIB + 10)
SIZE = len(DATA)
OID = oid_of(DATA)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    path.mkdir()
    return path


@pytest.fixture
def locks(cache: Path) -> Iterator[FlightLocks]:
    made = FlightLocks(cache)
    yield made
    made.close()


@pytest.fixture
def partials(cache: Path, locks: FlightLocks) -> Partials:
    return Partials(cache, locks)


def write(partial: Partial, block: int) -> None:
    data = DATA[block * MIB : (block + 1) * MIB]
    partial.write(block, [data[:100], data[100:]], xxhash.xxh3_64_intdigest(data))


def good(partial: Partial) -> list[int]:
    return [block for block in range(3) if partial.is_good(block)]


def map_of(cache: Path) -> Path:
    path = partial_of(cache, OID)
    return path.with_name(path.name + ".map")


def test_blocks_outlive_their_process(partials: Partials, cache: Path) -> None:
    partial = partials.open(OID, SIZE)
    assert good(partial) == []
    write(partial, 2)
    write(partial, 0)
    assert good(partial) == [0, 2]
    assert list(partial.map.absent()) == [1]
    del partial
    again = partials.open(OID, SIZE)
    assert good(again) == [0, 2]
    assert again.read(0, MIB) == DATA[:MIB]
    assert partial_of(cache, OID).stat().st_blocks * 512 < SIZE


def test_an_entry_without_its_bytes_is_no_block(partials: Partials) -> None:
    """The map may reach the disk before the data does."""
    partial = partials.open(OID, SIZE)
    partial.map.put(1, 12345)
    write(partial, 2)
    assert good(partial) == [2]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(path, 10),
        lambda path: os.truncate(path, 0),
        lambda path: os.truncate(path, HEADER_BYTES + 8),
        lambda path: path.write_bytes(b"x" * path.stat().st_size),
        lambda path: path.write_bytes(b"\0" * path.stat().st_size),
        lambda path: path.unlink(),
    ],
    ids=["head", "empty", "entries", "text", "zeros", "gone"],
)
def test_a_damaged_map_is_begun_anew(partials: Partials, cache: Path, damage: Callable[[Path], None]) -> None:
    write(partials.open(OID, SIZE), 0)
    damage(map_of(cache))
    again = partials.open(OID, SIZE)
    assert good(again) == []
    write(again, 1)
    del again
    assert good(partials.open(OID, SIZE)) == [1]


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 400))
def test_no_bytes_in_a_map_make_a_wrong_block(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    locks = FlightLocks(cache)
    partials = Partials(cache, locks)
    write(partials.open(OID, SIZE), 0)
    with map_of(cache).open("r+b") as file:
        file.seek(at)
        file.write(junk)
    again = partials.open(OID, SIZE)
    assert good(again) in ([], [0])
    again.map.end()
    again.map.validator("remote")
    locks.close()


def test_another_size_begins_anew_and_leaves_those_alone_who_read(partials: Partials) -> None:
    first = partials.open(OID, SIZE)
    write(first, 0)
    other = partials.open(OID, SIZE + 1)
    assert good(other) == []
    assert first.read(0, MIB) == DATA[:MIB]


def test_a_file_that_became_shorter_is_not_made_longer(partials: Partials, cache: Path) -> None:
    partial = partials.open(OID, SIZE)
    write(partial, 1)
    os.truncate(partial_of(cache, OID), 5)
    with pytest.raises(OSError, match="shorter"):
        write(partial, 2)
    assert partial.read(MIB, MIB) == b""
    assert good(partials.open(OID, SIZE)) == []


def test_an_ended_partial_is_not_opened_again(partials: Partials) -> None:
    partial = partials.open(OID, SIZE)
    write(partial, 0)
    partial.map.set_end(End.DISCARDED)
    assert good(partials.open(OID, SIZE)) == []
    assert partial.map.end() is End.DISCARDED


def test_the_first_remote_s_tag_is_kept(partials: Partials) -> None:
    partial = partials.open(OID, SIZE)
    assert partial.map.validator("a") == ""
    partial.map.set_validator("a", '"tag"')
    partial.map.set_validator("b", '"other"')
    del partial
    again = partials.open(OID, SIZE)
    assert again.map.validator("a") == '"tag"'
    assert again.map.validator("b") == ""


@pytest.mark.parametrize("tag", ["x" * 201, "snow ☃"])
def test_a_tag_that_cannot_be_kept_is_not(partials: Partials, tag: str) -> None:
    partial = partials.open(OID, SIZE)
    partial.map.set_validator("a", tag)
    assert partial.map.validator("a") == ""
    assert partial.map.is_sound()


def test_a_hash_of_zero_is_an_entry_all_the_same(tmp_path: Path) -> None:
    descriptor = os.memfd_create("map")
    try:
        block_map = BlockMap(descriptor, SIZE)
        block_map.begin()
        partial = Partial(OID, SIZE, os.memfd_create("data"), os.dup(descriptor), named=False)
        os.ftruncate(partial.descriptor, SIZE)
        partial.write(0, [DATA[:MIB]], 0)
        assert block_map.get(0) == 1
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("cut", [1, 4096, (256 << 10) + 1, MIB - 1])
def test_a_block_is_written_in_calls_that_the_kernel_has_memory_for(
    partials: Partials, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    calls: list[tuple[int, int]] = []
    really = os.pwritev

    def pwritev(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        calls.append((offset, sum(map(len, buffers))))
        return really(descriptor, buffers, offset)

    partial = partials.open(OID, SIZE)
    data = DATA[MIB : 2 * MIB]
    monkeypatch.setattr(os, "pwritev", pwritev)
    partial.write(1, [data[:cut], b"", data[cut:]], xxhash.xxh3_64_intdigest(data))
    quarter = 256 << 10
    assert calls == [(MIB + index * quarter, quarter) for index in range(4)]
    assert partial.is_good(1)


def test_what_a_call_leaves_is_written_by_the_next(
    partials: Partials, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, offset: really(fd, [buffers[0][:100_000]], offset))
    partial = partials.open(OID, SIZE)
    write(partial, 0)
    assert partial.is_good(0)


@pytest.mark.parametrize("suffix", ["", ".map"])
@pytest.mark.parametrize("kind", ["symlink", "hardlink", "fifo", "directory"])
def test_names_that_lead_elsewhere_are_not_followed(
    partials: Partials, cache: Path, tmp_path: Path, kind: str, suffix: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    path = partial_of(cache, OID)
    path.parent.mkdir(parents=True)
    path = path.with_name(path.name + suffix)
    if kind == "symlink":
        path.symlink_to(precious)
    elif kind == "hardlink":
        path.hardlink_to(precious)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    try:
        partial = partials.open(OID, SIZE)
    except CacheUnusable:
        pass
    else:
        write(partial, 0)
        assert good(partial) == [0]
    assert precious.read_bytes() == b"precious"


def test_without_locks_a_partial_has_no_name(cache: Path, tmp_path: Path) -> None:
    (cache / "fusefs").mkdir()
    (cache / "fusefs" / "locks").symlink_to("nowhere")
    locks = FlightLocks(cache)
    assert not locks.work
    partials = Partials(cache, locks)
    partial = partials.open(OID, SIZE)
    write(partial, 0)
    assert good(partial) == [0]
    assert not partial_of(cache, OID).exists()
    taken = partials.take_out(partial)
    assert taken is not None
    assert taken.read_bytes()[:MIB] == DATA[:MIB]


def test_a_cache_that_is_not_there_is_made(tmp_path: Path) -> None:
    locks = FlightLocks(tmp_path / "a" / "cache")
    partial = Partials(tmp_path / "a" / "cache", locks).open(OID, SIZE)
    assert partial.named
    assert partial_of(tmp_path / "a" / "cache", OID).exists()
    locks.close()


def test_names_that_are_held_for_long_are_done_without(
    partials: Partials, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.fetching.partials._NAMES_SECONDS", 0.0)
    other = FlightLocks(cache)
    assert other.try_hold(OID, NAMES_LOCK)
    assert not partials.open(OID, SIZE).named
    other.close()
    assert partials.open(OID, SIZE).named


def test_leftovers_are_listed_and_removed_unless_somebody_has_them_open(
    partials: Partials, cache: Path
) -> None:
    partial = partials.open(OID, SIZE)
    write(partial, 0)
    (found,) = partials.leftovers()
    assert found.path == partial_of(cache, OID)
    assert MIB <= found.bytes_on_disk < 2 * MIB
    assert found.last_use == max(found.path.stat().st_mtime, map_of(cache).stat().st_mtime)
    assert not partials.remove(found)
    assert good(partial) == [0]
    del partial
    assert partials.remove(found)
    assert list(partials.leftovers()) == []


def test_what_is_left_of_a_pair_is_a_leftover(partials: Partials, cache: Path) -> None:
    partials.open(OID, SIZE)
    partial_of(cache, OID).unlink()
    (found,) = partials.leftovers()
    assert found.path == map_of(cache)
    assert partials.remove(found)
    assert not map_of(cache).exists()


def test_only_what_is_still_there_by_its_name_is_taken_out(partials: Partials, cache: Path) -> None:
    partial = partials.open(OID, SIZE)
    partial_of(cache, OID).unlink()
    partial_of(cache, OID).write_bytes(b"somebody else's")
    assert partials.take_out(partial) is None
    assert partial_of(cache, OID).read_bytes() == b"somebody else's"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root")
def test_the_cache_s_owner_owns_partials(partials: Partials, cache: Path) -> None:
    os.chown(cache, 12345, 12346)
    cache.chmod(0o2770)
    partials.open(OID, SIZE)
    for path in (partial_of(cache, OID), map_of(cache)):
        status = path.stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 12346, 0o660)
