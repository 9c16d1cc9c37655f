"""`Task`: one product that is to be made, and all that it follows from.

Callers: the views and commands, which describe what they want; `maker` makes it or finds it kept. A task is
frozen, and its `key` is what the product is kept by: two machines that describe the same name the same.

Thread rule: origins belong to the event loop; everything else to anyone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from store.media.key import product_key, sources_id
from store.oid import Oid

if TYPE_CHECKING:  # makers describe tasks beside their work, and a worker has no loop
    from store.fetching.remote_set import RemoteSet
    from store.open_objects import OpenObject
    from store.tree_files import TreeFiles


class Origin(Protocol):
    """A file of a version that something is made of. On the event loop."""

    @property
    def oid(self) -> Oid: ...

    @property
    def name(self) -> str:
        """Its path in the version, for messages and to guess a kind by its suffix."""

    async def size(self) -> int:
        """Its length in bytes. Raises `StoreError`."""

    async def open(self) -> OpenObject:
        """To be closed by whoever opened it (`OpenObject.close`). Raises `StoreError`."""

    async def read(self, opened: OpenObject, offset: int, length: int) -> bytes | memoryview:
        """Bytes of it, as `ContentStore.read` returns them. Raises `StoreError`."""


@runtime_checkable
class HasRemotes(Protocol):
    """An origin of a version that has remotes, which may have products, too."""

    @property
    def remotes(self) -> RemoteSet | None: ...


@dataclass(frozen=True, slots=True)
class RowOrigin:
    """A row of a tree."""

    files: TreeFiles
    row: int

    @property
    def oid(self) -> Oid:
        return self.files.tree.oid(self.row)

    @property
    def remotes(self) -> RemoteSet | None:
        return self.files.remotes

    @property
    def name(self) -> str:
        return self.files.tree.path(self.row)

    async def size(self) -> int:
        return await self.files.size(self.row)

    async def open(self) -> OpenObject:
        return await self.files.open(self.row)

    async def read(self, opened: OpenObject, offset: int, length: int) -> bytes | memoryview:
        return await self.files.read(self.row, opened, offset, length)


class Series(Protocol):
    """Tasks that a reader may go through one after the other: the chunks of a video."""

    def task(self, chunk: int) -> Task | None:
        """The task of a chunk; None beyond the last one."""

    def run_of(self, chunk: int) -> int:
        """Which chunks are made best by one worker, one after the other, since what was done for the one
        serves the next: those of the same run. Runs are numbered in the order of their chunks."""


@dataclass(frozen=True, slots=True)
class Task:
    """A product: an ordered list of pieces, each some bytes.

    The frames of a chunk are its pieces, the members of a zip, or the one piece that is an MP4.
    """

    maker: str
    """Its name in `store.making.makers`."""
    version: str
    """Of the maker, and of the decoders and encoders that its bytes follow from."""
    recipe: str
    """The canonical spelling; empty where there is none."""
    origins: tuple[Origin, ...]
    """What it is made of, in order. Their names change nothing of it; what must is part of the recipe."""
    chunk: int = 0
    arguments: Mapping[str, object] = field(default_factory=dict, compare=False)
    """What the maker is told beside, msgpack-able and small. It follows from what the key is made of."""
    pieces: int = 0
    """How many the maker makes; 0: not known before."""
    needs: tuple[Task, ...] = field(default=(), compare=False)
    """Products of one piece that the maker reads as further sources, behind the origins: a video's index.
    They follow from the origins."""
    series: Series | None = field(default=None, compare=False)
    """What a reader of this one may want next; it is made ahead."""
    key: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.origins) == 1:
            source = _name(self.origins[0].oid)
        else:
            # Without their names: what a folder has been made to holds wherever it is mounted or moved.
            source = sources_id(("", _name(origin.oid)) for origin in self.origins)
        key = product_key(self.maker, source, self.recipe, self.chunk, self.version)
        object.__setattr__(self, "key", key)

    def __str__(self) -> str:
        """For messages."""
        of = self.origins[0].name if self.origins else "nothing"
        if len(self.origins) > 1:
            of += f" and {len(self.origins) - 1} more"
        return f"{self.maker} {self.recipe or '-'} {self.chunk} of {of!r}"


def remotes_of(task: Task) -> RemoteSet | None:
    """The remotes of the version that a task's files are of; None for none."""
    found = (origin.remotes for origin in task.origins if isinstance(origin, HasRemotes))
    return next(found, None)


def _name(oid: Oid) -> str:
    return f"{oid.algorithm}:{oid}"
