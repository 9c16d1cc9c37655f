"""Files as origins of products, and an engine's maker for tests."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from store.errors import RemoteUnreachable
from store.making.maker import Maker
from store.making.makers import MAKERS, Registered
from store.making.tasks import Task
from store.oid import Oid
from store.open_objects import OpenFile, OpenObject
from store.threads import Threads

SECONDS = 120.0
BAD = "tests.store.making.bad_makers"
ALL_MAKERS: Mapping[str, Registered] = {
    **MAKERS,
    **{
        name: Registered(BAD, name, goes_on=name in ("slow", "paced"))
        for name in (
            "words",
            "slow",
            "paced",
            "crash",
            "hang",
            "devour",
            "raise_bug",
            "refuse",
            "escape",
            "copy",
            "flood",
            "chatter",
        )
    },
}


@dataclass(frozen=True)
class FileOrigin:
    """A local file."""

    path: Path

    @property
    def oid(self) -> Oid:
        return Oid(hashlib.md5(self.path.read_bytes(), usedforsecurity=False).hexdigest())

    @property
    def name(self) -> str:
        return self.path.name

    async def size(self) -> int:
        return self.path.stat().st_size

    async def open(self) -> OpenObject:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return OpenFile(self.oid, descriptor, os.fstat(descriptor).st_size)

    async def read(self, opened: OpenObject, offset: int, length: int) -> bytes | memoryview:
        assert isinstance(opened, OpenFile)
        return os.pread(opened.descriptor, length, offset)


class FarObject:
    """Bytes that are fetched as they are read; after `fails_after` of them there are no more."""

    def __init__(self, origin: FarOrigin) -> None:
        self._origin = origin
        self.oid = origin.oid
        self.size = len(origin.data)

    async def read(self, offset: int, length: int) -> bytes | memoryview:
        origin = self._origin
        if origin.read_bytes[0] + length > origin.fails_after[0]:
            raise RemoteUnreachable(f"{origin.name} is out of reach")
        origin.read_bytes[0] += length
        return memoryview(origin.data)[offset : offset + length]

    async def bring(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._origin.closed.append(True)


@dataclass(frozen=True)
class FarOrigin:
    """A file of a remote."""

    data: bytes = field(repr=False)
    name: str = "far.mp4"
    fails_after: list[int] = field(default_factory=lambda: [1 << 62])
    read_bytes: list[int] = field(default_factory=lambda: [0])
    closed: list[bool] = field(default_factory=list)

    @property
    def oid(self) -> Oid:
        return Oid(hashlib.md5(self.data, usedforsecurity=False).hexdigest())

    async def size(self) -> int:
        return len(self.data)

    async def open(self) -> OpenObject:
        return FarObject(self)

    async def read(self, opened: OpenObject, offset: int, length: int) -> bytes | memoryview:
        assert isinstance(opened, FarObject)
        return await opened.read(offset, length)


@dataclass(frozen=True)
class PacedOrigin(FarOrigin):
    """A file that may be read from as often as a test says, and whose readers wait for that."""

    left: list[int] = field(default_factory=lambda: [0])

    async def read(self, opened: OpenObject, offset: int, length: int) -> bytes | memoryview:
        while not self.left[0]:
            await trio.sleep(0.01)
        self.left[0] -= 1
        return await super().read(opened, offset, length)


@contextlib.asynccontextmanager
async def maker_at(cache: Path, **settings: Any) -> AsyncIterator[Maker]:
    """A maker over a cache, with one worker, which knows the makers of `bad_makers` as well."""
    settings = {"makers": ALL_MAKERS, "workers": 1, **settings}
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            maker = Maker(cache, Threads(), nursery, **settings)
            try:
                yield maker
                await maker.drain()
            finally:
                maker.close()
                nursery.cancel_scope.cancel()


async def settled(made: Maker) -> None:
    """Wait until all that was begun is made and in its place."""
    while made._flights or made._publishing.is_busy:
        await trio.sleep(0.01)


def task_of(maker: str, path: Path, *, pieces: int = 3, chunk: int = 0, **arguments: object) -> Task:
    """A task for one of `bad_makers`."""
    return Task(maker, "1", "", (FileOrigin(path),), chunk, {"pieces": pieces, **arguments}, pieces)
