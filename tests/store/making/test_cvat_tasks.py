"""Which frames and files chunks are made of, what they are kept by, and that the registry leads to makers."""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from typing import cast

import pytest

from store.making.cvat_tasks import ImageChunks, VideoChunks, measuring
from store.making.makers import MAKERS
from store.making.tasks import Origin
from store.media.index import VideoIndex, build_index
from store.media.numbering import Numbering
from store.media.recipe import Selection, parse_chunks
from store.media.source import open_source_file
from store.oid import Oid
from tests.store.media.long_videos import with_frames
from tests.store.media.sources import BytesSource
from tests.store.media.videos import Videos


@dataclass(frozen=True, slots=True)
class Named:
    """An origin by its name; the content is the number in it."""

    name: str
    number: int = 0

    @property
    def oid(self) -> Oid:
        return Oid(hashlib.md5(str(self.number).encode(), usedforsecurity=False).hexdigest())


def origin(name: str, number: int = 0) -> Origin:
    return cast(Origin, Named(name, number))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Videos:
    return Videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def index(videos: Videos) -> VideoIndex:
    with open_source_file(videos.path("b-frames")) as source:
        return build_index(source)  # 100 frames, a key frame every 24


def keys(chunks: VideoChunks) -> list[str]:
    count = chunks.numbering.chunk_count
    tasks = [series.task(n) for series in (chunks.compressed, chunks.original) for n in range(count)]
    return [task.key for task in tasks if task is not None]


def test_chunks_of_a_video(index: VideoIndex) -> None:
    chunks = VideoChunks(origin("clip.mp4"), index, parse_chunks("auto,start=10,step=2,stop=95"))
    assert (chunks.numbering.size, chunks.numbering.chunk_count) == (43, 2)
    first, second = (chunks.compressed.task(n) for n in range(2))
    assert first is not None and second is not None and chunks.compressed.task(2) is None
    assert first.maker == "chunk-mp4" and first.pieces == 1
    assert first.arguments == {"frames": [10, 82, 2], "quality": 70}
    assert second.arguments == {"frames": [82, 96, 2], "quality": 70}
    assert first.recipe == "36,start=10,step=2,stop=95"
    original = chunks.original.task(1)
    assert original is not None and (original.maker, original.pieces) == ("chunk-pngs", 8)
    assert chunks.extensions(1, original=True) == ("png",) * 7
    assert chunks.extensions(1, original=False) == ("jpeg",) * 7


def test_recipes_that_mean_the_same_share_their_chunks(index: VideoIndex) -> None:
    def of(recipe: str, name: str = "a/clip.mp4") -> list[str]:
        return keys(VideoChunks(origin(name), index, parse_chunks(recipe)))

    assert of("auto") == of("36") == of("36,order=natural", "elsewhere.mp4")
    assert len(set(of("auto"))) == 6
    coarse, zipped = of("36,quality=30"), of("36,zip=1")
    assert coarse[3:] == zipped[3:] == of("auto")[3:]  # the originals
    assert not set(coarse[:3]) & set(of("auto")) and not set(zipped[:3]) & set(of("auto"))
    assert not set(of("35")) & set(of("36"))


def test_runs_are_of_chunks_that_one_decoder_serves(index: VideoIndex) -> None:
    chunks = VideoChunks(origin("clip.mp4"), index, parse_chunks("10"))
    runs = [chunks.compressed.run_of(n) for n in range(10)]
    assert runs == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]


def test_two_million_frames(videos: Videos) -> None:
    content = with_frames(videos.path("constant").read_bytes(), 2_000_000)
    long = build_index(BytesSource(content))
    chunks = VideoChunks(origin("clip.mp4"), long, parse_chunks("1"))
    assert chunks.numbering.chunk_count == 2_000_000
    assert [chunks.original.run_of(n) for n in (0, 49, 50, 1_999_999)] == [0, 0, 1, 39_999]
    last = chunks.compressed.task(1_999_999)
    assert last is not None and last.arguments["frames"] == [1_999_999, 2_000_000, 1]
    assert VideoChunks(origin("clip.mp4"), long, parse_chunks("auto")).numbering.chunk_count == 55_556
    beyond = VideoChunks(origin("clip.mp4"), long, parse_chunks("auto,start=2000000"))
    assert beyond.numbering.chunk_count == 0 and beyond.compressed.task(0) is None


def images(count: int, *, shift: int = 0, chunk: int = 4) -> ImageChunks:
    numbering = Numbering(count, chunk, Selection())
    return ImageChunks(numbering, 60, lambda n: origin(f"{shift}/{n}.png", n + shift))


def test_chunks_of_images() -> None:
    chunks = images(10)
    tasks = [chunks.compressed.task(n) for n in range(4)]
    assert tasks[3] is None
    names = [[o.name for o in task.origins] for task in tasks if task is not None]
    assert names == [[f"0/{n}.png" for n in range(at, min(at + 4, 10))] for at in (0, 4, 8)]
    assert [task.pieces for task in tasks if task is not None] == [5, 5, 3]
    assert [o.name for o in chunks.checksums(2).origins] == ["0/8.png", "0/9.png"]
    with pytest.raises(IndexError):
        chunks.checksums(3)


def test_contents_and_not_names_are_what_chunks_of_images_are_kept_by() -> None:
    moved = ImageChunks(Numbering(10, 4), 60, lambda n: origin(f"moved/{n}.jpg", n))
    for n in range(3):
        one, other, changed = (c.compressed.task(n) for c in (images(10), moved, images(10, shift=1)))
        assert one is not None and other is not None and changed is not None
        assert one.key == other.key != changed.key
        assert images(10).checksums(n).key == moved.checksums(n).key


def test_one_image_more_changes_one_measurement() -> None:
    origins = [origin(f"{n}.png", n) for n in range(3000)]
    before, after = (list(measuring(some)) for some in (origins, origins[:700] + origins[701:]))
    assert sum(count for _, count in before) == 3000
    assert [o for task, _ in before for o in task.origins] == origins
    assert all(len(task.origins) == count for task, count in before)
    assert len({task.key for task, _ in before} - {task.key for task, _ in after}) <= 2
    assert len(before) > 5


@pytest.mark.parametrize("name", MAKERS)
def test_the_registry_leads_to_makers(name: str) -> None:
    registered = MAKERS[name]
    assert callable(getattr(importlib.import_module(registered.module), registered.function))
