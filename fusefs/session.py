"""`Session`: an open version for Python code without a mount: its names, sizes and bytes.

What a daemon is to a mount, on a loop in this process: the same cache, fetcher, deadlines and rules, by the
same engine. Names and digests are asked of the tree in any thread; the rest goes through the loop. Whole
objects that are open are read in the caller's thread.

Thread rule: methods may be called by any thread but the loop's, and wait; coroutines belong to the loop.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from fusefs.clones import hold_repository
from fusefs.dataset_model import Request
from fusefs.directories import blob_directory, cache_directory
from fusefs.loop_thread import LoopThread
from fusefs.plan import Verify
from fusefs.resolvers import Resolvers
from store.blobs import BlobSource
from store.budget import Limits
from store.engine import Engine, Settings, open_engine
from store.errors import CacheUnusable, ObjectCorrupt, StoreError
from store.fetching.remote_pool import Opener
from store.learnt_sizes import kept_path
from store.open_objects import OpenBytes, OpenFile, OpenObject
from store.remotes.spec import RemoteSpec
from store.threads import Threads
from store.tree import UNKNOWN, Tree
from store.tree_files import TreeFiles

T = TypeVar("T")

log = logging.getLogger(__name__)

AT_ONCE: Final = 64
"""Objects of one call that are fetched at a time."""
PIECE_BYTES: Final = 4 << 20
"""What is asked of an object at a time."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What is to be opened, and how. Equal ones share a session."""

    request: Request
    directory: str
    """Where relative names of the request begin."""
    verify: Verify = "blocks"
    limits: Limits = field(default_factory=Limits)

    def question(self) -> dict[str, Any]:
        """What a resolver is asked (`fusefs.resolve`)."""
        return {**self.request.to_wire(), "directory": self.directory}


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a resolver answered."""

    oid: str
    rev: str
    repo: str
    tree: Path
    caches: tuple[Path, ...]
    git_dirs: tuple[Path, ...]
    remotes: tuple[RemoteSpec, ...] = field(repr=False)


async def resolve(opening: Opening, resolvers: Resolvers) -> Resolved:
    """Have a child open the dataset: it may run git, compile, and ask remotes. Raises `StoreError`."""
    answer: dict[str, Any] = await resolvers.ask({"open": opening.question()})
    for warning in answer["warnings"]:
        log.warning("%s: %s", opening.request.target, warning)
    return Resolved(
        answer["oid"],
        answer["rev"],
        answer["repo"],
        Path(answer["tree"]),
        tuple(map(Path, answer["caches"])),
        tuple(map(Path, answer["git_dirs"])),
        tuple(map(RemoteSpec.from_wire, answer["remotes"])),
    )


class OpenedObject:
    """A file's bytes, held open. Closed when nothing refers to it any more, or by `close`."""

    def __init__(self, session: Session, row: int, opened: OpenObject, holder: object) -> None:
        """`holder` is what keeps the session open."""
        self._holder = holder
        self._session = session
        self._row = row
        self._opened: OpenObject | None = opened
        self.size = opened.size

    def read(self, offset: int, length: int) -> bytes:
        """The bytes from `offset`, all that there are. Raises `StoreError`, `ValueError` when closed."""
        opened = self._opened
        if opened is None:
            raise ValueError("I/O operation on closed file")
        if isinstance(opened, OpenBytes):
            return opened.data[offset : offset + length]
        if not isinstance(opened, OpenFile):
            return self._session.read_opened(self._row, opened, offset, length)
        wanted = max(0, min(length, opened.size - offset))
        parts, got = [], 0
        while got < wanted:
            try:
                part = os.pread(opened.descriptor, wanted - got, offset + got)
            except OSError as error:
                raise CacheUnusable(f"object {opened.oid} cannot be read: {error.strerror}") from None
            if not part:
                raise ObjectCorrupt(f"object {opened.oid} became shorter while it was read")
            parts.append(part)
            got += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def is_here(self) -> bool:
        """Can it still be read? After a fork only what needs nobody to fetch it."""
        return isinstance(self._opened, OpenFile | OpenBytes) or self._session.is_here

    def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            self._session.close_opened(opened)
            self._holder = None

    def __del__(self) -> None:
        self.close()


