"""What lies in content directories is read like anything else: right, by few requests, or not at all."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import trio

from store.contents.archiving import build_archive
from store.contents.catalogue import Catalogue
from store.contents.index import Piece, encode_archive, encode_parts
from store.contents.names import (
    ARCHIVE,
    ARCHIVE_INDEX,
    CATALOGUE,
    DEPTHS,
    PARTS_INDEX,
    WHOLE,
    ContentName,
)
from store.errors import ObjectMissing, RangeRefused, RemoteCorrupt, RemoteMissing, StoreError
from store.fetching import courier
from store.layouts import object_path
from store.remotes.storage import Address, Body
from tests.mount.datasets import Cache, filler
from tests.store.contents.content_remote import PIECE, ContentRemote, Counted, oid_of, reading

pytestmark = pytest.mark.usefixtures("unhurried")

SMALL = {f"{number:04}.bin": filler(4000 + number % 7, number) for number in range(2000)}
MIB = 1 << 20
LARGE = filler(5 * MIB, 1)
MIDDLE = filler(900_000, 2)


def cached(tmp_path: Path) -> int:
    return sum(path.is_file() for path in (tmp_path / "cache/files/md5").rglob("*"))


@pytest.fixture
def remote(tmp_path: Path) -> ContentRemote:
    return ContentRemote(tmp_path / "remote")


@pytest.mark.parametrize("readers", [1, 16])
def test_small_files_come_by_few_requests(tmp_path: Path, remote: ContentRemote, readers: int) -> None:
    manifest = remote.put_version(SMALL)

    async def main() -> None:
        async with reading(tmp_path, remote.root, manifests=(manifest,)) as (reader, (storage,)):
            waiting = iter(SMALL.values())

            async def work() -> None:
                for data in waiting:
                    assert await reader.read(oid_of(data)) == data

            async with trio.open_nursery() as nursery:
                for _ in range(readers):
                    nursery.start_soon(work)
            assert len(storage.requests) <= len(SMALL) / 50
            assert storage.moved < 1.5 * sum(len(data) + 1024 for data in SMALL.values())

    trio.run(main)
    assert cached(tmp_path) == len(SMALL)


def test_who_jumps_about_does_not_bring_whole_archives(tmp_path: Path, remote: ContentRemote) -> None:
    manifest = remote.put_version(SMALL)
    wanted = random.Random(3).sample(list(SMALL.values()), 4)

    async def main() -> None:
        async with reading(tmp_path, remote.root, manifests=(manifest,)) as (reader, (storage,)):
            for data in wanted:
                assert await reader.read(oid_of(data)) == data
            moved = sum(size for _, key, size in storage.requests if key.endswith(ARCHIVE))
            assert moved <= len(wanted) * (256 << 10)

    trio.run(main)


@pytest.mark.parametrize("has_catalogue", [True, False])
@pytest.mark.parametrize("depth", DEPTHS)
def test_contents_are_found_at_any_depth(
    tmp_path: Path, remote: ContentRemote, depth: int, has_catalogue: bool
) -> None:
    few = dict(list(SMALL.items())[:5])
    manifest = remote.put_version(
        few, whole={"w": MIDDLE}, in_parts={"p": LARGE}, depth=depth, catalogue=has_catalogue
    )

    async def main() -> None:
        async with reading(tmp_path, remote.root, manifests=(manifest,)) as (reader, _):
            for data in (*few.values(), MIDDLE, LARGE):
                assert await reader.read(oid_of(data)) == data

    trio.run(main)


def test_one_remote_mixes_depths_and_layouts(tmp_path: Path, remote: ContentRemote) -> None:
    whole = [filler(5000, number) for number in range(3)]
    plain = filler(6000, 9)
    for data, depth in zip(whole, DEPTHS, strict=True):
        remote.put_whole(data, depth)
    Cache(remote.root).put(plain)
    archives = [filler(300, number) for number in range(20, 23)]
    for data, depth in zip(archives, DEPTHS, strict=True):
        remote.put_archive([data], depth)

    async def main() -> None:
        async with reading(tmp_path, remote.root) as (reader, _):
            for data in (*archives, plain, *whole):
                assert await reader.read(oid_of(data)) == data

    trio.run(main)


def test_of_a_large_file_only_what_is_read_is_moved(tmp_path: Path, remote: ContentRemote) -> None:
    remote.put_parts(LARGE)
    oid = oid_of(LARGE)

    async def main() -> None:
        async with reading(tmp_path, remote.root) as (reader, (storage,)):
            start = 2 * MIB + 5000
            assert await reader.read(oid, len(LARGE), start, 4096) == LARGE[start : start + 4096]
            parts = [size for kind, key, size in storage.requests if "/parts/" in key and kind == "read"]
            assert parts and sum(parts) <= 3 * MIB  # a block, and one ahead
            assert cached(tmp_path) == 0
            assert await reader.read(oid, len(LARGE)) == LARGE
            assert len([key for key in storage.of("read", WHOLE) if "/parts/" in key]) == 5 * MIB // PIECE
            while not cached(tmp_path):  # within the deadline of `reading`
                await trio.sleep(0.01)

    trio.run(main)
    assert (tmp_path / "cache" / object_path(oid)).read_bytes() == LARGE


def test_a_remote_without_contents_is_asked_one_question(tmp_path: Path) -> None:
    there, absent = Cache(tmp_path / "remote"), [filler(100, number) for number in range(20)]
    data = filler(5000, 1)
    there.put(data)

    async def main() -> None:
        async with reading(tmp_path, there.root) as (reader, (storage,)):
            assert await reader.read(oid_of(data)) == data
            assert len(storage.requests) == 1
            for one in absent:
                with pytest.raises(ObjectMissing):
                    await reader.read(oid_of(one))
            assert len(storage.requests) == 2 + len(absent)
            assert len(storage.of("list")) == 1

    trio.run(main)


def test_sizes_come_from_indexes(tmp_path: Path, remote: ContentRemote) -> None:
    manifest = remote.put_version(SMALL, whole={"w": MIDDLE}, in_parts={"p": LARGE})

    async def main() -> None:
        async with reading(tmp_path, remote.root, manifests=(manifest,)) as (reader, (storage,)):
            for data in (*SMALL.values(), MIDDLE, LARGE):
                assert await reader.engine.finder.size(oid_of(data), reader.remotes) == len(data)
            assert len(storage.requests) < 10

    trio.run(main)


# What is damaged, or lies


def lie_in_sums(remote: ContentRemote) -> None:
    """Members' hashes and bytes that agree with each other, and with no oid."""
    archive = build_archive([(oid_of(data), data) for data in list(SMALL.values())[:5]])
    wrong = bytearray(archive.data)
    for member in archive.members:
        wrong[member.offset] ^= 1
    remote.put(ContentName.of_archive(archive.name), ARCHIVE, bytes(wrong))
    remote.put(ContentName.of_archive(archive.name), ARCHIVE_INDEX, archive.index)


