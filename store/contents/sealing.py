"""The outer form of indexes and catalogues: a msgpack map of a kind and format, and behind it its xxh3-128.

What comes from a remote or a shared cache is hostile: a length is bounded before anything is decoded, types
are exact, and what is wrong is one line. Pure; any thread.
"""

from __future__ import annotations

import sys
from array import array
from typing import Final, TypeVar

import msgspec
import xxhash

from store.errors import ObjectCorrupt

FORMAT: Final = 1
LARGEST: Final = 256 << 20
"""Bytes of an index or a catalogue: of some millions of contents."""
SUM_BYTES: Final = 16
"""Of an xxh3-128."""
DIGEST_BYTES: Final = 16
"""Of the hashes that DVC names contents by."""
NAME_BYTES: Final = 32
"""Of a SHA-256."""
NUMBER_BYTES: Final = 8
SIZE_MAX: Final = (1 << 63) - 1


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """What all kinds have."""

    kind: str
    format: int = FORMAT


S = TypeVar("S", bound=Sealed)


def seal(content: Sealed) -> bytes:
    """The bytes of an index or a catalogue."""
    data = msgspec.msgpack.encode(content)
    return data + xxhash.xxh3_128_digest(data)


def unseal(data: bytes, kind: str, form: type[S], where: str) -> S:
    """What was sealed; `where` names it in messages. Raises `ObjectCorrupt`."""
    body, checksum = data[:-SUM_BYTES], data[-SUM_BYTES:]
    if len(data) > LARGEST:
        raise ObjectCorrupt(f"{where} has {len(data)} bytes, more than there can be")
    if xxhash.xxh3_128_digest(body) != checksum:
        raise ObjectCorrupt(f"{where} is damaged or cut short: its checksum is another one")
    try:
        head = msgspec.msgpack.decode(body, type=Sealed)
        if head.kind != kind:
            raise ObjectCorrupt(f"{where} says that it is of the kind {head.kind[:40]!r}, and not {kind!r}")
        if head.format != FORMAT:
            raise ObjectCorrupt(
                f"{where} has format {head.format}, which a newer fusefs wrote; this one reads {FORMAT}"
            )
        return msgspec.msgpack.decode(body, type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ObjectCorrupt(f"{where} cannot be read: {str(error)[:200]}") from None


def pack_numbers(numbers: array[int]) -> bytes:
    """A column of numbers, `array("Q")`."""
    if sys.byteorder == "big":
        numbers = array("Q", numbers)
        numbers.byteswap()
    return numbers.tobytes()


def unpack_numbers(column: bytes, count: int, where: str) -> array[int]:
    """A column of `count` numbers. Raises `ObjectCorrupt`."""
    check_column(column, NUMBER_BYTES, count, where)
    numbers = array("Q", column)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def check_column(column: bytes, width: int, count: int, where: str) -> None:
    """Raises `ObjectCorrupt` unless there are `count` values of `width` bytes."""
    if len(column) != width * count:
        raise ObjectCorrupt(f"{where} has columns of different lengths")


def count_of(column: bytes, width: int, where: str) -> int:
    """How many values of `width` bytes there are. Raises `ObjectCorrupt`."""
    count, rest = divmod(len(column), width)
    if rest:
        raise ObjectCorrupt(f"{where} has a column that is cut short")
    return count


def values(column: bytes, width: int) -> list[bytes]:
    """A column's values."""
    return [column[start : start + width] for start in range(0, len(column), width)]