class Session:
    """Made by `serve_session`."""

    def __init__(self, loop: LoopThread, engine: Engine, files: TreeFiles, resolved: Resolved) -> None:
        self.engine = engine
        self.tree = files.tree
        self.oid = resolved.oid
        self.rev = resolved.rev
        self._loop = loop
        self._files = files

        self.is_open = True
        """Until it has been closed, or has failed."""

    @property
    def is_here(self) -> bool:
        """Can it be used, in this process?"""
        return self.is_open and self._loop.is_here

    def run(self, work: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """What `work(engine, files, *arguments)` returns, run on the loop. Raises what it raises."""
        return self._loop.call(work, self.engine, self._files, *arguments)

    def size_known(self, row: int) -> int:
        """As far as it has been learnt: bytes, 0 for a directory, or `UNKNOWN`. Waits for nothing."""
        return self._files.sizes[row]

    def learn(self, rows: range) -> None:
        """Learn what this machine knows of the sizes of neighbours in a listing; no remote is waited for."""
        if self._files.sizes_unknown and any(self._files.sizes[row] == UNKNOWN for row in rows):
            self._loop.call(self._learn, rows)

    def find_sizes(self, rows: Sequence[int]) -> list[int]:
        """The files' sizes in bytes; what is not known is found as `stat` of a mount finds it.

        Raises `StoreError`.
        """
        unknown = [row for row in rows if self._files.sizes[row] == UNKNOWN]
        if unknown:
            self._loop.call(self._find_sizes, unknown)
        return [self._files.sizes[row] for row in rows]

    def open(self, row: int, holder: object) -> OpenedObject:
        """Open a file; a small one that is missing is fetched first. Raises `StoreError`.

        `holder` is referred to until the file is closed."""
        return OpenedObject(self, row, self._loop.call(self._files.open, row), holder)

    def read_many(self, wanted: Sequence[tuple[int, int | None, int | None]]) -> list[bytes | StoreError]:
        """The bytes of many ranges (row, start, stop, as of a slice), fetched at the same time.

        What fails stands in its place as a `StoreError`.
        """
        return self._loop.call(self._read_many, wanted)

    def read_opened(self, row: int, opened: OpenObject, offset: int, length: int) -> bytes:
        """For `OpenedObject`."""
        return self._loop.call(self._read_pieces, row, opened, offset, offset + length)

    def close_opened(self, opened: OpenObject) -> None:
        """For `OpenedObject`. Waits for nothing."""
        if not self._loop.tell(self._files.close, opened):
            _left.append(opened)

    async def _learn(self, rows: range) -> None:
        first = rows.start
        while first < rows.stop:
            first = await self._files.learn_around(first)

    async def _find_sizes(self, rows: Sequence[int]) -> None:
        limit = trio.CapacityLimiter(AT_ONCE)
        errors: list[StoreError] = []

        async def find(row: int) -> None:
            try:
                await self._files.size(row)
            except StoreError as error:
                errors.append(error)
                nursery.cancel_scope.cancel()
            finally:
                limit.release_on_behalf_of(row)

        async with trio.open_nursery() as nursery:
            for row in rows:
                await limit.acquire_on_behalf_of(row)
                nursery.start_soon(find, row)
        if errors:
            raise errors[0]

    async def _read_many(
        self, wanted: Sequence[tuple[int, int | None, int | None]]
    ) -> list[bytes | StoreError]:
        limit = trio.CapacityLimiter(AT_ONCE)
        found: list[bytes | StoreError] = [b""] * len(wanted)

        async def read(place: int) -> None:
            try:
                found[place] = await self._read(*wanted[place])
            except StoreError as error:
                found[place] = error
            finally:
                limit.release_on_behalf_of(place)

        async with trio.open_nursery() as nursery:
            for place in range(len(wanted)):
                await limit.acquire_on_behalf_of(place)
                nursery.start_soon(read, place)
        return found

    async def _read(self, row: int, start: int | None, stop: int | None) -> bytes:
        opened = await self._files.open(row)
        try:
            first, last, _ = slice(start, stop).indices(opened.size)
            return await self._read_pieces(row, opened, first, last)
        finally:
            self._files.close(opened)

    async def _read_pieces(self, row: int, opened: OpenObject, start: int, stop: int) -> bytes:
        parts = []
        stop = min(stop, opened.size)
        while start < stop:
            wanted = min(stop - start, PIECE_BYTES)
            # What is returned is valid until the next checkpoint only.
            part = bytes(await self._files.read(row, opened, start, wanted))
            if len(part) != wanted:
                raise ObjectCorrupt(f"object {opened.oid} became shorter while it was read")
            parts.append(part)
            start += wanted
        return parts[0] if len(parts) == 1 else b"".join(parts)


_left: Final[list[object]] = []
"""What was open when its loop ended, or stayed behind at a fork: only that loop may close it."""


async def serve_session(
    opening: Opening,
    loop: LoopThread,
    resolvers: Resolvers,
    opener: Opener,
    ready: Callable[[Session], object],
) -> None:
    """Open a version, hand its session to `ready`, and serve it until cancelled. Raises `StoreError`."""
    resolved = await resolve(opening, resolvers)
    tree = await Threads().on_disk(_open_tree, resolved.tree)
    clone = hold_repository(resolved.repo)
    settings = Settings(
        caches=resolved.caches,
        blobs=blob_directory(),
        own=cache_directory(),
        limits=opening.limits,
        offline=opening.request.offline,
        verify=opening.verify,
    )
    try:
        async with open_engine(settings, opener) as engine:
            source = BlobSource(list(resolved.git_dirs), settings.blobs) if resolved.git_dirs else None
            files = TreeFiles(
                tree,
                engine.store,
                source,
                finder=engine.finder,
                remotes=engine.remote_set(resolved.remotes, partial(_refresh, opening, resolvers)),
                kept=kept_path(resolved.tree),
            )
            files.start_learning()
            session = Session(loop, engine, files, resolved)
            try:
                ready(session)
                await trio.sleep_forever()
            finally:
                session.is_open = False
                files.keep_sizes()
    finally:
        if clone is not None:
            clone.close()


async def _refresh(opening: Opening, resolvers: Resolvers) -> tuple[RemoteSpec, ...]:
    answer: dict[str, Any] = await resolvers.ask({"request": opening.question()})
    return tuple(map(RemoteSpec.from_wire, answer["remotes"]))


def _open_tree(path: Path) -> Tree:
    try:
        return Tree.open(path)
    except OSError as error:
        raise CacheUnusable(f"{path}: {error.strerror}") from None