def lie_in_offsets(remote: ContentRemote) -> None:
    archive = build_archive([(oid_of(data), data) for data in list(SMALL.values())[:5]])
    moved = [member._replace(offset=member.offset + 512) for member in archive.members]
    index = encode_archive(archive.name, len(archive.data), "md5", moved)
    remote.put(ContentName.of_archive(archive.name), ARCHIVE, archive.data)
    remote.put(ContentName.of_archive(archive.name), ARCHIVE_INDEX, index)


def lose_the_archive(remote: ContentRemote) -> None:
    archive = remote.put_archive(list(SMALL.values())[:5])
    remote.place(ContentName.of_archive(archive.name), ARCHIVE).unlink()


def cut_the_archive(remote: ContentRemote) -> None:
    archive = remote.put_archive(list(SMALL.values())[:5])
    remote.put(ContentName.of_archive(archive.name), ARCHIVE, archive.data[:1500])


def damage_the_index(remote: ContentRemote) -> None:
    archive = remote.put_archive(list(SMALL.values())[:5])
    remote.put(ContentName.of_archive(archive.name), ARCHIVE_INDEX, archive.index[:-5] + b"wrong")


def test_an_archive_that_is_missing_is_named(
    tmp_path: Path, remote: ContentRemote, caplog: pytest.LogCaptureFixture
) -> None:
    lose_the_archive(remote)
    data = SMALL["0001.bin"]

    async def main() -> None:
        async with reading(tmp_path, remote.root) as (reader, _):
            with pytest.raises(ObjectMissing):
                await reader.read(oid_of(data))

    with caplog.at_level(logging.WARNING):
        trio.run(main)
    (index,) = remote.root.rglob(ARCHIVE_INDEX)
    (said,) = [record.getMessage() for record in caplog.records if str(oid_of(data)) in record.getMessage()]
    assert "remote0" in said and index.parent.name in said


