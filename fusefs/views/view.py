"""`View`: a way to show a version in another shape, and `ViewSpace`, what comes of it for one recipe.

A kind of view is a module with a function `make_view(surroundings) -> View` (`MODULES`), imported when the
first of its recipes is named. For every version and recipe it opens a space, whose row 0 is the directory
`.fusefs/KIND/RECIPE`, or the mount's root (`--view`).

What holds for trees holds here: under an inode name, size and bytes never change, an entry whose size is not
known is listed with a timeout of zero, and a listing makes nothing. Lives on the event loop.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast

import pyfuse3

from fusefs.spaces import Space
from fusefs.tree_space import TreeSpace
from fusefs.views.numbers import Numbers
from store.engine import Engine
from store.errors import StoreError

MODULES: Final[Mapping[str, str]] = {
    "chunks": "fusefs.views.chunks",
    "frames": "fusefs.views.frames",
    "shards": "fusefs.views.shards",
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a view of a mount has to work with. `uid`, `gid` and `umask` shape what `stat` shows."""

    engine: Engine
    numbers: Numbers
    uid: int
    gid: int
    umask: int


class ViewSpace(Space, Protocol):
    """A version in another shape. Its directory is row 0."""

    @property
    def number(self) -> int:
        """Its own, the first one that it took."""

    def directory(self) -> pyfuse3.EntryAttributes:
        """The attributes of row 0, a new object: whoever names it sets how long the name holds."""

    def root_names(self) -> Iterable[bytes]:
        """The names in row 0 that the kernel may have been told of: they are outdated when it has been at the
        root and another version comes there."""

    def supersede(self) -> None:
        """Another version is shown at the root now: entries of a listing of row 0 that is still being read
        must not be kept (a timeout of zero)."""

    def restore(self) -> None:
        """It is shown at the root (again)."""

    def inodes_of(self, rows: Sequence[int]) -> Sequence[int]:
        """The inodes whose bytes or size are made of these rows of the tree: those bytes may have been wrong,
        or the sizes that were told, and the kernel is to forget them.

        What the space itself remembers of them it forgets. What is open and would go on with bytes that
        do not fit those of now must fail: the kernel keeps one set of pages for all who have it open.
        On the loop, so it must not take long.
        """


class View(Protocol):
    """One kind of view in one mount."""

    async def open(self, version: TreeSpace, recipe: str) -> ViewSpace:
        """The version as `recipe` wants it, which is spelt as it has to be (`fusefs.views.kinds`).

        A new space at every call: the caller keeps it, one for each place where it stands.
        Raises `StoreError`.
        """


class _Module(Protocol):
    def make_view(self, surroundings: Surroundings) -> View: ...


async def make_view(kind: str, surroundings: Surroundings) -> View:
    """The view of a kind. Raises `StoreError`, also where what it needs is not installed."""
    try:  # in a thread: decoders are large
        module = await surroundings.engine.threads.on_disk(importlib.import_module, MODULES[kind])
    except ImportError as error:
        raise StoreError(f"{kind} cannot be shown: {error}") from None
    return cast(_Module, module).make_view(surroundings)
