"""A `VideoIndex` as bytes: what is kept beside the objects, once for every content.

The file: magic (8 bytes), xxh3-64 of all that follows (u64), then msgpack: a map of the fields, the columns
of the packets as zlib over little-endian numbers, times and offsets as differences. Whatever is damaged, cut
off, of another version or not consistent is None, and the index is made again. Pure; any thread.
"""

from __future__ import annotations

import zlib
from fractions import Fraction
from typing import Any, Final

import msgpack
import numpy as np
import xxhash

from store.media.demuxed import Stream
from store.media.index import DEMUXING, SAMPLE_TABLES, VideoIndex
from store.media.packets import MOST_PACKETS, Packets

INDEX_VERSION: Final = 1
"""Of the format and of what an index says; an older one is made again."""

_MAGIC: Final = b"fsvindx1"
_HEAD: Final = len(_MAGIC) + 8
_COLUMNS: Final = ("offsets", "sizes", "pts", "dts")
_LEVEL: Final = 1


def to_bytes(index: VideoIndex) -> bytes:
    """The index as a file's content: some 5 to 15 bytes a frame."""
    stream = index.stream
    packets = stream.packets
    body: bytes = msgpack.packb(
        {
            "version": INDEX_VERSION,
            "decoder": index.decoder,
            "method": index.method,
            "stream_id": stream.stream_id,
            "container": stream.container,
            "codec": stream.codec,
            "size": [stream.width, stream.height],
            "rotation": stream.rotation,
            "time_base": _ratio(stream.time_base),
            "rate": _ratio(stream.rate),
            "reorders": stream.reorders,
            "count": len(packets),
            **{name: _pack_column(getattr(packets, name)) for name in _COLUMNS},
            "flags": zlib.compress(packets.flags.tobytes(), _LEVEL),
        }
    )
    return _MAGIC + _digest(body) + body


def from_bytes(data: bytes) -> VideoIndex | None:
    """The index again; None for what is not one, whatever it is."""
    body = data[_HEAD:]
    if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : _HEAD] != _digest(body):
        return None
    try:
        fields: dict[str, Any] = msgpack.unpackb(body)
        if fields["version"] != INDEX_VERSION or fields["method"] not in (SAMPLE_TABLES, DEMUXING):
            return None
        count = int(fields["count"])
        if not 0 <= count <= MOST_PACKETS:
            return None
        offsets, sizes, pts, dts = (_unpack_column(fields[name], count) for name in _COLUMNS)
        stream = Stream(
            packets=Packets(offsets, sizes, pts, dts, _unpack(fields["flags"], count, np.uint8)),
            stream_id=fields["stream_id"],
            container=fields["container"],
            codec=fields["codec"],
            width=fields["size"][0],
            height=fields["size"][1],
            rotation=fields["rotation"],
            time_base=Fraction(*fields["time_base"]),
            rate=Fraction(*fields["rate"]),
            reorders=fields["reorders"],
        )
        return VideoIndex(fields["method"], stream, fields["decoder"])
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        ArithmeticError,
        zlib.error,
        msgpack.UnpackException,
    ):
        return None


def _digest(body: bytes) -> bytes:
    return xxhash.xxh3_64_intdigest(body).to_bytes(8, "little")


def _ratio(value: Fraction) -> list[int]:
    return [value.numerator, value.denominator]


def _pack_column(column: np.ndarray[Any, np.dtype[np.int64]]) -> bytes:
    # Differences wrap around, and so do their sums.
    return zlib.compress(np.diff(column, prepend=np.int64(0)).astype("<i8").tobytes(), _LEVEL)


def _unpack_column(packed: bytes, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.cumsum(_unpack(packed, count, np.int64), dtype=np.int64)


def _unpack(packed: bytes, count: int, kind: type[np.generic]) -> np.ndarray[Any, np.dtype[Any]]:
    """`count` numbers, and not a byte more, however far the data would expand."""
    form = np.dtype(kind).newbyteorder("<")
    expander = zlib.decompressobj()
    raw = expander.decompress(packed, count * form.itemsize + 1)
    if len(raw) != count * form.itemsize:
        raise ValueError("a column of another length")
    return np.frombuffer(raw, form).astype(kind)