@pytest.mark.parametrize(
    "spoil", [lie_in_sums, lie_in_offsets, lose_the_archive, cut_the_archive, damage_the_index]
)
@pytest.mark.parametrize("has_another", [True, False])
def test_no_wrong_byte_of_an_archive(
    tmp_path: Path, remote: ContentRemote, spoil: Callable[[ContentRemote], None], has_another: bool
) -> None:
    other = ContentRemote(tmp_path / "other")
    spoil(remote)
    few = list(SMALL.values())[:5]
    if has_another:
        other.put_archive(few)

    async def main() -> None:
        roots = (remote.root, other.root) if has_another else (remote.root,)
        async with reading(tmp_path, *roots) as (reader, _):
            for data in few:
                if has_another:
                    assert await reader.read(oid_of(data)) == data
                else:
                    with pytest.raises((RemoteCorrupt, ObjectMissing)):
                        await reader.read(oid_of(data))

    trio.run(main)
    assert cached(tmp_path) == (len(few) if has_another else 0)


def test_what_is_wrong_in_an_archive_is_named(
    tmp_path: Path, remote: ContentRemote, caplog: pytest.LogCaptureFixture
) -> None:
    few = list(SMALL.values())[:5]
    archive = remote.put_archive(few)
    wrong = bytearray(archive.data)
    wrong[archive.members[3].offset] ^= 1
    remote.put(ContentName.of_archive(archive.name), ARCHIVE, bytes(wrong))

    async def main() -> None:
        async with reading(tmp_path, remote.root) as (reader, _):
            for data in few:
                if data is few[3]:
                    with pytest.raises(RemoteCorrupt):
                        await reader.read(oid_of(data))
                else:
                    assert await reader.read(oid_of(data)) == data

    with caplog.at_level(logging.WARNING):
        trio.run(main)
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "remote0" in said and archive.name in said and str(oid_of(few[3])) in said


def wrong_part(remote: ContentRemote, pieces: list[Piece]) -> None:
    remote.put(ContentName.of_part(pieces[3].part), WHOLE, bytes(pieces[3].length))


def missing_part(remote: ContentRemote, pieces: list[Piece]) -> None:
    remote.place(ContentName.of_part(pieces[3].part), WHOLE).unlink()


def long_part(remote: ContentRemote, pieces: list[Piece]) -> None:
    remote.put(ContentName.of_part(pieces[3].part), WHOLE, LARGE)


def swapped_parts(remote: ContentRemote, pieces: list[Piece]) -> None:
    first, second, *others = pieces
    lying = [second._replace(offset=0), first._replace(offset=second.length), *others]
    remote.put(ContentName.of(oid_of(LARGE)), PARTS_INDEX, encode_parts(oid_of(LARGE), lying))


def lying_length(remote: ContentRemote, pieces: list[Piece]) -> None:
    remote.put(ContentName.of(oid_of(LARGE)), PARTS_INDEX, encode_parts(oid_of(LARGE), pieces[:-1]))


@pytest.mark.parametrize("spoil", [wrong_part, missing_part, long_part, swapped_parts, lying_length])
def test_no_wrong_byte_of_parts(
    tmp_path: Path, remote: ContentRemote, spoil: Callable[[ContentRemote, list[Piece]], None]
) -> None:
    other = ContentRemote(tmp_path / "other")
    spoil(remote, remote.put_parts(LARGE))
    other.put_parts(LARGE)
    oid = oid_of(LARGE)

    async def main() -> None:
        async with reading(tmp_path, remote.root, verify="whole") as (reader, _):
            with pytest.raises(StoreError):
                assert await reader.read(oid, len(LARGE)) == b""
        async with reading(tmp_path, remote.root, other.root, verify="whole") as (reader, _):
            assert await reader.read(oid, len(LARGE)) == LARGE

    trio.run(main)
    assert (tmp_path / "cache" / object_path(oid)).read_bytes() == LARGE


def test_a_catalogue_that_lies_is_done_without(tmp_path: Path, remote: ContentRemote) -> None:
    few = dict(list(SMALL.items())[:5])
    manifest = remote.put_version(few, whole={"w": MIDDLE})
    lies = Catalogue(manifest, ("ab" * 32,), {oid_of(few["0000.bin"]).raw: 5}, {oid_of(MIDDLE).raw: 7})
    remote.put(ContentName.of(manifest), CATALOGUE, lies.to_bytes())

    async def main() -> None:
        async with reading(tmp_path, remote.root, manifests=(manifest,)) as (reader, _):
            for data in (*few.values(), MIDDLE):
                assert await reader.read(oid_of(data)) == data

    trio.run(main)


