"""Which files of a folder are frames, and in which order, by CVAT's rules.

Two-dimensional images only. Where this differs from CVAT: it takes any extension of its table for an image
and fails on those that Pillow cannot read, while these are skipped here; and names that begin with a dot, and
`__MACOSX`, are skipped everywhere and not only in archives.

Pure; any thread. Paths are relative, with `/`.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any, Final

from store.errors import InputError

LEXICOGRAPHICAL: Final = "lexicographical"
NATURAL: Final = "natural"
PREDEFINED: Final = "predefined"
ORDERS: Final = (LEXICOGRAPHICAL, NATURAL, PREDEFINED)
RELATED: Final = "related_images"
IMAGE: Final = "image"
VIDEO: Final = "video"

_IMAGES: Final = re.compile(
    r"avif|bmp|dds|gif|icb|ico|jp[2efx]|jpe?g|p[bgnp]m|pcx|png|psd|ras|rgb|sgi|sun|tga|tiff?|vda|vst|webp|xbm"
)
_VIDEOS: Final = re.compile(
    r"3g2|3gp|3gpp?2|3gpp|asf|avf|avi|bdm|divx|dv|f4v|flc|fli|flv|lrv|m2ts?|m4v|mk3d|mkv|moov|mov|movie|"
    r"mp4|mpe|mpe?g|mts|mxf|nsv|og[gmv]|qt|qtvr|rv|ts|vob|webm|wmv"
)


@functools.cache
def _keys() -> Callable[[str], Any]:
    from natsort import natsort_keygen, ns  # it builds large tables, and most orders are not natural

    return natsort_keygen(alg=ns.PATH | ns.IGNORECASE)


def kind_of(path: str) -> str | None:
    """`image`, `video`, or None for what is neither, by the extension; SVG is no image."""
    extension = PurePosixPath(path).suffix[1:].lower()
    return IMAGE if _IMAGES.fullmatch(extension) else VIDEO if _VIDEOS.fullmatch(extension) else None


def is_hidden(name: str) -> bool:
    """Whether a file or directory of that name is passed over."""
    return name.startswith(".") or name == "__MACOSX"


def is_frame(path: str) -> bool:
    """Whether an image is one of a folder's frames: not hidden, and not related to another."""
    parts = path.split("/")
    if any(map(is_hidden, parts)) or RELATED in parts[:-1]:
        return False
    return kind_of(path) == IMAGE


def frames_of(paths: Iterable[str], order: str, predefined: Iterable[str] = ()) -> tuple[str, ...]:
    """The frames among a folder's files, in order; `predefined` is what the folder's manifest names.

    Natural order is natsort's `os_sorted` as it is in a process without a locale and without ICU, like
    CVAT's server: numbers by value, case ignored, folder by folder; no machine's setting changes it, and
    names that differ only in case are lexicographical. In predefined order a frame comes as often as it is
    named, and one that is not named does not come.

    Raises `InputError` for another order, or when a predefined frame is not there.
    """
    frames = sorted(path for path in paths if is_frame(path))
    if order == LEXICOGRAPHICAL:
        return tuple(frames)
    if order == NATURAL:
        return tuple(sorted(frames, key=_natural_key))
    if order != PREDEFINED:
        raise InputError(f"there is no order {order!r}; there are {', '.join(ORDERS)}")
    known = set(frames)
    chosen = tuple(predefined)
    for path in chosen:
        if path not in known:
            raise InputError(f"manifest.jsonl names {path[:200]!r}, which is no image of this folder")
    return chosen


def _natural_key(path: str) -> Any:
    return _composed(_keys()(path))


def _composed(key: Any) -> Any:
    """Accented letters after all plain ones, as comparing by locale has it; natsort takes them apart."""
    if isinstance(key, tuple):
        return tuple(map(_composed, key))
    return unicodedata.normalize("NFC", key) if isinstance(key, str) else key
