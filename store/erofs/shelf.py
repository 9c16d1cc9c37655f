"""Images that are kept: beside the compiled tree that each is made of, found by all that it is made of.

An image holds sizes and where bytes lie, and who reads by it asks nobody. So it is believed only if its
checksum is right: a flipped bit in a redirect would be another file's bytes. And it is used only where the
objects that lie in the caches have the lengths that it tells; that they had is noted with the image, by the
stamps of their directories (`store.learnt_sizes`), so that only what has changed since is looked at again.

Blocking; any thread.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import xxhash

from store.erofs.look import Look
from store.errors import StoreError
from store.keeping.leases import hold
from store.learnt_sizes import PREFIXES, Stamps
from store.oid import DVC_ALGORITHMS

SUFFIX: Final = ".erofs"
TRAILER_BYTES: Final = 512
"""The checksum's; a sector, or loop devices would cut it off and complain."""
_FORMAT: Final = 1
"""Goes into the name: of images that other versions of ours wrote."""
_NOTE: Final = "user.fusefs.checked"
_WORD: Final = 0xFFFF_FFFF
_READ_BYTES: Final = 1 << 20


class ImageDamaged(StoreError):
    """The file is not an image that was written whole. Make it anew."""


def image_path(tree: Path, sizes: bytes | memoryview, look: Look, oid: str) -> Path:
    """Where the image of a compiled tree is kept whose files have these sizes (i64 × rows)."""
    shown = xxhash.xxh3_64_hexdigest(repr((_FORMAT, look, oid)).encode())
    return tree.with_suffix(f".{shown}.{xxhash.xxh3_64_hexdigest(sizes)}{SUFFIX}")


def former_images(image: Path) -> list[Path]:
    """Those that differ from it in nothing but sizes: which were not known then, or wrong."""
    same = image.stem.rpartition(".")[0]
    return [one for one in image.parent.glob(f"{same}.*{SUFFIX}") if one != image]


def open_image(path: Path) -> int:
    """A descriptor of an image that is whole, held by a lease for as long as it is open.

    Raises `ImageDamaged`, and `FileNotFoundError` where there is none.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise ImageDamaged(f"the image {path} belongs to another user")
        left = os.fstat(descriptor).st_size - TRAILER_BYTES
        state = xxhash.xxh3_128()
        while left > 0 and (data := os.read(descriptor, min(left, _READ_BYTES))):
            state.update(data)
            left -= len(data)
        if left or os.read(descriptor, TRAILER_BYTES) != trailer(state):
            raise ImageDamaged(f"the image {path} is damaged")
        hold(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def trailer(state: xxhash.xxh3_128) -> bytes:
    """An image's last sector: the checksum of all that is before."""
    return state.digest().ljust(TRAILER_BYTES, b"\0")


def note_checked(path: Path, stamps: Stamps) -> None:
    """Note that objects had the lengths which the image tells when their directories had these stamps."""
    with contextlib.suppress(OSError):  # where nothing can be noted all is looked at each time
        os.setxattr(path, _NOTE, _pack(stamps))


def find_unchecked(image: Path | int | None, stamps: Stamps) -> Mapping[str, Sequence[int]]:
    """Algorithm → for each of the 256 directories 1 where objects are to be looked at (again), else 0.

    `stamps` are those of now.
    """
    noted = b""
    if image is not None:
        with contextlib.suppress(OSError):
            noted = os.getxattr(image, _NOTE)
    now = _pack(stamps)
    then = memoryview(noted if len(noted) == len(now) else bytes(len(now))).cast("I")
    pairs = zip(then, memoryview(now).cast("I"), strict=True)
    flat = bytes(not old or old != new for old, new in pairs)
    return {name: flat[place * PREFIXES :][:PREFIXES] for place, name in enumerate(DVC_ALGORITHMS)}


def _pack(stamps: Stamps) -> bytes:
    """In 2 KiB, for some file systems keep no more; 0 stays what it is, and nothing else becomes it."""
    words = (stamp and (stamp & _WORD or 1) for name in DVC_ALGORITHMS for stamp in stamps[name])
    return array("I", words).tobytes()
