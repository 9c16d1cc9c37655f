"""Chunks of videos against a full decode: which frames are in them, how large, and how near they come."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from store.errors import MediaInvalid, ObjectCorrupt
from store.making.cvat_video import (
    LARGEST_AREA,
    halved,
    make_jpegs,
    make_mp4,
    make_pngs,
    quantizer,
)
from store.making.makers import Piece
from store.media.frames import FrameReader
from store.media.index import build_index
from store.media.index_file import to_bytes
from store.media.source import MediaSource
from store.media.zips import checksums_of
from tests.store.media.sources import BytesSource
from tests.store.media.videos import Videos, encode, full_decode, md5_of

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Videos:
    return Videos(tmp_path_factory.mktemp("videos"))


def sources(content: bytes, name: str = "clip.mp4") -> tuple[MediaSource, MediaSource]:
    video = BytesSource(content, name)
    return video, BytesSource(to_bytes(build_index(video)), "index")


def frames(start: int, stop: int, step: int = 1, quality: int = 70) -> dict[str, Any]:
    return {"frames": [start, stop, step], "quality": quality}


def unpacked(pieces: Iterable[Piece]) -> list[bytes]:
    """The members that a maker gives, checked by its checksums."""
    made = {number: data for number, data in pieces if isinstance(data, bytes)}
    members = [made[number] for number in range(1, len(made))]
    assert checksums_of(made[0]) == tuple(map(zlib.crc32, members))
    return members


def decoded(content: bytes) -> Iterator[Pixels]:
    """The pictures of an MP4, in its own colours' terms."""
    source = BytesSource(content)
    index = build_index(source)
    with FrameReader(source, index) as reader:
        for frame in reader.decode(0, index.frame_count):
            yield frame.rgb()


def upright(content: bytes, number: int) -> Pixels:
    source = BytesSource(content)
    with FrameReader(source, build_index(source)) as reader:
        return next(reader.decode(number, 1)).rgb(upright=True)


