"""Frames of videos, made by workers: those of a full decode, in every order, damaged or far away."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trio
from PIL import Image

from store.errors import MediaInvalid, RemoteUnreachable, StoreError
from store.making import failures, frame_chunks
from store.making.frame_chunks import FrameChunks
from store.making.maker import Maker
from store.making.tasks import Task
from store.media.index import VideoIndex, build_index
from store.media.packets import Packets
from store.media.recipe import FramesRecipe, parse_frames
from store.media.source import open_source_file
from tests.store.conftest import LONG
from tests.store.making.origins import FarOrigin, FileOrigin, maker_at, settled
from tests.store.media.videos import Videos, full_decode, md5_of


async def frame(made: Maker, chunks: FrameChunks, place: int) -> bytes:
    chunk, piece = chunks.find(place)
    task = chunks.task(chunk)
    assert task is not None
    return await made.piece(task, piece)


def index_of(path: Path) -> VideoIndex:
    with open_source_file(path) as source:
        return build_index(source)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_chunks, "MOST_FRAMES", 16)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ["b-frames", "open-gop", "long-gop", "raw-open"])
def test_frames_are_those_of_a_full_decode_in_any_order(
    tmp_path: Path, videos: Videos, name: str, workers: int
) -> None:
    path = videos.path(name)
    told = [plain.rgb for plain in full_decode(path)]

    async def main() -> None:
        async with maker_at(tmp_path / "cache", workers=workers) as made:
            chunks = await made.frames(FileOrigin(path), parse_frames("npy"))
            assert len(chunks.frames) == len(told)
            order = list(range(len(told)))
            random.Random(name).shuffle(order)
            for place in [*order[:40], *range(len(told))]:
                picture = np.load(io.BytesIO(await frame(made, chunks, place)))
                assert md5_of(picture) == told[place], place

    trio.run(main)


def test_a_recipe_selects_and_encodes(tmp_path: Path, videos: Videos) -> None:
    path = videos.path("b-frames")

    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            recipe = parse_frames("png,colour=gray,scale=64x36,start=3,step=10,stop=60")
            chunks = await made.frames(FileOrigin(path), recipe)
            assert list(chunks.frames) == [3, 13, 23, 33, 43, 53]
            whole = await made.frames(FileOrigin(path), parse_frames("png,colour=gray,scale=64x36"))
            for place, number in enumerate(chunks.frames):
                data = await frame(made, chunks, place)
                with Image.open(io.BytesIO(data)) as image:
                    assert (image.format, image.size, image.mode) == ("PNG", (64, 36), "L")
                assert data == await frame(made, whole, number)

    trio.run(main)


def test_a_damaged_frame_is_an_error_and_its_neighbours_are_good(tmp_path: Path, videos: Videos) -> None:
    whole = videos.path("avi-jpegs")
    packets = index_of(whole).packets
    data = bytearray(whole.read_bytes())
    begin, size = data.find(b"\xff\xd8", int(packets.offsets[12])), int(packets.sizes[12])
    data[begin : begin + size] = bytes(size)
    path = tmp_path / "damaged.avi"
    path.write_bytes(data)

    async def main() -> None:
        for _ in range(2):  # made, then kept
            async with maker_at(tmp_path / "cache") as made:
                chunks = await made.frames(FileOrigin(path), parse_frames("jpg"))
                good = await made.frames(FileOrigin(whole), parse_frames("jpg"))
                for place in (12, 13, 11, 12, 29):
                    if place == 12:
                        with pytest.raises(MediaInvalid, match="frame 12"):
                            await frame(made, chunks, place)
                    else:
                        assert await frame(made, chunks, place) == await frame(made, good, place)
                await settled(made)

    trio.run(main)


@pytest.mark.parametrize("name", ["text", "empty", "no-video", "half-without-moov"])
def test_what_is_no_video_is_told_and_not_tried_again_at_once(
    tmp_path: Path, videos: Videos, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    note = failures.Failures.note

    def count(self: failures.Failures, task: Task, error: StoreError) -> None:
        tried.append(task.key)
        note(self, task, error)

    monkeypatch.setattr(failures.Failures, "note", count)
    monkeypatch.setattr(failures, "SECONDS", LONG)

    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            for _ in range(50):
                with pytest.raises(MediaInvalid, match=name):
                    await made.index(FileOrigin(videos.path(name)))
            assert len(tried) < 10

    trio.run(main)


def test_an_index_is_made_once_and_kept(tmp_path: Path, videos: Videos) -> None:
    origin = FarOrigin(videos.path("matroska").read_bytes())

    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            index = await made.index(origin)
            assert index.frame_count == 100
            assert await made.index(origin) is index
        (moved,) = origin.read_bytes
        async with maker_at(tmp_path / "cache", makers={}) as made:
            assert (await made.index(origin)).frame_count == 100
        assert origin.read_bytes == [moved]

    trio.run(main)


def test_a_source_that_vanishes_fails_what_is_missing_and_leaves_what_is_made(
    tmp_path: Path, videos: Videos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "SECONDS", 0.0)
    monkeypatch.setattr(frame_chunks, "MOST_FRAMES", 12)
    path = videos.path("constant")
    origin = FarOrigin(path.read_bytes())

    async def main() -> None:
        async with maker_at(tmp_path / "cache") as made:
            chunks = await made.frames(origin, parse_frames("jpg"))
            first = await frame(made, chunks, 0)
            await settled(made)
        origin.fails_after[0] = 0
        async with maker_at(tmp_path / "cache") as made:
            assert await frame(made, chunks, 0) == first
            with pytest.raises(RemoteUnreachable):
                await frame(made, chunks, 50)
            origin.fails_after[0] = 1 << 40
            local = await made.frames(FileOrigin(path), parse_frames("jpg"))
            assert await frame(made, chunks, 50) == await frame(made, local, 50)

    trio.run(main)


@pytest.mark.usefixtures("small_chunks")
def test_a_reader_who_goes_straight_on_is_served_ahead(tmp_path: Path, videos: Videos) -> None:
    path = videos.path("b-frames")

    async def main() -> None:
        async with maker_at(tmp_path / "cache", workers=2) as made:
            chunks = await made.frames(FileOrigin(path), parse_frames("jpg"))
            for place in range(8):
                await frame(made, chunks, place)
            await settled(made)
            second = chunks.task(1)
            assert second is not None
            assert made.sizes(second) is not None
            last = chunks.task(len(chunks) - 1)
            assert last is not None
            assert made.sizes(last) is None  # not everything

    trio.run(main)


def test_chunks_begin_with_key_frames_and_cover_every_frame_once(
    videos: Videos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_chunks, "MOST_FRAMES", 60)
    index = index_of(videos.path("b-frames"))  # a key frame every 24
    origin = FileOrigin(videos.path("b-frames"))
    chunks = FrameChunks(origin, index, FramesRecipe())
    assert [chunks.places(chunk).start for chunk in range(len(chunks))] == [0, 48]
    for recipe in ("jpg", "jpg,step=7", "jpg,start=30,stop=33", "jpg,start=99", "jpg,start=500"):
        chunks = FrameChunks(origin, index, parse_frames(recipe))
        covered = [place for chunk in range(len(chunks)) for place in chunks.places(chunk)]
        assert covered == list(range(len(chunks.frames)))
        for place in covered:
            chunk, piece = chunks.find(place)
            assert chunks.places(chunk)[piece] == place
        with pytest.raises(IndexError):
            chunks.find(len(chunks.frames))
        assert chunks.task(len(chunks)) is None
        assert chunks.task(-1) is None


def test_two_million_frames_are_cut_into_chunks(videos: Videos) -> None:
    few = index_of(videos.path("b-frames"))
    count = 2_000_000
    numbers = np.arange(count, dtype=np.int64)
    packets = Packets(numbers * 50, np.full(count, 50), numbers, numbers, np.ones(count, np.uint8))
    index = VideoIndex(few.method, replace(few.stream, packets=packets))
    chunks = FrameChunks(FileOrigin(videos.path("b-frames")), index, FramesRecipe())
    assert len(chunks) == -(-count // frame_chunks.MOST_FRAMES)
    assert chunks.find(count - 1) == (len(chunks) - 1, (count - 1) % frame_chunks.MOST_FRAMES)


def test_large_pictures_and_large_packets_make_small_chunks(
    videos: Videos, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_of(videos.path("jpegs"))
    origin = FileOrigin(videos.path("jpegs"))
    picture = 3 * index.width * index.height
    monkeypatch.setattr(frame_chunks, "MOST_DECODED", 5 * picture)
    assert len(FrameChunks(origin, index, FramesRecipe()).places(0)) == 5
    monkeypatch.setattr(frame_chunks, "MOST_READ", int(index.packets.sizes[:3].sum()))
    assert len(FrameChunks(origin, index, FramesRecipe()).places(0)) <= 4
    monkeypatch.setattr(frame_chunks, "MOST_DECODED", 1)
    assert len(FrameChunks(origin, index, FramesRecipe()).places(0)) == 1
