"""A picture → the bytes of a file: scaled, coloured and encoded the same way every time.

`Encoding` (`store.media.encoding`) says what is wanted. The same picture gives the same bytes for as long as
`encoder()` is the same.

Pure; any thread or process.
"""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
import PIL
from PIL import Image as Pictures
from PIL import features

from store.errors import MediaInvalid
from store.media.encoding import GRAY, NPY_HEAD, Encoding
from store.media.limits import LARGEST_PICTURE

Image = np.ndarray[Any, np.dtype[np.uint8]]

_PNG_LEVEL: Final = 6
_WEBP_METHOD: Final = 4
_WEBP_SIDE: Final = 16383
_JPEG_SIDE: Final = 65500


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


def _npy(array: Image) -> bytes:
    """The array as numpy's file of version 1.0, with a head of a fixed length."""
    described = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {array.shape}, }}".encode()
    head = b"\x93NUMPY\x01\x00" + (NPY_HEAD - 10).to_bytes(2, "little")
    return head + described.ljust(NPY_HEAD - 11) + b"\n" + array.tobytes()
