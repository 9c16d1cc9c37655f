"""`.fusefs/frames/RECIPE`: the frames of videos as files of their own.

Every video is a directory in its place (`fusefs.views.mirror`), with its frames and `frames.json` in it
(`fusefs.views.frame_files`). Which files are videos is told by their extension, for listings; any other that
has a video in it is a directory for who names it. Looking into one makes its index, and nothing else.

Lives on the event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from fusefs.spaces import Space
from fusefs.tree_space import TreeSpace
from fusefs.views.frame_files import FIRST_FRAME, TABLE_ROW, FrameFiles, FramesInside
from fusefs.views.frame_store import FrameStore
from fusefs.views.mirror import Inside, MirrorSpace
from fusefs.views.view import Surroundings
from store.errors import MediaInvalid
from store.making.tasks import RowOrigin
from store.media.ordering import VIDEO, kind_of
from store.media.recipe import FramesRecipe, parse_frames

FILES_KEPT: Final = 1000
"""Directories. What is in them the store knows."""


def make_view(surroundings: Surroundings) -> FramesView:
    """See `fusefs.views.view`."""
    return FramesView(surroundings)


class FramesView:
    """The view `frames` of one mount."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._store = FrameStore(surroundings.engine)

    async def open(self, version: TreeSpace, recipe: str) -> MirrorSpace:
        """See `View`."""
        parsed = parse_frames(recipe)
        return MirrorSpace(
            version,
            self._surroundings,
            lambda mirror: Videos(mirror, self._store, parsed, self._surroundings),
        )


class Videos:
    """What becomes of a version's files: see `Rule`."""

    def __init__(
        self, mirror: MirrorSpace, store: FrameStore, recipe: FramesRecipe, surroundings: Surroundings
    ) -> None:
        self._mirror = mirror
        self._store = store
        self._recipe = recipe
        self._surroundings = surroundings
        self._files = lru_cache(FILES_KEPT)(self._make_files)
        self._told: dict[int, set[range]] = {}
        """By rows that anybody has looked into: the frames, in runs of places, that something was said of."""

    def shows(self, row: int) -> bool:
        """By the name's extension."""
        stem, dot, extension = self._mirror.tree.name(row).rpartition(b".")
        return bool(stem and dot) and _is_video(extension)

    async def admits(self, row: int) -> bool:
        """A file that libav finds a video in."""
        try:
            await self.enter(row)
        except MediaInvalid:
            return False
        return True

    async def enter(self, row: int) -> Inside | None:
        """The frames of a video. Raises `MediaInvalid` for what is none, and as `Maker.index` does."""
        if self._mirror.tree.is_directory(row):
            return None
        files = self._files(row)
        await files.video()
        return FramesInside(files)

    def space(self, row: int) -> Space:
        """See `Rule`."""
        return self._files(row)

    def _make_files(self, row: int) -> FrameFiles:
        origin, told = RowOrigin(self._mirror.files, row), self._told.setdefault(row, set())
        return FrameFiles(origin, self._recipe, self._store, self._mirror, self._surroundings, told)

    def inodes_of(self, rows: Sequence[int]) -> Sequence[int]:
        """See `ViewSpace`: of any other frame at most the name was told, and a size by the index."""
        inodes: list[int] = []
        for row in rows:
            told = self._told.get(row)
            if told is not None:
                self._store.forget(RowOrigin(self._mirror.files, row), self._recipe)
                first = self._mirror.first_inside(row)
                inodes.append(first + TABLE_ROW)
                inodes += (first + FIRST_FRAME + place for places in told for place in places)
        return inodes


@lru_cache(maxsize=1024)
def _is_video(extension: bytes) -> bool:
    return kind_of("x." + extension.decode("utf-8", "surrogateescape")) == VIDEO
