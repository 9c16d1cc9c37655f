"""What is shown to people: small pictures of frames and images, and what an image is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from store.errors import MediaInvalid
from store.making import image_maker, thumbnails_maker
from store.making.makers import MAKERS, Made
from store.media.frames import FrameReader
from store.media.index import build_index
from store.media.index_file import to_bytes
from tests.store.media.sources import BytesSource
from tests.store.media.videos import Videos, picture


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Videos:
    return Videos(tmp_path_factory.mktemp("videos"))


def png(piece: Made) -> Image.Image:
    assert isinstance(piece, bytes)
    image = Image.open(io.BytesIO(piece))
    assert image.format == "PNG"
    return image


def source_of(image: Image.Image, form: str, **options: Any) -> BytesSource:
    file = io.BytesIO()
    image.save(file, form, **options)
    return BytesSource(file.getvalue())


def frames(path: Path, numbers: list[int], box: tuple[int, int]) -> list[Made]:
    video = BytesSource(path.read_bytes())
    kept = BytesSource(to_bytes(build_index(video)))
    arguments = {"numbers": numbers, "box": list(box)}
    return list(thumbnails_maker.make(arguments, [video, kept]))


def test_frames_are_those_that_were_asked_for_and_fit(videos: Videos) -> None:
    path = videos.path("b-frames")
    pieces = frames(path, [50, 3], (64, 64))
    video = BytesSource(path.read_bytes())
    with FrameReader(video, build_index(video)) as reader:
        for piece, number in zip(pieces, (50, 3), strict=True):
            whole = Image.fromarray(next(reader.decode(number, 1)).rgb())
            whole.thumbnail((64, 64))
            assert png(piece).size == (64, 36)
            assert np.array_equal(np.asarray(png(piece)), np.asarray(whole))


def test_frames_stand_upright(videos: Videos) -> None:
    (piece,) = frames(videos.path("rotated-90"), [0], (64, 64))
    assert png(piece).size == (36, 64)


def test_a_frame_that_is_not_there_leaves_the_others(videos: Videos) -> None:
    first, second = frames(videos.path("b-frames"), [10_000, 0], (64, 64))
    assert isinstance(first, MediaInvalid)
    assert png(second).size == (64, 36)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_an_image_stands_upright_and_fits(form: str) -> None:
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter
    source = source_of(Image.fromarray(picture(7)), form, exif=exif)
    (piece,) = thumbnails_maker.make({"box": [64, 64]}, [source])
    assert png(piece).size == (36, 64)


def test_images_of_all_depths_are_shown() -> None:
    deep = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
    for image in (deep, Image.new("1", (64, 64)), Image.new("LA", (64, 64)), Image.new("P", (64, 64))):
        (piece,) = thumbnails_maker.make({"box": [32, 32]}, [source_of(image, "PNG")])
        assert (png(piece).mode, png(piece).size) == ("RGB", (32, 32))


def test_an_image_is_described_by_its_bytes_and_as_displayed() -> None:
    exif = Image.Exif()
    exif[274] = 6
    source = source_of(Image.new("RGB", (40, 20)), "JPEG", exif=exif)
    (piece,) = image_maker.make({}, [source])
    assert isinstance(piece, bytes)
    assert image_maker.read_facts(piece) == image_maker.Picture("JPEG", 20, 40)


def test_what_is_no_image_is_refused() -> None:
    for make in (image_maker.make, thumbnails_maker.make):
        with pytest.raises(MediaInvalid):
            list(make({"box": [8, 8]}, [BytesSource(b"no image at all")]))
    for piece in (b"", b"\xc0", b"\x93\x01\x02"):
        with pytest.raises(MediaInvalid):
            image_maker.read_facts(piece)


def test_workers_find_both() -> None:
    assert MAKERS[image_maker.NAME].module == image_maker.__name__
    assert MAKERS[thumbnails_maker.NAME].module == thumbnails_maker.__name__
