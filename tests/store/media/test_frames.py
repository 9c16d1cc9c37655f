"""Frame n is frame n of a full decode, bit for bit, wherever decoding begins; and it costs what it must."""

from __future__ import annotations

import io
import random
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import MediaInvalid, ObjectCorrupt
from store.media import frames
from store.media.frames import _BY_PLANES, _SCALING, Frame, FrameReader
from store.media.index import VideoIndex, build_index
from store.media.source import open_source_file
from tests.store.media.sources import BytesSource, FailingSource
from tests.store.media.videos import MAKERS, Plain, Videos, find_box, full_decode, md5_of, picture

RANDOM = (
    "b-frames",
    "open-gop",
    "hevc-open",
    "edit-range-open",
    "edit-two",
    "variable",
    "matroska",
    "vp8-hidden",
)
RANDOM += (
    "transport-open",
    "transport-cut",
    "mpeg2",
    "avi-b-frames",
    "raw-open",
    "intra-refresh",
    "subtitles",
)


@cache
def expected(path: Path) -> list[Plain]:
    return full_decode(path)


def hashes(frame: Frame) -> tuple[str, str]:
    return md5_of(frame.native.to_ndarray()), md5_of(frame.rgb())


def matches(frame: Frame, full: list[Plain]) -> bool:
    return hashes(frame) == (full[frame.number].planes, full[frame.number].rgb)


@pytest.mark.parametrize("name", MAKERS)
def test_every_frame_is_that_of_a_full_decode(name: str, videos: Videos) -> None:
    full = expected(videos.path(name))
    with open_source_file(videos.path(name)) as source, FrameReader(source, build_index(source)) as reader:
        frames = list(reader.decode(0, len(full)))
        assert [frame.number for frame in frames] == list(range(len(full)))
        assert all(matches(frame, full) for frame in frames)


@pytest.mark.parametrize("name", MAKERS)
def test_a_frame_is_the_same_wherever_one_comes_from(name: str, videos: Videos) -> None:
    full = expected(videos.path(name))
    with open_source_file(videos.path(name)) as source, FrameReader(source, build_index(source)) as reader:
        for number in sorted(range(0, len(full), 3), key=lambda number: number * 7919 % 101):
            (frame,) = reader.decode(number, 1)
            assert matches(frame, full)
        for number in range(0, len(full), 11):
            with FrameReader(source, build_index(source)) as fresh:
                assert matches(next(fresh.decode(number, 1)), full)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(RANDOM),
    reads=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 40), st.integers(1, 40)), max_size=6
    ),
)
def test_reads_in_any_order_agree(name: str, reads: list[tuple[float, int, int]], videos: Videos) -> None:
    full = expected(videos.path(name))
    with open_source_file(videos.path(name)) as source, FrameReader(source, build_index(source)) as reader:
        for where, count, taken in reads:
            first = int(where * len(full))
            frames = reader.decode(first, min(count, len(full) - first))
            for number, frame in zip(range(first, first + taken), frames, strict=False):
                assert frame.number == number
                assert matches(frame, full)


