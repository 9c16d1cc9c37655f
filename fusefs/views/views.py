"""`Views`: the views of a mount's version, opened when they are named and then kept.

`.fusefs/KIND` is a `RecipesSpace`: a name in it is a recipe and leads to the version that is at the root,
seen through it. After a switch the same name leads to a space of the new version; what is open stays. Lives
on the event loop.
"""

from __future__ import annotations

import contextlib
import logging
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pyfuse3
import trio

from fusefs.attributes import absent
from fusefs.control import DIRECTORY_SECONDS
from fusefs.journal import Journal
from fusefs.plain import ListedDirectory, PlainSpace
from fusefs.spaces import first_inode
from fusefs.tree_space import DOTS, TreeSpace
from fusefs.views.kinds import KINDS, RECIPE_BYTES, check_recipe
from fusefs.views.numbers import Numbers
from fusefs.views.view import Surroundings, View, ViewSpace, make_view
from store.engine import Engine
from store.errors import InputError, StoreError
from store.making.used_views import note_view
from store.tree_files import TreeFiles

log = logging.getLogger(__name__)

MOST_VIEWS: Final = 1000
"""Versions and recipes of one mount."""


class Views:
    """Opens views of versions. `shown` tells which version is at the root; None: there is none."""

    def __init__(
        self,
        engine: Engine,
        numbers: Numbers,
        journal: Journal,
        shown: Callable[[], TreeSpace | None],
        *,
        uid: int,
        gid: int,
        umask: int,
        place: int = 0,
    ) -> None:
        """`place` tells them from other views of the mount."""
        self._journal = journal
        self._place = place
        self._surroundings = Surroundings(engine, numbers, uid, gid, umask)
        self._shown = shown
        self._opening = {kind: trio.Lock() for kind in KINDS}
        self._kinds: dict[str, View] = {}
        self._opened: dict[tuple[TreeFiles, str, str, bool], ViewSpace] = {}
        self.directories = {
            kind.encode(): RecipesSpace(kind, self, numbers, uid=uid, gid=gid) for kind in KINDS
        }
        """The directories of recipes, by name."""

    async def open(self, version: TreeSpace, kind: str, recipe: str, *, at_root: bool = False) -> ViewSpace:
        """A version as `recipe` wants it, for the root of the mount or for its place in `.fusefs`.

        Raises `InputError` for what is not a recipe, and `StoreError`.
        """
        key = (version.files, kind, check_recipe(kind, recipe), at_root)
        async with self._opening[kind]:  # it may take a while: the other kinds need not wait
            space = self._opened.get(key)
            if space is None:
                if len(self._opened) >= MOST_VIEWS:
                    raise StoreError(f"this mount has shown {MOST_VIEWS} views already; mount it anew")
                if kind not in self._kinds:
                    self._kinds[kind] = await make_view(kind, self._surroundings)
                space = await self._kinds[kind].open(version, recipe)
                self._journal.append(
                    "view",
                    number=space.number,
                    following=self._surroundings.numbers.following,
                    place=self._place,
                    version=version.number,
                    kind=kind,
                    recipe=recipe,
                    at_root=at_root,
                )
                self._opened[key] = space
                if kind != "shards":  # of which nothing is kept
                    engine = self._surroundings.engine
                    with contextlib.suppress(StoreError):
                        cache = engine.settings.caches[0]
                        await engine.threads.on_disk(note_view, cache, f"{kind}:{recipe}")
        return space

    async def open_again(self, version: TreeSpace, values: Mapping[str, Any]) -> None:
        """What the journal says of a view that a daemon before us has opened. Raises `StoreError`."""
        numbers = self._surroundings.numbers
        numbers.move_to(values["number"])
        try:
            space = await self.open(version, values["kind"], values["recipe"], at_root=values["at_root"])
            assert (space.number, numbers.following) == (values["number"], values["following"])
        finally:
            numbers.move_to(values["following"])

    def shown(self) -> TreeSpace | None:
        """The version at the root."""
        return self._shown()

    def opened(self, kind: str) -> dict[str, ViewSpace]:
        """What is open in `.fusefs` of the version at the root, by recipe."""
        shown = self._shown()
        return {
            recipe: space
            for (files, of_kind, recipe, at_root), space in self._opened.items()
            if shown is not None and files is shown.files and of_kind == kind and not at_root
        }

    def inodes_of(self, files: TreeFiles, rows: Sequence[int]) -> list[int]:
        """The inodes of views that are made of these rows of a version."""
        found = [space.inodes_of(rows) for (of, *_), space in self._opened.items() if of is files]
        return [inode for inodes in found for inode in inodes]

    def names(self) -> list[tuple[int, bytes]]:
        """The names in `.fusefs` that lead elsewhere after a switch, with the inode of their directory."""
        named = {(kind, recipe) for _, kind, recipe, at_root in self._opened if not at_root}
        return [(self.directories[kind.encode()].inode, recipe.encode()) for kind, recipe in named]


class RecipesSpace(PlainSpace):
    """The directory of one kind. Row 0, and no other: what is in it are spaces of their own."""

    def __init__(self, kind: str, views: Views, numbers: Numbers, *, uid: int, gid: int) -> None:
        self._kind = kind
        self._views = views
        self._uid = uid
        self._gid = gid
        self.inode = first_inode(numbers.take(lambda _: self))

    def directory(self) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(self.inode)
        entry.st_uid, entry.st_gid = self._uid, self._gid
        entry.st_mode, entry.st_nlink = pyfuse3.ModeT(stat.S_IFDIR | 0o555), 2
        entry.entry_timeout = entry.attr_timeout = DIRECTORY_SECONDS
        return entry

    async def lookup(self, row: int, name: bytes) -> pyfuse3.EntryAttributes:
        if name in DOTS:  # asked for only when the mount is exported by NFS
            return self.directory()
        version = self._views.shown()
        if version is None or len(name) > RECIPE_BYTES:
            return _unknown()
        try:
            space = await self._views.open(version, self._kind, name.decode("utf-8", "replace"))
        except InputError as error:
            if not name.startswith(b"."):  # shells look for .git wherever they are
                log.warning("%s", error)
            return _unknown()
        return _named(space, DIRECTORY_SECONDS)

    async def getattr(self, row: int) -> pyfuse3.EntryAttributes:
        return self.directory()

    def opendir(self, row: int) -> ListedDirectory:
        entries = [
            (recipe.encode(), _named(space, 0.0)) for recipe, space in self._views.opened(self._kind).items()
        ]
        return ListedDirectory([(b".", self.directory()), (b"..", self.directory()), *entries])

    def capacity(self) -> tuple[int, int]:
        return 0, len(self._views.opened(self._kind))


def _named(space: ViewSpace, seconds: float) -> pyfuse3.EntryAttributes:
    """A view's directory, under a name that holds for so long."""
    entry = space.directory()
    entry.entry_timeout = seconds
    return entry


def _unknown() -> pyfuse3.EntryAttributes:
    entry = absent()
    entry.entry_timeout = DIRECTORY_SECONDS
    return entry
