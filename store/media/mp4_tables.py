"""Packets of an MP4 or MOV from its sample tables, without reading payload: what libav's demuxer would give.

Only what is understood in full is read here. Fragmented files, several descriptions of a track, odd tables
and rare codecs raise `NotSimple`, and are demuxed instead. What a table claims is checked against the file's
size before anything is made of it. Blocking; any thread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from store.errors import MediaInvalid
from store.media.containers import MOST_STREAMS, open_container
from store.media.demuxed import Stream
from store.media.mp4_boxes import NotSimple, children, fields, find, need, read_moov
from store.media.mp4_edits import apply_edit, parse_edits
from store.media.packets import KEY, MOST_PACKETS, Longs, Packets
from store.media.source import MediaSource

_CODECS: Final = {
    b"avc1": "h264",
    b"avc3": "h264",
    b"hvc1": "hevc",
    b"hev1": "hevc",
    b"vp09": "vp9",
    b"av01": "av1",
    b"mp4v": "mpeg4",
    b"jpeg": "mjpeg",
    b"apco": "prores",
    b"apcs": "prores",
    b"apcn": "prores",
    b"apch": "prores",
    b"ap4h": "prores",
    b"ap4x": "prores",
}
_REORDERING: Final = frozenset(("h264", "hevc", "mpeg4"))
_INTRA_ONLY: Final = frozenset(("mjpeg", "prores"))
_MPEG4_VISUAL: Final = 0x20
_IDENTITY: Final = (1.0, 0.0, 0.0, 1.0)
_LARGEST_STEP: Final = 1 << 31
_LARGEST_DELAY: Final = 1 << 28
_LARGEST_SAMPLE: Final = 0x3FFFFFFF


@dataclass(frozen=True, slots=True)
class _Track:
    box: memoryview
    number: int
    matrix: tuple[float, ...]


def read_tables(source: MediaSource) -> Stream:
    """The best video track.

    Raises `NotSimple` where libav must read it, `MediaInvalid` for what nothing reads, and as the source
    does.
    """
    moov = read_moov(source)
    if find(moov, b"mvex") is not None or find(moov, b"cmov") is not None:
        raise NotSimple
    mvhd = need(moov, b"mvhd")
    if not len(mvhd):
        raise NotSimple
    (film_scale,) = fields(mvhd, "I", 20 if mvhd[0] == 1 else 12)
    film_matrix = _matrix(mvhd, 48 if mvhd[0] == 1 else 36)
    tracks = [box for kind, box in children(moov) if kind == b"trak"]
    if len(tracks) > MOST_STREAMS:
        raise MediaInvalid(f"{source.name} has {len(tracks)} streams; at most {MOST_STREAMS} are read")
    track = _choose([box for box in tracks if _is_video(box)], source)
    return _read_track(track, film_scale, film_matrix, source)


def _is_video(trak: memoryview) -> bool:
    handler = find(trak, b"mdia", b"hdlr")
    return handler is not None and bytes(handler[8:12]) == b"vide"


def _choose(videos: list[memoryview], source: MediaSource) -> _Track:
    tracks = []
    for box in videos:
        tkhd = need(box, b"tkhd")
        long = tkhd[0] == 1
        (number,) = fields(tkhd, "I", 20 if long else 12)
        tracks.append(_Track(box, number, _matrix(tkhd, 52 if long else 40)))
    if not tracks or len({track.number for track in tracks}) != len(tracks):
        raise NotSimple
    if len(tracks) == 1:
        return tracks[0]
    opened = open_container(source)
    best = opened.stream.id
    opened.close()
    chosen = [track for track in tracks if track.number == best]
    if not chosen:
        raise NotSimple
    return chosen[0]


def _read_track(
    track: _Track, film_scale: int, film_matrix: tuple[float, ...], source: MediaSource
) -> Stream:
    media = need(track.box, b"mdia")
    mdhd = need(media, b"mdhd")
    (scale,) = fields(mdhd, "I", 20 if mdhd[0] == 1 else 12)
    tables = need(media, b"minf", b"stbl")
    codec, width, height = _description(need(tables, b"stsd"))
    if not 0 < scale < 1 << 31 or _has_groups(tables):
        raise NotSimple
    sizes = _sizes(tables, source)
    if not len(sizes):
        raise MediaInvalid(f"{source.name} has a video stream without a single frame")
    offsets = _offsets(tables, sizes)
    steps = _expand(need(tables, b"stts"), ">u4", len(sizes))
    if (steps == 0).any() or (steps >= _LARGEST_STEP).any():
        raise NotSimple
    dts = np.cumsum(steps) - steps
    ctts = find(tables, b"ctts")
    shift = 0
    delays = np.zeros(len(sizes), np.int64)
    if ctts is not None:
        delays = _expand(ctts, ">i4", len(sizes))
        if int(np.abs(delays).max()) >= _LARGEST_DELAY:
            raise NotSimple
        shift = _shift(ctts)
    packets = Packets(offsets, sizes, dts + delays, dts - shift, _flags(tables, len(sizes), codec))
    elst = find(track.box, b"edts", b"elst")
    edit = parse_edits(elst, film_scale, scale) if elst is not None else None
    if edit is not None:
        packets = apply_edit(packets, shift, edit, reordered=ctts is not None)
    return Stream(
        packets=_within(packets, source.size),
        stream_id=track.number,
        container="mov,mp4,m4a,3gp,3g2,mj2",
        codec=codec,
        width=width,
        height=height,
        rotation=_rotation(track.matrix, film_matrix),
        time_base=Fraction(1, scale),
        rate=Fraction(len(sizes) * scale, int(steps.sum())),
        reorders=codec in _REORDERING and ctts is not None,
    )


def _description(stsd: memoryview) -> tuple[str, int, int]:
    """Codec, width and height from the one description of the samples."""
    _, count = fields(stsd, "II")
    entries = list(children(stsd[8:]))
    if count != 1 or len(entries) != 1:
        raise NotSimple
    kind, entry = entries[0]
    width, height = fields(entry, "HH", 24)
    codec = _CODECS.get(kind)
    if (
        codec is None
        or not width
        or not height
        or (codec == "mpeg4" and _object_type(entry) != _MPEG4_VISUAL)
    ):
        raise NotSimple
    return codec, width, height


def _object_type(entry: memoryview) -> int:
    """Of an `mp4v`: which of MPEG's codecs it is, by the first descriptor of a decoder's configuration."""
    esds = find(entry[78:], b"esds")
    if esds is None:
        return 0
    data = bytes(esds[4:])
    at = 0
    for tag, skipped in ((3, 3), (4, 0)):
        if at >= len(data) or data[at] != tag:
            return 0
        at += 1
        while at < len(data) and data[at] & 0x80:
            at += 1
        at += 1 + skipped
    return data[at] if at < len(data) else 0


def _has_groups(tables: memoryview) -> bool:
    """Groups and partial sync samples move the key samples."""
    for kind, box in children(tables):
        if kind == b"stps" or (kind == b"sbgp" and bytes(box[4:8]) == b"rap "):
            return True
    return False


def _sizes(tables: memoryview, source: MediaSource) -> Longs:
    stsz = find(tables, b"stsz")
    if stsz is not None:
        _, size, count = fields(stsz, "III")
        bits = 32
    else:
        stz2 = need(tables, b"stz2")
        _, bits, count = fields(stz2, "III")
        size, stsz = 0, stz2
        if bits not in (4, 8, 16):
            raise NotSimple
    if count > MOST_PACKETS:
        raise MediaInvalid(f"{source.name} has {count} frames; at most {MOST_PACKETS} are read")
    if size:
        if count * size > source.size:
            raise NotSimple
        return np.full(count, size, np.int64)
    if (count * bits + 7) // 8 > len(stsz) - 12:
        raise NotSimple
    if bits == 4:
        halves = np.frombuffer(stsz, np.uint8, (count + 1) // 2, 12)
        sizes = np.column_stack((halves >> 4, halves & 15)).ravel()[:count].astype(np.int64)
    else:
        sizes = np.frombuffer(stsz, f">u{bits // 8}", count, 12).astype(np.int64)
    if count and not 0 < int(sizes.min()) <= int(sizes.max()) <= _LARGEST_SAMPLE:
        raise NotSimple
    return sizes


def _offsets(tables: memoryview, sizes: Longs) -> Longs:
    """Where each sample lies, from the chunks' offsets and the table of samples a chunk."""
    stco = find(tables, b"stco")
    table, form = (stco, ">u4") if stco is not None else (need(tables, b"co64"), ">u8")
    chunks = _table(table, form, 1).ravel()
    runs = _table(need(tables, b"stsc"), ">u4", 3)
    if not len(chunks) or not len(runs) or runs[0, 0] != 1 or (runs[:, 2] != 1).any():
        raise NotSimple
    if (np.diff(runs[:, 0]) <= 0).any() or runs[-1, 0] > len(chunks) or (chunks < 0).any():
        raise NotSimple
    lengths = np.diff(np.append(runs[:, 0], len(chunks) + 1))
    if int((lengths.astype(float) * runs[:, 1]).sum()) != len(sizes):
        raise NotSimple
    counts = np.repeat(runs[:, 1], lengths)
    begins = np.cumsum(sizes) - sizes
    firsts = np.cumsum(counts) - counts
    filled = counts > 0
    starts = np.repeat(begins[firsts[filled]], counts[filled])
    offsets: Longs = np.repeat(chunks, counts) + begins - starts
    return offsets


