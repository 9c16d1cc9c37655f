"""Recipes as they stand in paths, keys of products, and the numbers of frames and chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import InputError
from store.media.encoding import FORMATS, LOSSY, Encoding
from store.media.key import product_key, sources_id
from store.media.numbering import Numbering, image_chunk_size
from store.media.ordering import ORDERS
from store.media.recipe import ChunksRecipe, FramesRecipe, Selection, parse_chunks, parse_frames

selections = st.builds(
    lambda start, step, more: Selection(start, step, None if more is None else start + more),
    st.integers(0, 10**6),
    st.integers(1, 10**6),
    st.none() | st.integers(0, 10**6),
)
sides = st.integers(1, 16384)
encodings = st.builds(
    lambda form, quality, scale, colour: Encoding(form, quality if form in LOSSY else 90, scale, colour),
    st.sampled_from(FORMATS),
    st.integers(1, 100),
    st.none() | st.tuples(sides, sides),
    st.sampled_from(["rgb", "gray"]),
)


@given(st.builds(FramesRecipe, encodings, selections))
def test_frames_recipes_come_back(recipe: FramesRecipe) -> None:
    assert parse_frames(str(recipe)) == recipe


@given(
    st.builds(
        ChunksRecipe,
        st.none() | st.integers(1, 10_000),
        st.sampled_from(ORDERS),
        st.integers(1, 100),
        selections,
        st.booleans(),
    )
)
def test_chunks_recipes_come_back(recipe: ChunksRecipe) -> None:
    assert parse_chunks(str(recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("jpg", "jpg"),
        ("jpg,quality=90,start=0,step=1", "jpg"),
        (
            "jpg,quality=80,scale=640x360,start=0,step=5,stop=2999",
            "jpg,quality=80,scale=640x360,step=5,stop=2999",
        ),
        ("npy,colour=gray,stop=0", "npy,colour=gray,stop=0"),
    ],
)
def test_one_spelling_for_one_meaning(text: str, canonical: str) -> None:
    assert str(parse_frames(text)) == canonical


def test_chunks_defaults_are_short() -> None:
    assert str(parse_chunks("auto,order=lexicographical,quality=70,zip=0")) == "auto"
    assert str(parse_chunks("36,order=natural,zip=1")) == "36,order=natural,zip=1"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "picture format"),
        ("jpeg", "jpg, png, bmp, npy, webp"),
        ("png,quality=3", "png has no quality"),
        ("jpg,quality=0", "1 to 100"),
        ("jpg,quality=090", "leading zeros"),
        ("jpg,step=2,start=1", "jpg,start=1,step=2"),
        ("jpg,step=0", "step is 1"),
        ("jpg,start=5,stop=4", "last frame"),
        ("jpg,scale=640", "WIDTHxHEIGHT"),
        ("jpg,scale=99999x1", "16384"),
        ("jpg,step=1,step=1", "twice"),
        ("jpg,size=3", "not one of its keys"),
        ("jpg,step=\u0663", "whole number"),
        ("jpg," * 100, "longer"),
    ],
)
def test_a_wrong_recipe_names_the_right_spelling(text: str, why: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_frames(text)
    assert why in str(raised.value)
    assert "FORMAT[,colour=gray]" in str(raised.value)
    assert len(str(raised.value)) < 700


@pytest.mark.parametrize(
    "text", ["", "0", "036", "auto,zip=2", "10001", "auto,order=random", "auto,quality=101"]
)
def test_wrong_chunks(text: str) -> None:
    with pytest.raises(InputError, match="auto or FRAMES"):
        parse_chunks(text)


@given(st.text(max_size=40))
def test_any_text_is_a_recipe_or_an_input_error(text: str) -> None:
    for parse in (parse_frames, parse_chunks):
        try:
            parse(text)
        except InputError:
            continue


def test_keys_are_what_they_were() -> None:
    oid = "d41d8cd98f00b204e9800998ecf8427e"
    assert product_key("frames", oid, "jpg", 0, "PyAV 1") == "a388c05d83c9d77c2467c6e77cd005a0"
    assert sources_id([("a", "b")]) == "c4fb26f50cb35859bf652b1691eb01b1"


def test_every_field_counts() -> None:
    keys = {
        product_key("frames", "a", "jpg", 0, "1"),
        product_key("chunks", "a", "jpg", 0, "1"),
        product_key("frames", "b", "jpg", 0, "1"),
        product_key("frames", "a", "png", 0, "1"),
        product_key("frames", "a", "jpg", 1, "1"),
        product_key("frames", "a", "jpg", 0, "2"),
        sources_id([("a", "bc")]),
        sources_id([("ab", "c")]),
        sources_id([("a", "b"), ("c", "")]),
    }
    assert len(keys) == 9


@pytest.mark.parametrize(
    ("size", "frames"),
    [
        ((1280, 720), 72),
        ((1920, 1080), 36),
        ((2592, 1944), 14),
        ((3840, 2160), 9),
        ((7680, 4320), 2),
        ((0, 0), 72),
    ],
)
def test_chunks_of_images_have_the_size_that_cvat_gives_them(size: tuple[int, int], frames: int) -> None:
    assert image_chunk_size(*size) == frames


@given(st.integers(0, 500), st.integers(1, 40), selections.filter(lambda chosen: chosen.start < 1000))
def test_chunks_hold_every_selected_frame_once(total: int, chunk_size: int, chosen: Selection) -> None:
    numbering = Numbering(total, chunk_size, chosen)
    frames = [frame for number in range(numbering.chunk_count) for frame in numbering.chunk(number)]
    last = total - 1 if chosen.stop is None else chosen.stop
    assert frames == [
        n for n in range(total) if chosen.start <= n <= last and (n - chosen.start) % chosen.step == 0
    ]
    for relative, absolute in enumerate(frames):
        chunk, offset = numbering.place(relative)
        assert numbering.absolute(relative) == absolute == numbering.chunk(chunk)[offset]
        assert numbering.relative(absolute) == relative == (absolute - chosen.start) // chosen.step


def test_frames_beyond_the_end() -> None:
    numbering = Numbering(10, 4, Selection(1, 2, 8))
    assert [list(numbering.chunk(n)) for n in range(numbering.chunk_count)] == [[1, 3, 5, 7]]
    for call in (numbering.absolute, numbering.place, numbering.chunk):
        for number in (-1, 4):
            with pytest.raises(IndexError):
                call(number)
    for absolute in (0, 2, 9):
        with pytest.raises(IndexError):
            numbering.relative(absolute)