def test_members_that_went_to_another_archive_are_found(tmp_path: Path, remote: ContentRemote) -> None:
    few = dict(list(SMALL.items())[:20])
    manifest = remote.put_version(few)

    async def main() -> None:
        async with reading(tmp_path, remote.root, manifests=(manifest,)) as (reader, _):
            first, *others = few.values()
            assert await reader.read(oid_of(first)) == first
            for path in remote.root.rglob("archive.*"):
                path.unlink()
            remote.put_version({"more": filler(800_000, 5), **few})
            for data in others:
                assert await reader.read(oid_of(data)) == data

    trio.run(main)


def test_a_catalogue_cannot_make_anybody_ask_for_ever(
    tmp_path: Path, remote: ContentRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.contents.archives.MOST_LOST", 5)
    data = filler(1000, 1)
    manifest = remote.put_version({"a": data})
    names = tuple(f"{number:064x}" for number in range(500))
    remote.put(ContentName.of(manifest), CATALOGUE, Catalogue(manifest, names, {}, {}).to_bytes())

    async def main() -> None:
        async with reading(tmp_path, remote.root, manifests=(manifest,)) as (reader, (storage,)):
            assert await reader.read(oid_of(data)) == data
            assert len(storage.requests) < 100

    trio.run(main)


def test_a_server_that_gives_only_whole_files_gives_members(
    tmp_path: Path, remote: ContentRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = list(SMALL.values())[:5]
    remote.put_archive(few)
    read = Counted.read

    def read_whole(
        self: Counted, address: Address, offset: int = 0, length: int | None = None, validator: str = ""
    ) -> AbstractContextManager[Body]:
        if length is not None:
            raise RangeRefused("only whole")
        return read(self, address, offset, length, validator)

    monkeypatch.setattr(Counted, "read", read_whole)

    async def main() -> None:
        async with reading(tmp_path, remote.root) as (reader, _):
            for data in reversed(few):
                assert await reader.read(oid_of(data)) == data

    trio.run(main)


def test_what_is_about_to_be_evicted_is_asked_for(tmp_path: Path, remote: ContentRemote) -> None:
    few = list(SMALL.values())[:5]
    archive = remote.put_archive(few)
    remote.put_whole(MIDDLE)
    pieces = remote.put_parts(LARGE)

    async def main() -> None:
        async with reading(tmp_path, remote.root) as (reader, (storage,)):
            (there,) = reader.remotes.remotes
            ask = reader.engine.threads.on_disk
            for data in (*few, MIDDLE, LARGE):
                assert await ask(there.confirm, oid_of(data)) == len(data)
            assert len(storage.of("size", ARCHIVE)) == 1
            remote.place(ContentName.of_archive(archive.name), ARCHIVE).unlink()
            remote.place(ContentName.of(oid_of(MIDDLE)), WHOLE).unlink()
            remote.place(ContentName.of_part(pieces[7].part), WHOLE).unlink()
            assert there.contents is not None
            there.contents._seen.clear()  # as after some minutes
            for data in (*few, MIDDLE, LARGE):
                with pytest.raises(RemoteMissing):
                    await ask(there.confirm, oid_of(data))

    trio.run(main)


def test_the_courier_brings_what_lies_in_dvcs_place_and_threads_the_others(
    tmp_path: Path, remote: ContentRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "STARTS_AFTER", 0)
    plain, archived = [filler(900, number) for number in range(9)], list(SMALL.values())[:9]
    for data in plain:
        Cache(remote.root).put(data)
    remote.put_archive(archived)

    async def main() -> None:
        async with reading(tmp_path, remote.root, courier=True) as (reader, (storage,)):
            brings = reader.engine._courier
            assert brings is not None
            while not brings.is_ready():
                await trio.sleep(0.01)
            for pair in zip(plain, archived, strict=True):
                for data in pair:
                    assert await reader.read(oid_of(data)) == data
            assert not [key for _, key, _ in storage.requests if key.startswith("files/")]
            assert len(storage.of("read", ARCHIVE)) == 1

    trio.run(main)