def distance(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.mark.parametrize(
    ("quality", "expected"), [(100, 1), (99, 1), (95, 3), (70, 15), (67, 17), (50, 26), (1, 51)]
)
def test_the_quantizer_is_that_of_cvat(quality: int, expected: int) -> None:
    assert quantizer(quality) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1920, 1079), (1920, 1080)),
        ((1920, 1080), (960, 540)),
        ((3840, 2160), (960, 540)),
        ((641, 359), (642, 360)),
        ((1, 5000), (2, 626)),
    ],
)
def test_pictures_are_halved_until_they_are_low(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert halved(*size) == expected


@pytest.mark.parametrize(
    "name",
    ["constant", "open-gop", "variable", "edit-range", "full-range", "prores", "jpegs", "rotated-90", "vp9"],
)
def test_an_mp4_holds_the_frames(videos: Videos, name: str) -> None:
    content = videos.path(name).read_bytes()
    video, index = sources(content, name)
    count = build_index(video).frame_count
    wanted = list(range(1, count, 3))
    made = b"".join(make_mp4(frames(1, count, 3, 95), (video, index)))
    with av.open(io.BytesIO(made)) as container:
        (stream,) = container.streams
        assert isinstance(stream, av.video.stream.VideoStream)
        assert stream.codec_context.name == "h264"
        assert stream.profile is not None and "Constrained Baseline" in stream.profile
        assert (stream.codec_context.pix_fmt, stream.average_rate) == ("yuv420p", Fraction(25))
        pts = [packet.pts for packet in container.demux(stream) if packet.size]
        assert [pts_of * stream.time_base * 25 for pts_of in pts if pts_of is not None] == list(
            range(len(wanted))
        )
    shown = list(decoded(made))
    assert len(shown) == len(wanted)
    for place in (0, len(wanted) // 2, -1):
        # Only colours have been sampled down and quantized: another frame, range, matrix or turn is far away.
        assert distance(shown[place], upright(content, wanted[place])) < 8, place
    assert distance(shown[0], upright(content, wanted[-1])) > 8


def test_the_same_frames_give_the_same_bytes(videos: Videos) -> None:
    content = videos.path("b-frames").read_bytes()
    made = [b"".join(make_mp4(frames(5, 30), sources(content, name))) for name in ("a.mp4", "b.mp4")]
    assert made[0] == made[1]
    assert made[0] != b"".join(make_mp4(frames(5, 30, quality=60), sources(content)))


def test_a_picture_that_grows_is_scaled_to_the_first_ones_size(videos: Videos) -> None:
    content = videos.path("resized").read_bytes()
    made = b"".join(make_mp4(frames(0, 20), sources(content, "resized.mjpeg")))
    assert {picture.shape for picture in decoded(made)} == {(72, 128, 3)}
    assert len(list(decoded(made))) == 20


def test_odd_and_high_pictures() -> None:
    odd = encode("mov", "mjpeg", 2, pixels="yuvj444p", size=(65, 35))
    high = encode("mov", "mjpeg", 2, pixels="yuvj420p", size=(800, 1080))
    for content, expected in ((odd, (36, 66, 3)), (high, (540, 400, 3))):
        made = b"".join(make_mp4(frames(0, 2), sources(content, "x.mov")))
        assert [picture.shape for picture in decoded(made)] == [expected] * 2


def test_too_wide_a_picture_is_refused_with_a_remedy() -> None:
    content = encode("mov", "mjpeg", 1, pixels="yuvj420p", size=(16_384, 640))
    assert LARGEST_AREA < 16_384 * 640
    with pytest.raises(MediaInvalid, match=r"wide\.mov .* zip=1"):
        list(make_mp4(frames(0, 1), sources(content, "wide.mov")))


@pytest.mark.parametrize("name", ["open-gop", "full-range", "prores", "rotated-270"])
def test_pngs_are_the_full_decode_bit_for_bit(videos: Videos, name: str) -> None:
    path = videos.path(name)
    plain = full_decode(path)
    turns = {"rotated-270": 3}.get(name, 0)
    made = unpacked(make_pngs(frames(2, len(plain), 4), sources(path.read_bytes(), name)))
    assert len(made) == len(range(2, len(plain), 4))
    for content, number in zip(made, range(2, len(plain), 4), strict=True):
        picture = Image.open(io.BytesIO(content))
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        assert md5_of(np.rot90(np.asarray(picture), -turns)) == plain[number].rgb


def test_jpegs_are_upright_and_of_the_quality(videos: Videos) -> None:
    content = videos.path("rotated-90").read_bytes()
    fine, coarse = (unpacked(make_jpegs(frames(3, 9, 2, quality), sources(content))) for quality in (95, 30))
    assert len(fine) == len(coarse) == 3
    assert sum(map(len, coarse)) < sum(map(len, fine))
    for number, member in zip((3, 5, 7), fine, strict=True):
        picture = Image.open(io.BytesIO(member))
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (72, 128))
        assert distance(np.asarray(picture), upright(content, number)) < 8


def test_what_is_made_of_a_broken_video_is_an_error(videos: Videos) -> None:
    content = bytearray(videos.path("constant").read_bytes())
    video = BytesSource(bytes(content), "broken.mp4")
    index = build_index(video)
    packets = index.packets
    for number in range(12, 24):  # a group of pictures
        begin = int(packets.offsets[number])
        content[begin : begin + int(packets.sizes[number])] = bytes(int(packets.sizes[number]))
    broken = BytesSource(bytes(content), "broken.mp4"), BytesSource(to_bytes(index), "index")
    for make in (make_mp4, make_jpegs, make_pngs):
        assert len(list(make(frames(0, 12), broken))) > 0
        with pytest.raises(MediaInvalid, match=r"broken\.mp4"):
            list(make(frames(0, 24), broken))


def test_an_index_that_is_none() -> None:
    video = BytesSource(b"no matter")
    with pytest.raises(ObjectCorrupt, match="index"):
        list(make_pngs(frames(0, 1), (video, BytesSource(b"nonsense"))))
