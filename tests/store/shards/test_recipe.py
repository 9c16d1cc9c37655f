"""A recipe for shards has one spelling, and every other one is told which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import InputError
from store.shards.recipe import MOST_SAMPLES, SEED_MAX, ShardsRecipe


@given(st.integers(1, MOST_SAMPLES), st.none() | st.integers(0, SEED_MAX))
def test_what_is_written_is_read(samples: int, seed: int | None) -> None:
    recipe = ShardsRecipe(samples, seed)
    assert ShardsRecipe.parse(str(recipe)) == recipe


def test_spelling() -> None:
    assert ShardsRecipe.parse("1000") == ShardsRecipe(1000)
    assert ShardsRecipe.parse("1,shuffle=0") == ShardsRecipe(1, 0)
    assert str(ShardsRecipe(36, SEED_MAX)) == f"36,shuffle={SEED_MAX}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write <samples per shard>[,shuffle=SEED]"),
        ("ten", "such as 1000 or 1000,shuffle=7"),
        ("1000,", "such as 1000"),
        ("1000,shuffle", "such as 1000"),
        ("1000,shuffle=", "such as 1000"),
        ("1000, shuffle=7", "such as 1000"),
        ("1000,seed=7", "such as 1000"),
        ("1000,shuffle=7,shuffle=8", "such as 1000"),
        ("-1", "such as 1000"),
        ("1_000", "such as 1000"),
        ("1000\n", "such as 1000"),
        ("١٠", "such as 1000"),
        ("9" * 5000, "such as 1000"),
        ("01000", "write 1000"),
        ("10,shuffle=007", "write 10,shuffle=7"),
        ("0", "there must be 1 to"),
        (str(MOST_SAMPLES + 1), "there must be 1 to"),
        (f"1,shuffle={SEED_MAX + 1}", "the seed must be from 0 to"),
    ],
)
def test_what_is_no_recipe_is_told_the_right_spelling(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        ShardsRecipe.parse(text)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 250
