"""`Listing`: the files of one large manifest as columns, checked all at once and without an object each.

A look at a million entries one by one takes longer than all else of a first mount. What is wrong here is only
seen and not named: the caller then goes through the entries with `store.manifest`, which says what it is.

Callers: `store.version`. Pure.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from store.manifest import PATH_MAX, SIZE_MAX, Entry
from store.oid import DIGEST_BYTES, MD5
from store.tree import NAME_MAX, UNKNOWN

PADDING: Final = 8
"""Zero bytes behind the last path, so that eight bytes may be read from anywhere in a path."""
_AT_ONCE: Final = 1 << 12
"""Entries; what is needed for them only is small enough to be used again for the next ones."""
_DOT: Final = ord(".")


@dataclass(frozen=True, slots=True)
class Listing:
    """Files in the manifest's order. A *stop* is the place of the NUL behind a component of a path."""

    text: bytes
    """The paths, a NUL behind each and in the place of each slash; then `PADDING` of them."""
    stops: NDArray[np.int64]
    last: NDArray[np.int64]
    """File → its last component, an index of `stops`."""
    digests: NDArray[np.uint8]
    """Files × 16."""
    sizes: NDArray[np.int64]
    """`UNKNOWN` where nothing tells it."""
    executable: NDArray[np.bool_]


def list_files(entries: Sequence[Entry]) -> Listing | None:
    """The files of a manifest; None where an entry is not as `parse_manifest` would have it."""
    pieces: list[bytes] = []
    stops, last = [], []
    digests = np.empty((len(entries), DIGEST_BYTES[MD5]), np.uint8)
    sizes = np.full(len(entries), UNKNOWN, np.int64)
    executable = np.zeros(len(entries), np.bool_)
    length = components = 0
    for begin in range(0, len(entries), _AT_ONCE):
        some = entries[begin : begin + _AT_ONCE]
        here = slice(begin, begin + len(some))
        paths = _read_paths([entry.relpath for entry in some])
        if paths is None or not (
            _read_digests([entry.md5 for entry in some], digests[here])
            and _read_sizes([entry.size for entry in some], sizes[here])
        ):
            return None
        executable[here] = [entry.isexec for entry in some]
        text, some_stops, ends = paths
        pieces.append(text)
        stops.append(some_stops + length)
        last.append(np.searchsorted(some_stops, ends) + components)
        length += len(text)
        components += len(some_stops)
    if not pieces:
        return None
    pieces.append(bytes(PADDING))
    return Listing(b"".join(pieces), np.concatenate(stops), np.concatenate(last), digests, sizes, executable)


def _read_paths(paths: Sequence[str]) -> tuple[bytes, NDArray[np.int64], NDArray[np.int64]] | None:
    """Their text and stops, and the stops that are ends of paths."""
    try:
        text = ("\0".join(paths) + "\0").encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == 0)
    if len(ends) != len(paths) or int(np.diff(ends, prepend=-1).max()) - 1 > PATH_MAX:
        return None
    text = text.replace(b"/", b"\0")
    places = np.frombuffer(text, np.uint8)
    stops = np.flatnonzero(places == 0)
    lengths = np.diff(stops, prepend=-1) - 1
    if not 0 < int(lengths.min()) <= int(lengths.max()) <= NAME_MAX:
        return None
    single, double = stops[lengths == 1], stops[lengths == 2]
    dots = (places[double - 1] == _DOT) & (places[double - 2] == _DOT)
    if (places[single - 1] == _DOT).any() or dots.any():
        return None
    return text, stops, ends


def _read_digests(digests: Sequence[str], into: NDArray[np.uint8]) -> bool:
    if set(map(len, digests)) != {2 * DIGEST_BYTES[MD5]}:
        return False
    digits = "".join(digests)
    if not digits.isascii() or digits.encode().translate(None, b"0123456789abcdef"):
        return False
    into[:] = np.frombuffer(binascii.unhexlify(digits), np.uint8).reshape(into.shape)
    return True


def _read_sizes(sizes: Sequence[int | None], into: NDArray[np.int64]) -> bool:
    known = [size for size in sizes if size is not None]
    if known and not 0 <= min(known) <= max(known) <= SIZE_MAX:
        return False
    if known:
        into[:] = [UNKNOWN if size is None else size for size in sizes]
    return True
