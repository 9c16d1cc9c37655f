"""`.fusefs/chunks/RECIPE`: videos and folders of images as CVAT cuts them into chunks.

Every directory of a version is one here (`fusefs.views.mirror`), and so is every video; where there is a
frame in it or below, it has a manifest and chunks (`fusefs.views.chunk_files`). Which files are videos and
images is told by their extensions, as CVAT does. Lives on the event loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fusefs.tree_space import TreeSpace
from fusefs.views.chunk_contents import FIRST_CHUNK
from fusefs.views.chunk_files import ChunkFiles, ChunksInside
from fusefs.views.chunk_store import ChunkStore
from fusefs.views.mirror import Inside, MirrorSpace
from fusefs.views.view import Surroundings
from store.making.cvat_sources import is_video
from store.media.recipe import ChunksRecipe, parse_chunks
from store.tree import ROOT_ROW


def make_view(surroundings: Surroundings) -> ChunksView:
    """See `fusefs.views.view`."""
    return ChunksView(surroundings)


class ChunksView:
    """The view `chunks` of one mount."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._store = ChunkStore(surroundings.engine)

    async def open(self, version: TreeSpace, recipe: str) -> ChunksSpace:
        """See `View`."""
        parsed = parse_chunks(recipe)
        return ChunksSpace(
            version,
            self._surroundings,
            lambda mirror: ChunkRule(mirror, self._store, parsed, self._surroundings),
        )


class ChunksSpace(MirrorSpace):
    """A version's directories with their chunks."""

    def root_names(self) -> Iterator[bytes]:
        """See `ViewSpace`."""
        yield from super().root_names()
        assert isinstance(self.rule, ChunkRule)
        yield from self.rule.inside(ROOT_ROW).names()


class ChunkRule:
    """What becomes of a version's files: see `Rule`."""

    def __init__(
        self, mirror: MirrorSpace, store: ChunkStore, recipe: ChunksRecipe, surroundings: Surroundings
    ) -> None:
        self._mirror = mirror
        self._store = store
        self._recipe = recipe
        self._surroundings = surroundings
        self._entered: set[int] = set()
        """Rows that anybody has looked into."""

    def shows(self, row: int) -> bool:
        """By the name's extension."""
        return is_video(self._mirror.tree, row)

    async def admits(self, row: int) -> bool:
        """None: CVAT goes by extensions."""
        return False

    async def enter(self, row: int) -> Inside | None:
        """The chunks of a video, or of a directory with frames below."""
        if self._mirror.tree.is_directory(row) and not await self._store.has_frames(self._mirror.files, row):
            return None
        self._entered.add(row)
        return self.inside(row)

    def inside(self, row: int) -> ChunksInside:
        """What is in the directory of a row that has chunks."""
        return ChunksInside(self.space(row), self._mirror, row)

    def space(self, row: int) -> ChunkFiles:
        """A new one each time: what it knows is in the store."""
        return ChunkFiles(row, self._recipe, self._store, self._mirror, self._surroundings)

    def inodes_of(self, rows: Sequence[int]) -> Sequence[int]:
        """All files of the videos among the rows, and of the directories above them, that anybody has looked
        into."""
        tree, touched = self._mirror.tree, set()
        for row in rows:
            while row not in touched:
                touched.add(row)
                row = tree.parent[row]
        inodes: list[int] = []
        for row in sorted(touched & self._entered):
            count = self._store.forget(self._mirror.files, row, self._recipe)
            first = self._mirror.first_inside(row)
            inodes += range(first, first + FIRST_CHUNK + 2 * count)
        return inodes
