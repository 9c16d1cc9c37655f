"""Sample tables say what libav's demuxer says, read no payload, and are held to what the file has."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import MediaInvalid
from store.media.demuxed import demux
from store.media.index import DEMUXING, SAMPLE_TABLES, build_index
from store.media.mp4_boxes import NotSimple
from store.media.mp4_tables import read_tables
from store.media.packets import MOST_PACKETS
from store.media.source import open_source_file
from tests.store.media.long_videos import TABLE_PATH, with_frames
from tests.store.media.sources import BytesSource
from tests.store.media.videos import MAKERS, Videos, find_box

TABLES = [
    "constant",
    "variable",
    "b-frames",
    "open-gop",
    "long-gop",
    "faststart",
    "negative-cts",
    "quicktime",
    "edit-start",
    "edit-range",
    "edit-range-open",
    "edit-late",
    "cut",
    "rotated-90",
    "rotated-180",
    "rotated-270",
    "beside",
    "two-videos",
    "hevc-open",
    "mpeg4",
    "jpegs",
    "prores",
    "intra-refresh",
]


def put(data: bytes, at: int, *values: int) -> bytes:
    new = struct.pack(f">{len(values)}I", *values)
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize("name", TABLES)
def test_tables_say_what_the_demuxer_says(name: str, videos: Videos) -> None:
    with open_source_file(videos.path(name)) as source:
        tables, demuxed = read_tables(source), demux(source)
    for column in ("offsets", "sizes", "pts", "dts", "flags"):
        assert np.array_equal(getattr(tables.packets, column), getattr(demuxed.packets, column)), column
    assert (tables.codec, tables.rotation) == (demuxed.codec, demuxed.rotation)
    assert (tables.width, tables.height) == (demuxed.width, demuxed.height)
    assert (tables.time_base, tables.container) == (demuxed.time_base, demuxed.container)


def test_every_simple_mp4_is_read_by_its_tables(videos: Videos) -> None:
    methods = {}
    for name in (name for name, (suffix, _) in MAKERS.items() if suffix in (".mp4", ".mov")):
        with open_source_file(videos.path(name)) as source:
            methods[name] = build_index(source).method
    others = {name for name, method in methods.items() if method == DEMUXING}
    assert others == {"fragmented", "edit-two"}


def test_no_payload_is_read(videos: Videos) -> None:
    data = videos.path("b-frames").read_bytes()
    begin, end = find_box(data, b"mdat")
    padded = data[:begin] + data[begin:end].ljust(4 << 20, b"\0") + data[end:]
    source = BytesSource(put(padded, begin, (4 << 20)))
    assert build_index(source).method == SAMPLE_TABLES
    assert source.bytes_read < 100_000


def test_chunk_offsets_of_64_bits_are_read(videos: Videos) -> None:
    data = videos.path("b-frames").read_bytes()
    expected = read_tables(BytesSource(data)).packets
    begin, end = find_box(data, *TABLE_PATH, b"stco")
    (count,) = struct.unpack_from(">I", data, begin + 12)
    offsets = struct.unpack_from(f">{count}I", data, begin + 16)
    box = struct.pack(f">I4sII{count}Q", 16 + 8 * count, b"co64", 0, count, *offsets)
    grown = data[:begin] + box + data[end:]
    for depth in range(1, len(TABLE_PATH) + 1):
        at, stop = find_box(data, *TABLE_PATH[:depth])
        grown = put(grown, at, stop - at + 4 * count)
    assert np.array_equal(read_tables(BytesSource(grown)).packets.offsets, expected.offsets)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_small_fields_of_sizes_are_read(bits: int, videos: Videos) -> None:
    data = videos.path("b-frames").read_bytes()
    begin, end = find_box(data, *TABLE_PATH, b"stsz")
    count = (end - begin - 20) // 4
    sizes = [1 + number % (2**bits - 1) for number in range(count)]
    if bits == 4:
        packed = bytes(a << 4 | b for a, b in zip(sizes[::2], sizes[1::2], strict=True))
    else:
        packed = np.array(sizes, f">u{bits // 8}").tobytes()
    box = struct.pack(">I4sIII", end - begin, b"stz2", 0, bits, count) + packed.ljust(end - begin - 20, b"\0")
    assert read_tables(BytesSource(data[:begin] + box + data[end:])).packets.sizes.tolist() == sizes


def _change(*path: bytes, at: int, values: tuple[int, ...]) -> Callable[[bytes], bytes]:
    return lambda data: put(data, find_box(data, *path)[0] + 8 + at, *values)


HOSTILE = {
    "too many samples": _change(*TABLE_PATH, b"stsz", at=8, values=(0x7FFFFFFF,)),
    "samples of one size": _change(*TABLE_PATH, b"stsz", at=4, values=(1 << 20, 1000)),
    "samples of no size": _change(*TABLE_PATH, b"stsz", at=12, values=(0,)),
    "chunks without end": _change(*TABLE_PATH, b"stco", at=4, values=(0xFFFFFFFF,)),
    "chunks of too many": _change(*TABLE_PATH, b"stsc", at=12, values=(0xFFFFFFFF,)),
    "runs of too many": _change(*TABLE_PATH, b"stts", at=8, values=(0xFFFFFFFF,)),
    "steps of nothing": _change(*TABLE_PATH, b"stts", at=12, values=(0,)),
    "offsets of too many": _change(*TABLE_PATH, b"ctts", at=8, values=(0xFFFFFFFF,)),
    "keys from nowhere": _change(*TABLE_PATH, b"stss", at=8, values=(0xFFFFFFFF,)),
    "no time scale": _change(b"moov", b"trak", b"mdia", b"mdhd", at=12, values=(0,)),
    "a box longer than its parent": _change(*TABLE_PATH, at=-8, values=(0x7FFFFFFF,)),
    "a box shorter than its head": _change(*TABLE_PATH, at=-8, values=(3,)),
    "a moov longer than the file": _change(b"moov", at=-8, values=(0x7FFFFFFF,)),
    "edits of too many": _change(b"moov", b"trak", b"edts", b"elst", at=4, values=(0xFFFFFFFF,)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tables_are_never_believed(name: str, videos: Videos) -> None:
    source = BytesSource(HOSTILE[name](videos.path("b-frames").read_bytes()))
    with pytest.raises((NotSimple, MediaInvalid)):
        read_tables(source)
    try:
        index = build_index(source)
    except MediaInvalid as error:
        assert "\n" not in str(error)
    else:
        assert index.frame_count <= source.size


def test_a_claim_beyond_the_bound_is_refused_in_one_line(videos: Videos) -> None:
    claim = _change(*TABLE_PATH, b"stsz", at=4, values=(1, MOST_PACKETS + 1))
    with pytest.raises(MediaInvalid, match=f"has {MOST_PACKETS + 1} frames; at most"):
        build_index(BytesSource(claim(videos.path("b-frames").read_bytes())))


def test_a_thousand_streams_are_refused_in_one_line(videos: Videos) -> None:
    data = videos.path("constant").read_bytes()
    begin, end = find_box(data, b"moov", b"trak")
    grown = data[:end] + data[begin:end] * 999 + data[end:]
    at, stop = find_box(data, b"moov")
    with pytest.raises(MediaInvalid, match="has 1000 streams; at most 100 are read"):
        build_index(BytesSource(put(grown, at, stop - at + 999 * (end - begin))))


def test_two_million_frames_are_an_index_like_any_other(videos: Videos) -> None:
    count = 2_000_000
    index = build_index(BytesSource(with_frames(videos.path("constant").read_bytes(), count)))
    assert index.method == SAMPLE_TABLES
    assert (index.frame_count, index.pts(count - 1)) == (count, 512 * (count - 1))
    assert index.start_of(1_234_567) == 1_234_550


def test_pictures_that_are_too_large_are_refused_in_one_line(videos: Videos) -> None:
    huge = _change(*TABLE_PATH, b"stsd", at=8 + 8 + 24, values=(60_000 << 16 | 60_000,))
    with pytest.raises(MediaInvalid, match="has pictures of 60000x60000"):
        build_index(BytesSource(huge(videos.path("b-frames").read_bytes())))


def test_a_table_of_no_samples_is_no_video(videos: Videos) -> None:
    none = _change(*TABLE_PATH, b"stsz", at=8, values=(0,))
    with pytest.raises(MediaInvalid, match="without a single frame"):
        build_index(BytesSource(none(videos.path("b-frames").read_bytes())))


def test_what_lies_beyond_the_files_end_is_not_counted(videos: Videos) -> None:
    data = videos.path("faststart").read_bytes()
    whole = read_tables(BytesSource(data)).packets
    at = int(whole.offsets[40]) + 1
    assert len(read_tables(BytesSource(data[:at])).packets) == 40


@settings(deadline=None, max_examples=150)
@given(
    name=st.sampled_from(["b-frames", "edit-range", "edit-late", "beside", "mpeg4"]),
    changes=st.lists(
        st.tuples(
            st.floats(0, 1, exclude_max=True),
            st.sampled_from([0, 1, 2, 3, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]) | st.integers(0, 0xFFFFFFFF),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_changed_tables_are_read_or_refused(
    name: str, changes: list[tuple[float, int]], videos: Videos
) -> None:
    data = videos.path(name).read_bytes()
    begin, end = find_box(data, b"moov")
    for where, value in changes:
        data = put(data, begin + int(where * (end - begin - 4)), value)
    try:
        packets = read_tables(BytesSource(data)).packets
    except (NotSimple, MediaInvalid):
        return
    assert len(packets) <= len(data)
    assert ((packets.offsets >= 0) & (packets.offsets + packets.sizes <= len(data))).all()


def test_nothing_is_read_of_what_is_no_mp4(tmp_path: Path) -> None:
    source = BytesSource(b"This is a text. " * 100_000)
    with pytest.raises(NotSimple):
        read_tables(source)
    assert source.bytes_read <= 64 << 10