@pytest.mark.parametrize("name", ["b-frames", "open-gop", "vp9", "hevc-open", "mpeg2"])
def test_threads_change_no_pixel(name: str, videos: Videos) -> None:
    full = expected(videos.path(name))
    with open_source_file(videos.path(name)) as source:
        for threads in (2, 5):
            with FrameReader(source, build_index(source), threads) as reader:
                assert all(matches(frame, full) for frame in reader.decode(0, len(full)))
                assert matches(next(reader.decode(len(full) // 2, 1)), full)


def test_frames_have_their_times(videos: Videos) -> None:
    full = expected(videos.path("variable"))
    with (
        open_source_file(videos.path("variable")) as source,
        FrameReader(source, build_index(source)) as reader,
    ):
        assert [frame.pts for frame in reader.decode(10, 20)] == [frame.pts for frame in full[10:30]]


@pytest.mark.parametrize(("name", "turns"), [("rotated-90", 1), ("rotated-180", 2), ("rotated-270", 3)])
def test_pictures_are_set_upright_on_demand(name: str, turns: int, videos: Videos) -> None:
    with open_source_file(videos.path(name)) as source, FrameReader(source, build_index(source)) as reader:
        (frame,) = reader.decode(7, 1)
        stored, upright = frame.rgb(), frame.rgb(upright=True)
    assert stored.shape == (72, 128, 3)
    assert np.array_equal(upright, np.rot90(stored, turns))
    assert upright.flags.c_contiguous


def test_sizes_that_change_are_given_as_they_are(videos: Videos) -> None:
    with (
        open_source_file(videos.path("resized")) as source,
        FrameReader(source, build_index(source)) as reader,
    ):
        shapes = [frame.rgb().shape for frame in reader.decode(8, 4)]
    assert shapes == [(72, 128, 3)] * 2 + [(96, 160, 3)] * 2


@settings(max_examples=60, deadline=None)
@given(
    form=st.sampled_from(
        (*_BY_PLANES, "yuv410p", "nv12", "yuv422p10le", "yuv420p12le", "gray", "gbrp", "bgra")
    ),
    width=st.integers(1, 70),
    height=st.integers(1, 40),
    matrix=st.sampled_from((1, 2, 5, 6, 7, 9)),
    wide=st.booleans(),
    seed=st.integers(0, 1 << 16),
)
def test_a_faster_way_to_rgb_gives_the_same(
    form: str, width: int, height: int, matrix: int, wide: bool, seed: int
) -> None:
    choice = np.random.default_rng(seed)
    native = av.VideoFrame(width, height, form)
    for plane in native.planes:
        noise = choice.integers(0, 256, plane.buffer_size, np.uint8)
        if form.endswith("le"):
            noise[1::2] &= (1 << (int(form[-4:-2]) - 8)) - 1
        plane.update(noise.tobytes())
    native.colorspace, native.color_range = matrix, 2 if wide else 1
    plain = native.to_ndarray(format="rgb24", interpolation=int(_SCALING), threads=1)
    frame = Frame(0, None, Fraction(1), native)
    assert (frame.rgb() == plain).all()
    assert (np.asarray(frame.image()) == plain).all()


@pytest.mark.parametrize(
    ("matrix", "red", "blue"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114), (9, 0.2627, 0.0593)]
)
@pytest.mark.parametrize("wide", [False, True])
def test_matrix_and_range_are_honoured(matrix: int, red: float, blue: float, wide: bool) -> None:
    native = av.VideoFrame(64, 48, "yuv420p")
    y, u, v = 120, 90, 200
    for plane, value in zip(native.planes, (y, u, v), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    native.colorspace, native.color_range = matrix, 2 if wide else 1
    luma = y / 255 if wide else (y - 16) / 219
    cb, cr = ((u - 128) / (255 if wide else 224), (v - 128) / (255 if wide else 224))
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    g = (luma - red * r - blue * b) / (1 - red - blue)
    shown = Frame(0, None, Fraction(1), native).rgb().astype(int)
    assert np.abs(shown - np.clip(np.round(255 * np.array([r, g, b])), 0, 255)).max() <= 1


def test_a_matrix_that_nobody_knows_is_taken_for_none() -> None:
    native = av.VideoFrame.from_ndarray(picture(1)).reformat(format="yuv420p")
    plain = Frame(0, None, Fraction(1), native).rgb()
    native.colorspace = 3  # reserved
    assert np.array_equal(Frame(0, None, Fraction(1), native).rgb(), plain)


def test_what_the_frames_before_were_like_changes_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """What swscale has set up for them is kept."""
    order, noise = random.Random(5), np.random.default_rng(5)
    forms = ("yuv420p", "yuv422p", "yuvj420p", "yuv420p10le", "rgb24", "gray", "yuva420p")
    shown: list[tuple[Frame, bytes]] = []
    for number in range(200):
        shape = (order.choice((48, 66, 67)), order.choice((64, 130, 322)), 3)
        native = av.VideoFrame.from_ndarray(noise.integers(0, 255, shape, np.uint8)).reformat(
            format=order.choice(forms)
        )
        native.colorspace, native.color_range = order.choice((1, 2, 5, 9)), order.choice((0, 1, 2))
        frame = Frame(number, None, Fraction(1, 25), native)
        with monkeypatch.context() as alone:
            alone.setattr(frames, "_kept", frames._Kept())
            shown.append((frame, frame.rgb().tobytes()))
    for frame, alone_rgb in shown:
        assert frame.rgb().tobytes() == frame.image().tobytes() == alone_rgb


@pytest.mark.parametrize(("first", "count"), [(100, 1), (99, 2), (-1, 1), (0, 101), (5, -1)])
def test_frames_beyond_the_end_are_said_at_once(first: int, count: int, videos: Videos) -> None:
    with (
        open_source_file(videos.path("b-frames")) as source,
        FrameReader(source, build_index(source)) as reader,
        pytest.raises(MediaInvalid, match="has 100 frames"),
    ):
        reader.decode(first, count)


def _with_noise(data: bytes, index: VideoIndex, packet: int) -> bytes:
    at, size = int(index.packets.offsets[packet]), int(index.packets.sizes[packet])
    return data[:at] + b"\xff" * size + data[at + size :]


def test_a_damaged_frame_is_missing_and_no_other_moves(tmp_path: Path, videos: Videos) -> None:
    data = videos.path("b-frames").read_bytes()
    index = build_index(BytesSource(data))
    number = 59
    source = BytesSource(_with_noise(data, index, int(index.order[number])))
    (tmp_path / "clip.mp4").write_bytes(source.read_at(0, source.size))
    full = expected(tmp_path / "clip.mp4")
    assert len(full) == index.frame_count - 1
    with FrameReader(source, build_index(source)) as reader:
        for other in (10, 75, 99, 58):
            moved = full[other - (other > number)]
            assert hashes(next(reader.decode(other, 1))) == (moved.planes, moved.rgb)
        with pytest.raises(MediaInvalid, match=f"frame {number} is damaged"):
            next(reader.decode(number, 1))
        assert hashes(next(reader.decode(80, 1))) == (full[79].planes, full[79].rgb)


@pytest.mark.parametrize("name", ["b-frames", "faststart"])
def test_what_is_held_of_one_video_changes_no_other(name: str, tmp_path: Path, videos: Videos) -> None:
    """Frames know their packets by numbers, which are the same in every video."""
    data = videos.path(name).read_bytes()
    index = build_index(BytesSource(data))
    source = BytesSource(_with_noise(data, index, int(index.order[20])))
    (tmp_path / "clip.mp4").write_bytes(source.read_at(0, source.size))
    full = expected(tmp_path / "clip.mp4")
    with FrameReader(BytesSource(data), index) as other, FrameReader(source, index) as reader:
        held = list(other.decode(0, 45))
        for number in range(21, 40):
            moved = full[number - (len(full) < index.frame_count)]
            assert hashes(next(reader.decode(number, 1))) == (moved.planes, moved.rgb)
            del held[number - 10 : number + 10]


def test_key_packets_that_are_none_give_no_other_frame(videos: Videos) -> None:
    """A table that calls a predicted picture a key sample: decoding from there would give something."""
    data = bytearray(videos.path("b-frames").read_bytes())
    begin, _ = find_box(bytes(data), b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stss")
    data[begin + 16 + 8 : begin + 16 + 12] = (54).to_bytes(4, "big")
    source = BytesSource(bytes(data))
    index = build_index(source)
    assert 53 in index.starts
    assert 48 not in index.starts
    full = expected(videos.path("b-frames"))
    for number in range(52, 72, 3):
        with FrameReader(source, index) as reader:
            assert matches(next(reader.decode(number, 1)), full)


def test_times_that_are_not_those_of_display_are_found_out(tmp_path: Path, videos: Videos) -> None:
    """Without its table of offsets, a video has times of decoding only; its frames come in another order."""
    data = videos.path("b-frames").read_bytes()
    begin, _ = find_box(data, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"ctts")
    path = tmp_path / "clip.mp4"
    path.write_bytes(data[: begin + 4] + b"free" + data[begin + 8 :])
    full = expected(path)
    assert [frame.pts for frame in full] != sorted(frame.pts or 0 for frame in full)
    with open_source_file(path) as source:
        index = build_index(source)
        assert index.frame_count == len(full)
        for number in range(len(full)):
            with FrameReader(source, index) as reader:
                assert matches(next(reader.decode(number, 1)), full)


def test_going_on_reads_nothing_twice(videos: Videos) -> None:
    source = BytesSource(videos.path("long-gop").read_bytes())
    index = build_index(source)
    with FrameReader(source, index) as reader:
        next(reader.decode(0, 1))
        source.bytes_read = 0
        for number in range(1, 200):
            next(reader.decode(number, 1))
        assert source.bytes_read <= source.size


@pytest.fixture(scope="module")
def large() -> bytes:
    """64 MiB: the same ten pictures of noise again and again, as a stream copy is made."""
    one = io.BytesIO()
    noise = np.random.default_rng(1)
    with av.open(one, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=25, options={"preset": "ultrafast", "qp": "2", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 480, 360, "yuv420p"
        for number in range(10):
            image = noise.integers(0, 255, (360, 480, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(image)
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    many = io.BytesIO()
    with av.open(io.BytesIO(one.getvalue())) as source, av.open(many, "w", format="mp4") as output:
        old = source.streams.video[0]
        new = output.add_stream_from_template(old)
        packets = [
            (bytes(packet), packet.pts, packet.is_keyframe) for packet in source.demux(old) if packet.size
        ]
        step = packets[1][1] - packets[0][1]
        size = sum(len(data) for data, _, _ in packets)
        for turn in range((64 << 20) // size + 1):
            for data, pts, is_key in packets:
                packet = av.Packet(data)
                packet.pts = packet.dts = pts + turn * len(packets) * step
                packet.time_base, packet.stream, packet.is_keyframe = old.time_base, new, is_key
                output.mux(packet)
    return many.getvalue()


def test_an_error_of_the_source_comes_out_as_it_is(large: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    source = FailingSource(large, len(large))
    index = build_index(source)
    with FrameReader(source, index) as reader:
        first = hashes(next(reader.decode(0, 1)))
        source.fails_at = len(large) // 2
        for _ in range(2):
            with pytest.raises(ObjectCorrupt, match="cannot be read at"):
                next(reader.decode(index.frame_count - 10, 1))
        source.fails_at = len(large)
        assert hashes(next(reader.decode(index.frame_count - 10, 1))) == first
    assert capfd.readouterr() == ("", "")


def test_a_frame_of_a_large_file_moves_little(large: bytes) -> None:
    source = BytesSource(large)
    assert source.size > 64 << 20
    index = build_index(source)
    assert source.bytes_read < 1 << 20
    group = 10 * int(index.packets.sizes.max())
    for number in (0, index.frame_count // 2 + 4):
        with FrameReader(source, index) as reader:
            source.bytes_read = 0
            next(reader.decode(number, 1))
        assert source.bytes_read <= 2 * group + (3 << 20)
