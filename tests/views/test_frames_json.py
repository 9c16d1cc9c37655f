"""`frames.json`: what it says, and that any part of it is the same as the same part of the whole."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, cast

import pytest

from fusefs.views.frames_json import FramesTable, frame_name
from store.making.frame_chunks import FrameChunks
from store.making.tasks import Origin
from store.media.index import VideoIndex, build_index
from store.media.recipe import parse_frames
from store.media.source import open_source_file
from store.oid import Oid
from tests.store.media.videos import Plain, Videos, full_decode


class NoOrigin:
    """What a table does not read."""

    oid = Oid("0" * 32, "md5")
    name = "clip.mp4"


def index_of(path: Path) -> VideoIndex:
    with open_source_file(path) as source:
        return build_index(source)


def table_of(index: VideoIndex, recipe: str = "jpg", path: str = "clip.mp4") -> FramesTable:
    chunks = FrameChunks(cast(Origin, NoOrigin()), index, parse_frames(recipe))
    return FramesTable(chunks, path, "0" * 32)


def whole(table: FramesTable) -> dict[str, Any]:
    data = table.read(0, table.size + 100)
    assert len(data) == table.size
    said: dict[str, Any] = json.loads(data)
    return said


@pytest.mark.parametrize("name", ["variable", "edit-two", "rotated-90", "open-gop", "avi-b-frames", "vp9"])
def test_it_says_what_a_full_decode_shows(name: str, videos: Videos) -> None:
    index = index_of(videos.path(name))
    decoded: list[Plain] = full_decode(videos.path(name))
    said = whole(table_of(index))
    frames = said["frames"]
    assert [frame["frame"] for frame in frames] == list(range(len(decoded)))
    assert [frame["file"] for frame in frames] == [frame_name(n, "jpg") for n in range(len(decoded))]
    if index.by_time:
        assert [frame["pts"] for frame in frames] == [plain.pts for plain in decoded]
        for frame in frames:
            assert frame["seconds"] == pytest.approx(float(frame["pts"] * index.time_base), abs=1e-9)
    else:
        assert {frame["pts"] for frame in frames} == {frame["seconds"] for frame in frames} == {None}
    assert [frame["frame"] for frame in frames if frame["key"]] == index.key_frames().tolist()
    assert said["rotation"] == index.rotation
    assert (said["width"], said["height"]) == (decoded[0].width, decoded[0].height)
    assert said["frame_count"] == len(decoded)


def test_only_what_is_selected_is_listed(videos: Videos) -> None:
    said = whole(table_of(index_of(videos.path("b-frames")), "png,start=3,step=7,stop=80"))
    assert [frame["frame"] for frame in said["frames"]] == list(range(3, 81, 7))
    assert said["frames"][0]["file"] == "000003.png"
    assert said["frame_count"] == 100


def test_a_selection_beyond_the_end_is_empty(videos: Videos) -> None:
    assert whole(table_of(index_of(videos.path("constant")), "jpg,start=1000"))["frames"] == []


@pytest.mark.parametrize("recipe", ["jpg", "jpg,start=1000", "jpg,start=59"])
def test_any_part_is_that_part_of_the_whole(recipe: str, videos: Videos) -> None:
    table = table_of(index_of(videos.path("constant")), recipe)
    data = table.read(0, table.size)
    order = random.Random(recipe)
    for _ in range(300):
        offset = order.randrange(table.size + 50)
        length = order.choice([0, 1, 7, 100, 4096, 1 << 20])
        assert table.read(offset, length) == data[offset : offset + length]


def test_hostile_names_are_only_text(videos: Videos) -> None:
    path = 'a"b\\\n{"frames": [\udcff\u202e'
    said = whole(table_of(index_of(videos.path("constant")), path=path))
    assert said["source"] == path
    assert len(said["frames"]) == 60


def test_a_million_frames_have_longer_names() -> None:
    assert frame_name(999_999, "png") == "999999.png"
    assert frame_name(1_000_000, "png") == "1000000.png"
