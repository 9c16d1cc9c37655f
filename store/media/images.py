"""An image's size and format without decoding it, a small picture of it, and its member of compressed chunks.

The rules are CVAT's, with one difference: an original is the source's bytes, always. CVAT saves images whose
EXIF orientation is not 1 again, turned, and every TIFF with LZW, and calls the result original as well.

Images are hostile input. Only formats that Pillow decodes by itself are opened (EPS would run a program), and
none of more pixels than `LARGEST_PICTURE`, whatever Pillow's own bound is. What is there of a truncated image
is taken, the rest is grey or black. Pillow has both settings for the whole process only: they are set while
one image is read, under a lock, and put back; other threads' images would see them for that time.

Blocking; any thread or process, one image at a time in each process. Raises `MediaInvalid`, and as
sources do.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Final

import numpy as np
from PIL import Image, ImageFile, ImageOps

from store.errors import MediaInvalid, StoreError
from store.media.limits import LARGEST_PICTURE
from store.media.source import MediaSource, SourceFile

COMPRESSED_EXTENSION: Final = "jpeg"
_FORMATS: Final = (
    *("AVIF", "BMP", "DDS", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "PSD", "SGI"),
    *("SUN", "TGA", "TIFF", "WEBP", "XBM"),
)
_ORIENTATION: Final = 274
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_pillow = threading.Lock()


def image_size(source: MediaSource) -> tuple[int, int]:
    """Width and height as displayed: swapped for an EXIF orientation above 4. Reads the header only."""
    with _opened(source) as image:
        width, height = image.size
        turned = image.format != "TIFF" and _orientation(image) > 4  # Pillow has swapped a TIFF's by then
        return (height, width) if turned else (width, height)


def image_format(source: MediaSource) -> str:
    """What it is by its bytes, as Pillow calls it: `JPEG`, `PNG`. Reads the header only."""
    with _opened(source) as image:
        return image.format or ""


def thumbnail(source: MediaSource, width: int, height: int) -> Image.Image:
    """The image upright, in RGB, made smaller until it fits in a box of so many pixels."""
    with _opened(source) as image:
        orientation = 1 if image.format == "TIFF" else _orientation(image)
        # A JPEG is decoded at half or less of its size where that is enough, whichever way it will be turned.
        image.draft("RGB", (2 * max(width, height),) * 2)
        image.load()
        upright = image.transpose(_TURNS[orientation]) if orientation in _TURNS else image
        small = _to_8_bits(upright).convert("RGB")
        small.thumbnail((width, height))
        return small


def compressed_member(source: MediaSource, quality: int) -> bytes:
    """The image as an upright JPEG of 8 bits: grey where it is grey with 8 or 16 bits, else RGB.

    Values of 32 bits are multiplied by 256 / the largest and cut at 255. Values of 16 bits are stretched to
    0-255 and then equalized, image by image, so the grey of two images cannot be compared.
    """
    with _opened(source) as image:
        orientation = 1 if image.format == "TIFF" else _orientation(image)  # loading turns a TIFF
        image.load()
        upright = image.transpose(_TURNS[orientation]) if orientation in _TURNS else image
        upright.info.pop("transparency", None)
        file = io.BytesIO()
        _to_8_bits(upright).save(file, "JPEG", quality=quality, optimize=True)
        return file.getvalue()


def original_extension(name: str) -> str:
    """The extension of an original in a chunk: the source's own, without dot."""
    return PurePosixPath(name).suffix[1:]


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode == "I":
        values = np.asarray(image).astype(np.float64)
        largest = values.max(initial=0)
        scaled = values * (256 / largest) if largest > 0 else values
        return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.float64)
        values -= values.min()
        largest = values.max()
        scaled = values / largest * 255 if largest > 0 else values
        return ImageOps.equalize(Image.fromarray(scaled.astype(np.uint8)))
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """1 where there is none that means anything: the tag is as hostile as the rest."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


@contextmanager
def _opened(source: MediaSource) -> Iterator[Image.Image]:
    with _pillow:
        kept = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = LARGEST_PICTURE, True
        try:
            with Image.open(SourceFile(source), formats=_FORMATS) as image:  # type: ignore[arg-type]
                width, height = image.size
                if width * height > LARGEST_PICTURE:
                    raise MediaInvalid(
                        f"{source.name} has {width}x{height} pixels, more than {LARGEST_PICTURE}"
                    )
                yield image
        except StoreError:
            raise
        except Image.DecompressionBombError as error:  # also of a picture within a picture, as icons have
            raise MediaInvalid(f"{source.name} has more than {LARGEST_PICTURE} pixels") from error
        except Exception as error:  # Pillow's plug-ins raise whatever bytes lead them to
            raise MediaInvalid(f"{source.name} is no image that can be read") from error
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = kept
