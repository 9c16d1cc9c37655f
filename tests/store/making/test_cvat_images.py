"""What is made of images for chunks: members in their order, sizes as displayed, checksums of zips."""

from __future__ import annotations

import io
import random
import zlib

import pytest
from PIL import Image

from store.errors import MediaInvalid, ObjectCorrupt
from store.making.cvat_images import (
    checksum_members,
    make_members,
    measure_images,
    sizes_of,
)
from store.media.images import compressed_member
from store.media.zips import checksums_of
from tests.store.making.test_cvat_video import unpacked
from tests.store.media.sources import BytesSource, FailingSource


def picture(size: tuple[int, int], orientation: int = 1, form: str = "JPEG") -> bytes:
    image = Image.new("RGB", size, (10, 200, 30))
    file = io.BytesIO()
    exif = Image.Exif()
    exif[274] = orientation
    image.save(file, form, exif=exif)
    return file.getvalue()


def test_members_in_their_order() -> None:
    sources = [BytesSource(picture((20 + n, 10), 6), f"{n}.jpg") for n in range(3)]
    members = unpacked(make_members({"quality": 60}, sources))
    assert members == [compressed_member(source, 60) for source in sources]
    assert [Image.open(io.BytesIO(member)).size for member in members] == [(10, 20), (10, 21), (10, 22)]


def test_a_member_that_is_no_image_is_an_error() -> None:
    sources = [BytesSource(picture((4, 4)), "a.png"), BytesSource(b"no picture", "b.png")]
    making = make_members({"quality": 60}, sources)
    next(making)
    with pytest.raises(MediaInvalid, match=r"b\.png"):
        next(making)


def test_sizes_as_displayed_and_none_of_what_is_broken() -> None:
    contents = [picture((20, 10)), picture((20, 10), 8), b"nothing", picture((3, 5), 3, "PNG")]
    (piece,) = measure_images({}, [BytesSource(content) for content in contents])
    assert sizes_of(piece) == [(20, 10), (10, 20), (0, 0), (3, 5)]


def test_checksums() -> None:
    contents = [b"", b"abc", random.Random(1).randbytes((1 << 20) + 77)]
    (piece,) = checksum_members({}, [BytesSource(content) for content in contents])
    assert checksums_of(piece) == tuple(map(zlib.crc32, contents))


@pytest.mark.parametrize("make", [measure_images, checksum_members])
def test_a_source_that_fails_is_not_taken_for_a_broken_image(make: type) -> None:
    with pytest.raises(ObjectCorrupt):
        list(make({}, [FailingSource(picture((20, 10)), 10)]))
