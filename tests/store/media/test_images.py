"""Sizes of images and members of chunks, of images that Pillow made, broke or was lied to about."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from store.errors import MediaInvalid
from store.media.images import compressed_member, image_size, original_extension
from store.media.source import LocalSource, open_source_file


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.open: list[LocalSource] = []

    def source(self, content: bytes, name: str = "picture.png") -> LocalSource:
        file = self.path / f"{len(self.open)}-{name}"
        file.write_bytes(content)
        self.open.append(open_source_file(file))
        return self.open[-1]


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    folder = Folder(tmp_path)
    yield folder
    for source in folder.open:
        source.close()


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def decoded(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def corners() -> Image.Image:
    """Wider than high, its corners told apart by their colours."""
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:16, :32], pixels[:16, 32:], pixels[16:, :32] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(folder: Folder, form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    content = saved(corners(), form, exif=exif)
    source = folder.source(content)
    tagged = corners()
    tagged.getexif()[274] = orientation
    expected = ImageOps.exif_transpose(tagged)
    assert image_size(source) == expected.size
    member = decoded(compressed_member(source, 95))
    assert (member.format, member.mode, member.size) == ("JPEG", "RGB", expected.size)
    assert member.getexif().get(274, 1) == 1
    wrong = np.abs(np.asarray(member).astype(int) - np.asarray(expected).astype(int))
    assert np.median(wrong) <= 8


def test_an_orientation_that_means_nothing(folder: Folder) -> None:
    exif = Image.Exif()
    exif[274] = 77
    source = folder.source(saved(corners(), "JPEG", exif=exif))
    assert image_size(source) == (64, 32)
    assert decoded(compressed_member(source, 70)).size == (64, 32)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [("L", "L"), ("RGB", "RGB"), ("RGBA", "RGB"), ("P", "RGB"), ("1", "RGB"), ("LA", "RGB")],
)
def test_modes(folder: Folder, pixels: str, expected: str) -> None:
    source = folder.source(saved(corners().convert(pixels), "PNG"))
    assert decoded(compressed_member(source, 70)).mode == expected


def test_a_palette_with_transparency(folder: Folder) -> None:
    source = folder.source(saved(corners().convert("P"), "PNG", transparency=bytes([0, 128, 255])))
    assert decoded(compressed_member(source, 70)).mode == "RGB"


def test_16_bits_are_stretched_and_equalized(folder: Folder) -> None:
    values = (1000 + np.arange(256 * 16) % 1024).astype(np.uint16).reshape(64, 64)
    source = folder.source(saved(Image.fromarray(values), "PNG"))
    grey = ((values - 1000) / 1023 * 255).astype(np.uint8)
    expected = saved(ImageOps.equalize(Image.fromarray(grey)), "JPEG", quality=70, optimize=True)
    assert compressed_member(source, 70) == expected


def test_32_bits_are_scaled_by_the_largest(folder: Folder) -> None:
    values = (np.arange(64 * 64) * 1000).astype(np.int32).reshape(64, 64)
    source = folder.source(saved(Image.fromarray(values), "TIFF"))
    grey = np.minimum(values * (256 / values.max()), 255).astype(np.uint8)
    expected = saved(Image.fromarray(grey).convert("RGB"), "JPEG", quality=50, optimize=True)
    assert compressed_member(source, 50) == expected


@pytest.mark.parametrize(("kind", "form"), [(np.uint16, "PNG"), (np.int32, "TIFF")])
def test_images_of_one_value(folder: Folder, kind: Any, form: str) -> None:
    source = folder.source(saved(Image.fromarray(np.zeros((8, 8), kind)), form))
    assert np.asarray(decoded(compressed_member(source, 70))).max() <= 1  # as near to black as JPEG comes


def test_quality_counts(folder: Folder) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    source = folder.source(saved(Image.fromarray(noise), "PNG"))
    assert len(compressed_member(source, 20)) < len(compressed_member(source, 90))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_truncated_image_is_taken_as_far_as_it_goes(folder: Folder, form: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (128, 128, 3), np.uint8)
    content = saved(Image.fromarray(noise), form)
    source = folder.source(content[: len(content) * 2 // 3])
    assert decoded(compressed_member(source, 70)).size == (128, 128)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_bomb_is_refused_by_its_header(folder: Folder) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    source = folder.source(bomb)
    for call in (image_size, lambda source: compressed_member(source, 70)):
        with pytest.raises(MediaInvalid, match="more than 268435456"):
            call(source)


def test_an_image_that_pillow_alone_would_warn_of(folder: Folder) -> None:
    header = struct.pack(">IIBBBBB", 15_000, 15_000, 8, 0, 0, 0, 0)
    large = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10)))
    assert image_size(folder.source(large)) == (15_000, 15_000)


@pytest.mark.parametrize(
    "content", [b"", b"no picture\n" * 10, b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_what_is_no_image(folder: Folder, content: bytes) -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    with pytest.raises(MediaInvalid, match=r"picture\.png is no image"):
        compressed_member(folder.source(content), 70)
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_extensions_of_originals() -> None:
    assert [original_extension(name) for name in ("a/b.c.JPG", "b.png")] == ["JPG", "png"]
