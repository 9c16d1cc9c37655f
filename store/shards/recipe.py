"""`ShardsRecipe`: how a version is cut into tar shards, as it stands in a path: `1000` or `1000,shuffle=7`.

A recipe has one spelling, so that one set of shards has one name. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from store.errors import InputError

MOST_SAMPLES: Final = 1_000_000_000
"""Samples of a shard: more than any version has."""
SEED_MAX: Final = (1 << 64) - 1
SPELLING: Final = "<samples per shard>[,shuffle=SEED], such as 1000 or 1000,shuffle=7"

_SHOWN: Final = 80
_RECIPE = re.compile(r"([0-9]{1,40})(?:,shuffle=([0-9]{1,40}))?")


@dataclass(frozen=True, slots=True)
class ShardsRecipe:
    """`samples` a shard, at least 1; shuffled with the `seed` (64 bits), in the tree's order without."""

    samples: int
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise InputError(f"{self.samples} samples a shard: there must be 1 to {MOST_SAMPLES}")
        if self.seed is not None and not 0 <= self.seed <= SEED_MAX:
            raise InputError(f"shuffle={self.seed}: the seed must be from 0 to {SEED_MAX}")

    @classmethod
    def parse(cls, text: str) -> ShardsRecipe:
        """Read a recipe. Raises `InputError`, which names the right spelling, for what is not one."""
        match = _RECIPE.fullmatch(text)
        if match is None:
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
            raise InputError(f"{shown!r} is not a recipe for shards: write {SPELLING}")
        recipe = cls(int(match[1]), None if match[2] is None else int(match[2]))
        if str(recipe) != text:
            raise InputError(f"{text!r} is not how a recipe for shards is spelt: write {recipe}")
        return recipe

    def __str__(self) -> str:
        return f"{self.samples}" if self.seed is None else f"{self.samples},shuffle={self.seed}"
