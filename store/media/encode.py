"""A picture → the bytes of a file: scaled, coloured and encoded the same way every time.

`Encoding` says what is wanted, `encode` makes it, and `exact_size` tells the length of a `bmp` or `npy` file
from the picture's size alone. The same picture gives the same bytes for as long as `encoder()` is the same.

Pure; any thread or process.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import PIL
from PIL import Image as Pictures
from PIL import features

from store.errors import InputError, MediaInvalid
from store.media.limits import LARGEST_PICTURE

FORMATS: Final = ("jpg", "png", "bmp", "npy", "webp")
LOSSY: Final = ("jpg", "webp")
EXACT: Final = ("bmp", "npy")
"""Formats whose files' length follows from the picture's size."""
RGB: Final = "rgb"
GRAY: Final = "gray"
DEFAULT_QUALITY: Final = 90
LARGEST_SIDE: Final = 16384
"""Pixels; of what is scaled to. A picture that is not scaled may be as large as its source's."""

Image = np.ndarray[Any, np.dtype[np.uint8]]

_PNG_LEVEL: Final = 6
_WEBP_METHOD: Final = 4
_WEBP_SIDE: Final = 16383
_JPEG_SIDE: Final = 65500
_BMP_HEADER: Final = 54
_PALETTE: Final = 1024
_NPY_HEAD: Final = 128
"""Numpy itself pads by its version; any multiple of 64 that the description fits into is right."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """What a picture is made to.

    `quality`, 1 to 100, counts for `jpg` and `webp` only; `scale` is width and height, None for the
    picture's own.
    """

    form: str = "jpg"
    quality: int = DEFAULT_QUALITY
    scale: tuple[int, int] | None = None
    colour: str = RGB

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise InputError(f"there is no picture format {self.form!r}; there are {', '.join(FORMATS)}")
        if self.colour not in (RGB, GRAY):
            raise InputError(f"there is no colour {self.colour!r}; there are rgb and gray")
        if not 1 <= self.quality <= 100:
            raise InputError(f"a quality is from 1 to 100, not {self.quality}")
        if self.scale is not None and not all(1 <= side <= LARGEST_SIDE for side in self.scale):
            width, height = self.scale
            raise InputError(f"pictures are scaled to sides of 1 to {LARGEST_SIDE}, not to {width}x{height}")


def encoder() -> str:
    """The versions that encoded bytes follow from."""
    libraries = ((name, features.version(name)) for name in ("libjpeg_turbo", "jpg", "zlib", "webp"))
    return " ".join(
        [f"Pillow {PIL.__version__}", *(f"{name} {version}" for name, version in libraries if version)]
    )


def encode(picture: Image | Pictures.Image, encoding: Encoding) -> bytes:
    """The file of an RGB picture, an array of height × width × 3 or an image of Pillow's.

    Raises `MediaInvalid` for one that the format cannot hold.
    """
    width, height = picture.size if isinstance(picture, Pictures.Image) else picture.shape[1::-1]
    if width * height > LARGEST_PICTURE:
        raise MediaInvalid(f"a picture of {width}x{height} is larger than {LARGEST_PICTURE} pixels")
    image = (
        picture if isinstance(picture, Pictures.Image) else Pictures.fromarray(np.ascontiguousarray(picture))
    )
    if encoding.scale is not None and encoding.scale != image.size:
        image = image.resize(encoding.scale, Pictures.Resampling.LANCZOS)
    if encoding.colour == GRAY:
        image = image.convert("L")  # BT.601's weights
    file = io.BytesIO()
    if encoding.form == "npy":
        return _npy(np.asarray(image))
    limit = {"jpg": _JPEG_SIDE, "webp": _WEBP_SIDE}.get(encoding.form)
    if limit is not None and max(image.size) > limit:
        raise MediaInvalid(
            f"{encoding.form} holds sides of {limit} pixels; {image.width}x{image.height} is larger"
        )
    match encoding.form:
        case "jpg":
            image.save(file, "JPEG", quality=encoding.quality)
        case "png":
            image.save(file, "PNG", compress_level=_PNG_LEVEL)
        case "bmp":
            image.save(file, "BMP")
        case _:
            image.save(file, "WEBP", quality=encoding.quality, method=_WEBP_METHOD)
    return file.getvalue()


def exact_size(encoding: Encoding, width: int, height: int) -> int | None:
    """How long the file of a picture of that size is; None where only encoding tells."""
    if encoding.scale is not None:
        width, height = encoding.scale
    channels = 1 if encoding.colour == GRAY else 3
    if encoding.form == "bmp":
        row = (width * channels + 3) // 4 * 4
        return _BMP_HEADER + (_PALETTE if encoding.colour == GRAY else 0) + row * height
    if encoding.form == "npy":
        return _NPY_HEAD + width * height * channels
    return None


def _npy(array: Image) -> bytes:
    """The array as numpy's file of version 1.0, with a head of a fixed length."""
    described = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {array.shape}, }}".encode()
    head = b"\x93NUMPY\x01\x00" + (_NPY_HEAD - 10).to_bytes(2, "little")
    return head + described.ljust(_NPY_HEAD - 11) + b"\n" + array.tobytes()
