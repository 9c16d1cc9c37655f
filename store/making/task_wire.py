"""A `Task` as plain values: to be made elsewhere, by a process with an engine of its own.

A file is named by its oid and size, so whoever makes the task needs neither the version nor its repository:
caches and remotes have files by their oids. What a task's bytes follow from besides is this process's code
and libraries: `environment` names them, and two processes agree on products only where they agree on it.

Pure, but for `OidOrigin`, which belongs to the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from store.content_store import ContentStore
from store.fetcher import Source
from store.fetching.remote_set import RemoteSet
from store.making.tasks import Origin, Task
from store.media.containers import DECODER
from store.media.encode import encoder
from store.oid import Oid
from store.open_objects import OpenObject
from store.tree import UNKNOWN

Known = Callable[[Origin], int]
"""The size of an origin as far as it is known, or `UNKNOWN`."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where origins that are named by oid are read from."""

    store: ContentStore
    source: Source | None = None
    remotes: RemoteSet | None = None


@dataclass(frozen=True, slots=True)
class OidOrigin:
    """A file by its oid."""

    oid: Oid
    name: str
    length: int = field(compare=False)
    """Bytes, or `UNKNOWN`."""
    home: Home = field(compare=False, repr=False)

    @property
    def remotes(self) -> RemoteSet | None:
        return self.home.remotes

    async def size(self) -> int:
        if self.length != UNKNOWN:
            return self.length
        opened = await self.open()
        try:
            return opened.size
        finally:
            self.home.store.close(opened)

    async def open(self) -> OpenObject:
        home = self.home
        return await home.store.open(self.oid, self.length, home.source, home.remotes)

    async def read(self, opened: OpenObject, offset: int, length: int) -> bytes | memoryview:
        return await self.home.store.read(opened, offset, length)


def environment() -> str:
    """The libraries that pictures follow from."""
    return f"{DECODER}, {encoder()}"


def task_to_wire(task: Task, known: Known) -> dict[str, Any]:
    """Plain values, for msgpack and pickle. What a reader may want next is left out."""
    return {
        "maker": task.maker,
        "version": task.version,
        "recipe": task.recipe,
        "origins": [
            [origin.oid.algorithm, str(origin.oid), origin.name, known(origin)] for origin in task.origins
        ],
        "chunk": task.chunk,
        "arguments": dict(task.arguments),
        "pieces": task.pieces,
        "needs": [task_to_wire(needed, known) for needed in task.needs],
    }


def task_from_wire(fields: Mapping[str, Any], home: Home) -> Task:
    """The same task, of files that are read from `home`."""
    origins = tuple(
        OidOrigin(Oid.parse(oid, algorithm), name, length, home)
        for algorithm, oid, name, length in fields["origins"]
    )
    needs = tuple(task_from_wire(needed, home) for needed in fields["needs"])
    return Task(
        fields["maker"],
        fields["version"],
        fields["recipe"],
        origins,
        fields["chunk"],
        fields["arguments"],
        fields["pieces"],
        needs,
    )
