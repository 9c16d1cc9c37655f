"""The kinds of views, and the names that they have on a command line: `KIND:RECIPE`, such as `shards:1000`.

Callers: the command line, which must know a wrong spelling before anything is mounted, and the mount, where
a recipe is a name in `.fusefs/KIND`. What reads a recipe is imported when there is one to be read: it may
lead to numpy, and few mounts have a view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from store.errors import InputError

RECIPE_BYTES: Final = 200
"""No recipe is longer, and a name in a directory has 255 bytes."""


def _frames(text: str) -> object:
    from store.media.recipe import parse_frames

    return parse_frames(text)


def _chunks(text: str) -> object:
    from store.media.recipe import parse_chunks

    return parse_chunks(text)


def _shards(text: str) -> object:
    from store.shards.recipe import ShardsRecipe

    return ShardsRecipe.parse(text)


KINDS: Final[Mapping[str, Callable[[str], object]]] = {
    "chunks": _chunks,
    "frames": _frames,
    "shards": _shards,
}
"""What reads the recipes of a kind; `str` of it is the one spelling that all with that meaning share."""


def check_recipe(kind: str, text: str) -> str:
    """The recipe `text` of a known kind, if it is spelt as it has to be.

    Raises `InputError`, which names the right spelling.
    """
    shown = text if len(text) <= RECIPE_BYTES else f"{text[:RECIPE_BYTES]}…"
    recipe = str(KINDS[kind](text))
    if recipe != text:
        raise InputError(f"{shown!r} is not how a recipe for {kind} is spelt: write {recipe}")
    return recipe


def parse_view(text: str) -> str:
    """`KIND:RECIPE` in the recipe's one spelling. Raises ValueError, with the right spelling."""
    kind, colon, recipe = text.partition(":")
    if not colon or kind not in KINDS:
        kinds = ", ".join(KINDS)
        raise ValueError(f"{text!r} is not a view; views look like shards:1000, and kinds are {kinds}")
    try:
        return f"{kind}:{KINDS[kind](recipe)}"
    except InputError as error:
        raise ValueError(str(error)) from None