def _flags(tables: memoryview, count: int, codec: str) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    flags = np.zeros(count, np.uint8)
    stss = find(tables, b"stss")
    if codec in _INTRA_ONLY and stss is None:
        flags[:] = KEY
        return flags
    # Without a table every sample would be a key, and with one that does not begin with the first sample none
    # before it be shown: for libav's parsers to tell, which look at the packets themselves.
    if codec in _INTRA_ONLY or stss is None:
        raise NotSimple
    keys = _table(stss, ">u4", 1).ravel()
    if not len(keys) or keys[0] != 1 or keys[-1] > count or (np.diff(keys) <= 0).any():
        raise NotSimple
    flags[keys - 1] = KEY
    return flags


def _expand(box: memoryview, form: str, count: int) -> Longs:
    """A table of runs (count, value), written out; it must be for `count` samples."""
    runs = _table(box, ">u4", 2)
    if int(runs[:, 0].astype(float).sum()) != count:
        raise NotSimple
    values = runs[:, 1].astype(np.uint32).astype(np.dtype(form).newbyteorder("="))
    return np.repeat(values.astype(np.int64), runs[:, 0])


def _shift(ctts: memoryview) -> int:
    """By how much negative offsets put times of decoding before those of display.

    libav leaves the last two runs of the table out, and its times are the ones to agree with.
    """
    runs = _table(ctts, ">u4", 2)
    offsets = runs[:, 1].astype(np.uint32).astype(np.int32).astype(np.int64)
    offsets = offsets[:-2][runs[:-2, 0] > 0]
    return max(0, -int(offsets.min())) if len(offsets) else 0


