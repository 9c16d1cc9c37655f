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
from store.tree import NAME_MAX, UNKNOWN

PADDING: Final = 8
"""Zero bytes behind the last path, so that eight bytes may be read from anywhere in a path."""
_DIGEST_DIGITS: Final = 32
_DOT: Final = ord(".")


@dataclass(frozen=True, slots=True)
class Listing:
    """Files in the manifest's order. A *stop* is the place of the NUL behind a component of a path."""

    text: bytes
    """The paths, a NUL behind each and in the place of each slash; then `PADDING`."""
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
    digests = _read_digests([entry.md5 for entry in entries])
    sizes = _read_sizes([entry.size for entry in entries])
    try:
        text = "\0".join([entry.relpath for entry in entries]).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
    if digests is None or sizes is None:
        return None
    ends = np.flatnonzero(np.frombuffer(text + b"\0", np.uint8) == 0)
    text = text.replace(b"/", b"\0") + bytes(1 + PADDING)
    stops = np.flatnonzero(np.frombuffer(text, np.uint8)[:-PADDING] == 0)
    if len(ends) != len(entries) or not _are_names(text, stops):
        return None
    if int(np.diff(ends, prepend=-1).max(initial=0)) - 1 > PATH_MAX:
        return None
    executable = np.array([entry.isexec for entry in entries], np.bool_)
    return Listing(text, stops, np.searchsorted(stops, ends), digests, sizes, executable)


def _are_names(text: bytes, stops: NDArray[np.int64]) -> bool:
    """Can all components be names in a directory?"""
    lengths = np.diff(stops, prepend=-1) - 1
    if len(lengths) and not 0 < int(lengths.min()) <= int(lengths.max()) <= NAME_MAX:
        return False
    places = np.frombuffer(text, np.uint8)
    single, double = stops[lengths == 1], stops[lengths == 2]
    dots = (places[double - 1] == _DOT) & (places[double - 2] == _DOT)
    return not (places[single - 1] == _DOT).any() and not dots.any()


def _read_digests(digests: Sequence[str]) -> NDArray[np.uint8] | None:
    if set(map(len, digests)) - {_DIGEST_DIGITS}:
        return None
    digits = "".join(digests)
    if not digits.isascii() or digits.encode().translate(None, b"0123456789abcdef"):
        return None
    return np.frombuffer(binascii.unhexlify(digits), np.uint8).reshape(len(digests), -1)


def _read_sizes(sizes: Sequence[int | None]) -> NDArray[np.int64] | None:
    known = [size for size in sizes if size is not None]
    if known and not 0 <= min(known) <= max(known) <= SIZE_MAX:
        return None
    if not known:
        return np.full(len(sizes), UNKNOWN, np.int64)
    return np.array([UNKNOWN if size is None else size for size in sizes], np.int64)
