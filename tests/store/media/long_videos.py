"""A video whose tables say that it has very many frames of a byte each, of which none can be decoded."""

from __future__ import annotations

import struct

import numpy as np

from tests.store.media.videos import find_box

TABLE_PATH = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
KEY_SPACING = 50


def with_frames(data: bytes, count: int) -> bytes:
    """An MP4 with `moov` at its end and a track without reordering, grown to `count` frames of 512 units."""
    keys = np.arange(1, count + 1, KEY_SPACING)
    for kind, body in {
        b"stsz": struct.pack(">III", 0, 0, count) + np.ones(count, ">u4").tobytes(),
        b"stts": struct.pack(">IIII", 0, 1, count, 512),
        b"stsc": struct.pack(">IIIII", 0, 1, 1, count, 1),
        b"stco": struct.pack(">III", 0, 1, 48),
        b"stss": struct.pack(">II", 0, len(keys)) + keys.astype(">u4").tobytes(),
    }.items():
        data = _with_table(data, kind, body)
    at, _ = find_box(data, b"moov", b"trak", b"edts")
    return data[: at + 4] + b"free" + data[at + 8 :]


def _with_table(data: bytes, kind: bytes, body: bytes) -> bytes:
    begin, end = find_box(data, *TABLE_PATH, kind)
    box = struct.pack(">I", 8 + len(body)) + kind + body
    grown = data[:begin] + box + data[end:]
    for depth in range(1, len(TABLE_PATH) + 1):
        at, stop = find_box(data, *TABLE_PATH[:depth])
        grown = grown[:at] + struct.pack(">I", stop - at + len(box) - (end - begin)) + grown[at + 4 :]
    return grown
