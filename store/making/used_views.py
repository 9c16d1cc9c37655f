"""Which views a cache has products of, so that people can be told what is there: `fusefs media`.

A product's key says nothing of what it is made of, so whoever makes a view's products notes the view in the
file `fusefs/views` of the cache, a line each: `frames:jpg`. What is not in that list is merely not told of.

Blocking; any thread.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from store.fetching.arrivals import OURS
from store.ownership import OPEN_DIRECTORY, Ownership

NAME: Final = "views"
MOST_BYTES: Final = 64 << 10
"""Of the list: some hundred views. More are not noted."""


def note_view(cache: Path, view: str) -> None:
    """Note a view, whose recipe is in its one spelling. A cache that takes nothing is left alone."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        root = os.open(cache, OPEN_DIRECTORY & ~os.O_NOFOLLOW)
        stack.callback(os.close, root)
        ownership = Ownership.of_directory(root, shared_with_group=False)
        ours = ownership.open_directory(OURS, root, create=True)
        stack.callback(os.close, ours)
        file = ownership.open_own_file(NAME, ours)
        stack.callback(os.close, file)
        noted = os.pread(file, MOST_BYTES, 0)
        line = view.encode() + b"\n"
        if line not in noted.splitlines(keepends=True) and len(noted) + len(line) <= MOST_BYTES:
            os.pwrite(file, line, len(noted))


def noted_views(cache: Path) -> list[str]:
    """The views that were noted, each once; whoever reads them checks how they are spelt."""
    try:
        with (cache / OURS / NAME).open("rb") as file:
            lines = file.read(MOST_BYTES).split(b"\n")
    except OSError:
        return []
    return sorted({line.decode("ascii", "replace") for line in lines if line})