def _table(box: memoryview, form: str, width: int) -> Longs:
    """The rows of a table with a count before them. 64-bit values beyond 63 bits become negative."""
    _, rows = fields(box, "II")
    item = np.dtype(form).itemsize
    if rows * width * item > len(box) - 8:
        raise NotSimple
    table: Longs = np.frombuffer(box, form, rows * width, 8).astype(np.int64).reshape(rows, width)
    return table


def _within(packets: Packets, size: int) -> Packets:
    """Without what the file lacks, when its end is: libav stops at the first packet that is not there."""
    missing = np.flatnonzero((packets.offsets > size) | (packets.sizes > size - packets.offsets))
    if not len(missing):
        return packets
    kept = slice(0, int(missing[0]))
    return Packets(
        packets.offsets[kept], packets.sizes[kept], packets.pts[kept], packets.dts[kept], packets.flags[kept]
    )


def _matrix(box: memoryview, at: int) -> tuple[float, ...]:
    a, b, _, c, d = fields(box, "iiiii", at)
    return a / 65536, b / 65536, c / 65536, d / 65536


def _rotation(track: tuple[float, ...], film: tuple[float, ...]) -> int:
    """Degrees counter-clockwise, from the track's matrix and the film's."""
    a, b, c, d = track
    e, f, g, h = film
    a, b, c, d = a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h
    if (a, b, c, d) == _IDENTITY or not math.hypot(a, c) or not math.hypot(b, d):
        return 0
    return int(-math.degrees(math.atan2(b / math.hypot(b, d), a / math.hypot(a, c))))
