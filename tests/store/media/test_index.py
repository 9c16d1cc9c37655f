"""An index counts and times frames as a full decode does, for every kind of video; and how it is made."""

from __future__ import annotations

import io
import random
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import MediaInvalid, ObjectCorrupt
from store.media.containers import DECODER
from store.media.index import DEMUXING, SAMPLE_TABLES, VideoIndex, build_index
from store.media.index_file import from_bytes, to_bytes
from store.media.source import open_source_file
from tests.store.media.sources import BytesSource, FailingSource
from tests.store.media.videos import BAD_MAKERS, MAKERS, Videos, full_decode

UNTIMED = {"raw", "raw-open", "avi-b-frames"}
"""Videos whose containers do not tell when frames are shown."""


def index_of(videos: Videos, name: str) -> VideoIndex:
    with open_source_file(videos.path(name)) as source:
        return build_index(source)


@pytest.mark.parametrize("name", MAKERS)
def test_frames_and_their_times_are_those_of_a_full_decode(name: str, videos: Videos) -> None:
    index, full = index_of(videos, name), full_decode(videos.path(name))
    assert index.frame_count == len(full) > 0
    assert (index.width, index.height) == (full[0].width, full[0].height)
    times = [index.pts(number) for number in range(index.frame_count)]
    assert times == [None if name in UNTIMED else frame.pts for frame in full]


def test_an_index_says_what_it_knows(videos: Videos) -> None:
    index = index_of(videos, "b-frames")
    assert (index.method, index.codec, index.rate) == (SAMPLE_TABLES, "h264", 25)
    assert (index.time_base, index.rotation) == (Fraction(1, 12800), 0)
    assert index.decoder == DECODER
    assert index.seconds(50) == 2.0
    assert index.duration() == pytest.approx(4.0)
    assert index.key_frames().tolist() == [0, 24, 48, 72, 96]


def test_other_containers_are_demuxed(videos: Videos) -> None:
    for name in ("matroska", "vp9", "transport", "avi-jpegs", "raw", "fragmented"):
        assert index_of(videos, name).method == DEMUXING


@pytest.mark.parametrize(
    ("name", "rotation"), [("rotated-90", 90), ("rotated-180", -180), ("rotated-270", -90), ("constant", 0)]
)
def test_rotation_is_counter_clockwise(name: str, rotation: int, videos: Videos) -> None:
    assert index_of(videos, name).rotation == rotation


def test_the_best_stream_is_meant(videos: Videos) -> None:
    index = index_of(videos, "two-videos")
    full = full_decode(videos.path("two-videos"))
    assert (index.width, index.height) == (full[0].width, full[0].height)


def test_decoding_begins_with_the_key_packet_before(videos: Videos) -> None:
    index = index_of(videos, "b-frames")
    assert [index.start_of(number) for number in (0, 23, 24, 25, 47, 99)] == [0, 0, 24, 24, 24, 96]
    assert [index.cost_of(number) for number in (0, 24, 96)] == [1, 1, 1]
    assert max(index.cost_of(number) for number in range(100)) <= 24
    assert index.start_of(99, back=2) == 48
    assert index.start_of(99, back=1000) == 0


def test_leading_pictures_begin_one_key_packet_earlier(videos: Videos) -> None:
    index = index_of(videos, "open-gop")
    keys = index.starts.tolist()
    for place, key in list(enumerate(keys))[1:]:
        number = index.number_of(key)
        assert number is not None
        assert index.start_of(number) == key
        assert int(index.order[number - 1]) > key  # it is decoded after the key packet, and shown before
        assert index.start_of(number - 1) == keys[place - 1]


def test_a_discarded_key_packet_stays_a_start(videos: Videos) -> None:
    index = index_of(videos, "edit-two")
    starts = {index.start_of(number) for number in range(index.frame_count)}
    assert [start for start in starts if start and index.number_of(start) is None]


@pytest.mark.parametrize("name", BAD_MAKERS)
def test_what_is_no_video_is_said_in_one_line(
    name: str, videos: Videos, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MediaInvalid) as caught:
        index_of(videos, name)
    assert str(caught.value).startswith(videos.path(name).name)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def with_streams(form: str, count: int) -> bytes:
    """A video of one frame, so many times."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as output:
        streams = [output.add_stream("mjpeg", rate=25) for _ in range(count)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 16, 16, "yuvj420p"
        for stream in streams:
            frame = av.VideoFrame(16, 16, "yuvj420p")
            frame.pts = 0
            output.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


def test_a_thousand_streams_are_one_video_or_none(capfd: pytest.CaptureFixture[str]) -> None:
    """Those of an MP4 are refused by its tables; here, what libav takes is the video of its best stream."""
    assert build_index(BytesSource(with_streams("matroska", 1000))).frame_count == 1
    with pytest.raises(MediaInvalid) as caught:
        build_index(BytesSource(with_streams("nut", 1000)))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "script",
    [
        b"ffconcat version 1.0\nfile '/etc/hostname'\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    ],
    ids=["concat", "playlist", "session"],
)
def test_nothing_but_the_source_is_opened(script: bytes) -> None:
    with pytest.raises(MediaInvalid, match="no video that can be read"):
        build_index(BytesSource(script))


def test_a_codec_that_is_not_there_is_said_in_one_line(videos: Videos) -> None:
    data = videos.path("matroska").read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/XYZ")
    with pytest.raises(MediaInvalid, match="no decoder"):
        build_index(BytesSource(data, "clip.mkv"))


@pytest.mark.parametrize("name", ["b-frames", "matroska", "transport"])
def test_an_error_of_the_source_comes_out_as_it_is(
    name: str, videos: Videos, capfd: pytest.CaptureFixture[str]
) -> None:
    data = videos.path(name).read_bytes()
    with pytest.raises(ObjectCorrupt, match="cannot be read at"):
        build_index(FailingSource(data, len(data) // 2))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["b-frames", "edit-two", "raw", "matroska", "vp8-hidden", "rotated-90"])
def test_an_index_survives_being_kept(name: str, videos: Videos) -> None:
    index = index_of(videos, name)
    again = from_bytes(to_bytes(index))
    assert again is not None
    for column in ("offsets", "sizes", "pts", "dts", "flags"):
        assert np.array_equal(getattr(again.packets, column), getattr(index.packets, column))
    assert np.array_equal(again.order, index.order)
    for name in ("method", "decoder", "codec", "width", "height", "rotation", "time_base", "rate", "by_time"):
        assert getattr(again, name) == getattr(index, name)


def test_a_damaged_file_is_no_index(videos: Videos) -> None:
    data = to_bytes(index_of(videos, "b-frames"))
    chance = random.Random(5)
    for _ in range(200):
        place = chance.randrange(len(data))
        changed = data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]
        assert from_bytes(changed) is None
    for length in range(0, len(data), 7):
        assert from_bytes(data[:length]) is None
    assert from_bytes(data + b"\0") is None


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_index_or_none(data: bytes) -> None:
    assert from_bytes(data) is None
