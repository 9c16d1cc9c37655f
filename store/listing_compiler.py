"""Compiles a `Listing` to the columns of a tree: the same as `store.tree_compiler` makes of files one by one.

Sorted by their components, paths tell the tree: what a path does not share with the one before it is new, and
comes in the order of a walk that goes into each directory at once. Sorted by depth again, which keeps that
order, these are the rows.

Callers: `store.version`. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from store.listing import PADDING, Listing
from store.tree import DIRECTORY
from store.tree_compiler import NARROWEST, TreeImage, complete_image

_WORD: Final = PADDING
_ROWS_AT_ONCE: Final = 1 << 14
"""Rows whose names are copied together: indices of each byte are a multiple of the names."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """All rows but the root's, which is row 0 and so has no index here: index = row - 1."""

    parent: NDArray[np.int64]
    """The parent's row."""
    component: NDArray[np.int64]
    file: NDArray[np.int64]
    """Of directories one that is below them."""
    is_directory: NDArray[np.bool_]


def compile_listing(listing: Listing, name: str, plain: int, executable: int) -> TreeImage | None:
    """Compile the files of the version that messages call `name`; `plain` and `executable` are files' flags.

    None where a path is there twice, or is both a file and a directory. Raises `ManifestInvalid` for sizes
    whose sum no file system can have.
    """
    rows = _find_rows(listing)
    if rows is None:
        return None
    total = len(rows.parent) + 1
    names, name_end = _copy_names(listing, rows.component)
    is_file = np.flatnonzero(~rows.is_directory)
    files = rows.file[is_file]
    digest = np.zeros((total, NARROWEST), np.uint8)
    digest[is_file + 1] = listing.digests[files]
    size = np.zeros(total, np.int64)
    size[is_file + 1] = listing.sizes[files]
    flags = np.full(total, DIRECTORY, np.uint8)
    flags[is_file + 1] = np.where(listing.executable[files], executable, plain)
    count = np.bincount(rows.parent, minlength=total)
    # The children of a row come behind those of all rows before it.
    first = np.where(flags & DIRECTORY, 1 + np.cumsum(count) - count, 0)
    directories = np.flatnonzero(flags & DIRECTORY).tolist()
    return complete_image(
        name,
        names,
        _narrow(name_end),
        _narrow(np.concatenate(([0], rows.parent))),
        _narrow(first),
        _narrow(count),
        bytearray(digest),
        size.data,
        flags.tobytes(),
        directories,
        NARROWEST,
    )


def _narrow(column: NDArray[np.int64]) -> memoryview:
    return column.astype(np.uint32).data


def _find_rows(listing: Listing) -> _Rows | None:
    """The rows of files and of the directories above them, breadth first; None as in `compile_listing`."""
    order = np.arange(len(listing.last))
    shared = _find_shared(listing, order)
    if shared is None:  # a slash sorts behind a hyphen in a manifest, but not in a tree
        order = _sort(listing)
        shared = _find_shared(listing, order)
        if shared is None:
            return None
    starts, firsts = _begin(listing)
    last, first = listing.last[order], firsts[order]
    kept = np.searchsorted(listing.stops, starts[order] + shared) - first
    fresh = last - first + 1 - kept
    owner = np.repeat(np.arange(len(order)), fresh)
    depth = kept[owner] + np.arange(len(owner)) - (np.cumsum(fresh) - fresh)[owner]
    walked = np.argsort(depth.astype(np.int16), kind="stable")
    owner, depth = owner[walked], depth[walked]
    component = first[owner] + depth
    parent = np.zeros(len(walked), np.int64)
    bounds = np.searchsorted(depth, np.arange(1 + int(depth.max(initial=-1)) + 1)).tolist()
    for above, begin, end in zip(bounds, bounds[1:], bounds[2:], strict=False):
        # Whoever was last met one step higher. Row and index differ by one.
        parent[begin:end] = above + np.searchsorted(walked[above:begin], walked[begin:end])
    return _Rows(parent, component, order[owner], component != last[owner])


def _begin(listing: Listing) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each file's path begins in the text, and in the stops."""
    starts = np.zeros_like(listing.last)
    firsts = np.zeros_like(listing.last)
    starts[1:] = listing.stops[listing.last[:-1]] + 1
    firsts[1:] = listing.last[:-1] + 1
    return starts, firsts


def _find_shared(listing: Listing, order: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """How many bytes each path of `order` has in common with the one before it.

    None unless each comes behind the one before it, and is not below it.
    """
    words: NDArray[np.uint64] = np.ndarray(len(listing.text) - _WORD + 1, ">u8", listing.text, strides=(1,))
    starts, _ = _begin(listing)
    starts, ends = starts[order], listing.stops[listing.last[order]]
    shared = np.zeros(len(order), np.int64)
    for begin in range(0, len(order), _ROWS_AT_ONCE):
        here = slice(begin, begin + _ROWS_AT_ONCE + 1)
        if not _compare(words, starts[here], ends[here] - starts[here], shared[here]):
            return None
    return shared


def _compare(
    words: NDArray[np.uint64],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    shared: NDArray[np.int64],
) -> bool:
    """Fill in `shared`, but for the first path; False where `_find_shared` is None."""
    shortest = np.minimum(lengths[1:], lengths[:-1])
    left = np.arange(1, len(starts))
    at = 0
    while len(left):
        mine, former = words[starts[left] + at], words[starts[left - 1] + at]
        if (mine < former).any():
            return False
        differs = mine != former
        told, changed = left[differs], (mine ^ former)[differs]
        equal = np.zeros(len(told), np.int64)
        for bits in range(8, 8 * _WORD, 8):
            equal += changed < np.uint64(1 << bits)
        shared[told] = at + equal
        left = left[~differs]
        at += _WORD
        # Equal up to the end of one of them: that one is there twice, or is a directory as well.
        if (shared[told] > shortest[told - 1]).any() or (at > shortest[left - 1]).any():
            return False
    return True


def _sort(listing: Listing) -> NDArray[np.int64]:
    starts, _ = _begin(listing)
    ends = listing.stops[listing.last]
    paths = [listing.text[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    return np.array(sorted(range(len(paths)), key=paths.__getitem__), np.int64)


def _copy_names(listing: Listing, component: NDArray[np.int64]) -> tuple[bytes, NDArray[np.int64]]:
    """The column of names, and where each ends; the root's is empty. All have a NUL behind."""
    begins = np.concatenate(([0], listing.stops[:-1] + 1))[component]
    lengths = listing.stops[component] + 1 - begins
    name_end = np.concatenate(([1], 1 + np.cumsum(lengths)))
    text = np.frombuffer(listing.text, np.uint8)
    pieces = [b"\0"]
    for row in range(0, len(component), _ROWS_AT_ONCE):
        some = lengths[row : row + _ROWS_AT_ONCE]
        shift = begins[row : row + _ROWS_AT_ONCE] - (np.cumsum(some) - some)
        pieces.append(text[np.repeat(shift, some) + np.arange(int(some.sum()))].tobytes())
    return b"".join(pieces), name_end
