"""Pictures as files: right, the same every time, and of the length that was foretold."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from store.errors import InputError, MediaInvalid
from store.media.encode import encode, encoder
from store.media.encoding import EXACT, FORMATS, GRAY, LOSSY, RGB, Encoding, exact_size
from tests.store.media.videos import picture


def decoded(data: bytes, form: str) -> np.ndarray:
    if form == "npy":
        array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
        return array
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("form", [form for form in FORMATS if form not in LOSSY])
def test_lossless_formats_keep_every_pixel(form: str) -> None:
    image = picture(5)
    assert np.array_equal(decoded(encode(image, Encoding(form)), form), image)
    gray = decoded(encode(image, Encoding(form, colour=GRAY)), form)
    assert np.array_equal(gray, np.asarray(Image.fromarray(image).convert("L")))


@pytest.mark.parametrize("form", LOSSY)
def test_quality_is_heeded(form: str) -> None:
    image = picture(5)
    sizes = [len(encode(image, Encoding(form, quality))) for quality in (1, 50, 90, 100)]
    assert sizes == sorted(set(sizes))
    error = np.abs(decoded(encode(image, Encoding(form, 100)), form).astype(int) - image).mean()
    assert error < 16
    kind = Image.open(io.BytesIO(encode(image, Encoding(form)))).format
    assert kind == {"jpg": "JPEG", "webp": "WEBP"}[form]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("colour", [RGB, GRAY])
def test_the_same_picture_gives_the_same_bytes(form: str, colour: str) -> None:
    encoding = Encoding(form, scale=(50, 31), colour=colour)
    assert encode(picture(9), encoding) == encode(picture(9).copy(), encoding)


@pytest.mark.parametrize("form", FORMATS)
def test_pictures_are_scaled(form: str) -> None:
    data = encode(picture(2), Encoding(form, scale=(40, 30)))
    assert decoded(data, form).shape == (30, 40, 3)


@settings(deadline=None)
@given(
    st.sampled_from(EXACT),
    st.sampled_from([RGB, GRAY]),
    st.integers(1, 90),
    st.integers(1, 90),
    st.none() | st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_exact_sizes_are_those_of_the_files(
    form: str, colour: str, width: int, height: int, scale: tuple[int, int] | None
) -> None:
    encoding = Encoding(form, scale=scale, colour=colour)
    data = encode(np.zeros((height, width, 3), np.uint8), encoding)
    assert exact_size(encoding, width, height) == len(data)
    width, height = scale or (width, height)
    assert decoded(data, form).shape[:2] == (height, width)


def test_other_sizes_are_not_guessed() -> None:
    for form in set(FORMATS) - set(EXACT):
        assert exact_size(Encoding(form), 10, 10) is None


def test_a_numpy_file_can_be_mapped(tmp_path: object) -> None:
    data = encode(picture(1), Encoding("npy"))
    assert len(data) == 128 + 128 * 72 * 3
    assert np.array_equal(np.frombuffer(data, np.uint8, offset=128).reshape(72, 128, 3), picture(1))


def test_turned_pictures_are_encoded_as_they_look() -> None:
    turned = np.rot90(picture(4))
    assert np.array_equal(decoded(encode(turned, Encoding("png")), "png"), turned)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"form": "tiff"}, "jpg, png, bmp, npy, webp"),
        ({"quality": 0}, "from 1 to 100"),
        ({"quality": 101}, "from 1 to 100"),
        ({"scale": (0, 10)}, "1 to 16384"),
        ({"scale": (60_000, 60_000)}, "60000x60000"),
        ({"colour": "cmyk"}, "rgb and gray"),
    ],
)
def test_what_cannot_be_is_said(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Encoding(**wrong)  # type: ignore[arg-type]


def test_pictures_that_are_too_large_are_refused_before_anything_is_made() -> None:
    huge = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (60_000, 60_000, 3))
    with pytest.raises(MediaInvalid, match="60000x60000"):
        encode(huge, Encoding("png"))
    wide = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (1, 17_000, 3))
    with pytest.raises(MediaInvalid, match="webp holds sides of 16383"):
        encode(wide, Encoding("webp"))


def test_the_encoder_has_a_name() -> None:
    assert encoder().startswith("Pillow ")
    assert encoder() == encoder()
