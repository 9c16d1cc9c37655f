"""What a worker of a cluster does: makes products, with an engine of its own that it keeps for the next call.

`run_tasks` and `make_piece` are what is submitted. Their arguments are plain values: `Surroundings` says
where objects are, and tasks name them by oid (`store.making.task_wire`), so a worker needs neither the
version nor a repository. Where none of the caches is on its machine it has its own, in the user's directory
of caches.

Any thread of a worker; several at a time.
"""

from __future__ import annotations

import contextlib
import multiprocessing.util
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgpack
import trio
import xxhash

from fusefs.directories import blob_directory, cache_directory
from fusefs.loop_thread import LoopThread
from fusefs.task_runs import Outcome, TaskMaker, failure
from store.blobs import BlobSource
from store.engine import Engine, Settings, open_engine
from store.errors import InputError, StoreError
from store.making.started_worker import FRAME_MAKERS, StartedWorkers
from store.making.task_wire import Home, environment, task_from_wire
from store.remotes.opening import open_remote
from store.remotes.spec import RemoteSpec

START_SECONDS: Final = 60.0
MOST_ENGINES: Final = 4
"""That a process keeps when nobody uses them: one for each materialization."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker has to know beside its tasks. `wire` may hold secrets and is not shown."""

    wire: bytes = field(repr=False)
    """msgpack of the fields below, but for `token`."""
    token: str
    """The same for the same."""

    @classmethod
    def of(
        cls,
        caches: Sequence[Path],
        git_dirs: Sequence[Path],
        remotes: Sequence[RemoteSpec],
        push: RemoteSpec | None = None,
        *,
        offline: bool,
    ) -> Surroundings:
        wire: bytes = msgpack.packb(
            {
                "caches": [str(cache) for cache in caches],
                "git_dirs": [str(git_dir) for git_dir in git_dirs],
                "remotes": [spec.to_wire() for spec in remotes],
                "push": push.to_wire() if push is not None else None,
                "offline": offline,
                "environment": environment(),
            }
        )
        return cls(wire, xxhash.xxh3_128_hexdigest(wire))


def run_tasks(surroundings: Surroundings, tasks: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """Make products, one after the other; without any, get ready."""
    try:
        with _using(surroundings) as opened:
            return opened.loop.call(opened.run, tasks)
    except StoreError as error:
        return [failure(error)] * len(tasks)


def make_piece(surroundings: Surroundings, task: Mapping[str, Any]) -> bytes | Outcome:
    """The first piece of a product, or why there is none."""
    try:
        with _using(surroundings) as opened:
            return opened.loop.call(opened.piece, task)
    except StoreError as error:
        return failure(error)


class _Opened:
    """An engine on a loop of this process."""

    def __init__(self, loop: LoopThread, engine: Engine, home: Home, push: RemoteSpec | None) -> None:
        self.loop = loop
        self.users = 0
        """Threads that are using it."""
        self._engine = engine
        self._maker = TaskMaker(engine, push)
        self._pushes = push is not None
        self._home = home

    async def run(self, tasks: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        return [await self._maker.make(task_from_wire(task, self._home)) for task in tasks]

    async def piece(self, task: Mapping[str, Any]) -> bytes:
        made = task_from_wire(task, self._home)
        if self._pushes:
            await self._maker.make(made)
        return await self._engine.maker.piece(made, 0)


_lock = threading.Lock()
_engines: Final[OrderedDict[str, _Opened]] = OrderedDict()


@contextlib.contextmanager
def _using(surroundings: Surroundings) -> Iterator[_Opened]:
    with _lock:
        opened = _engines.pop(surroundings.token, None)
        if opened is None or not opened.loop.is_here:
            opened = _start(msgpack.unpackb(surroundings.wire))
        _engines[surroundings.token] = opened
        opened.users += 1
        idle = [token for token, one in _engines.items() if not one.users]
        for token in idle[: max(0, len(_engines) - MOST_ENGINES)]:
            _engines.pop(token).loop.close()
    try:
        yield opened
    finally:
        with _lock:
            opened.users -= 1


def _start(fields: Mapping[str, Any]) -> _Opened:
    if fields["environment"] != environment():
        raise InputError(
            f"a worker of the cluster has {environment()} and not {fields['environment']}: what it makes"
            " would have other bytes; install the same versions there"
        )
    caches = [Path(cache) for cache in fields["caches"] if Path(cache).is_dir()]
    if not caches:
        caches = [cache_directory() / "objects"]
        caches[0].mkdir(parents=True, exist_ok=True)
    loop = LoopThread()
    ready = threading.Event()
    found: list[_Opened] = []

    async def serve() -> None:
        try:
            async with contextlib.AsyncExitStack() as stack:
                # It starts while the engine does, and by this thread, with which it ends.
                workers = stack.enter_context(StartedWorkers(1, FRAME_MAKERS))
                settings = Settings(
                    caches=caches,
                    blobs=blob_directory(),
                    own=cache_directory(),
                    offline=fields["offline"],
                    started_workers=workers,
                )
                engine = await stack.enter_async_context(open_engine(settings, open_remote))
                git_dirs = [Path(git_dir) for git_dir in fields["git_dirs"] if Path(git_dir).is_dir()]
                source = BlobSource(git_dirs, settings.blobs) if git_dirs else None
                remotes = engine.remote_set([RemoteSpec.from_wire(spec) for spec in fields["remotes"]])
                push = RemoteSpec.from_wire(fields["push"]) if fields["push"] is not None else None
                found.append(_Opened(loop, engine, Home(engine.store, source, remotes), push))
                ready.set()
                await trio.sleep_forever()
        finally:
            ready.set()

    loop.tell(loop.nursery.start_soon, serve)
    if not ready.wait(START_SECONDS) or not found:
        raise StoreError("a worker of the cluster could not open its caches; its log says why")
    return found[0]


def close_all() -> None:
    """Let go of every engine of this process."""
    with _lock:
        while _engines:
            _engines.popitem()[1].loop.close()


# Unlike `atexit` it is heeded by processes that `multiprocessing` has started, too.
multiprocessing.util.Finalize(None, close_all, exitpriority=10)
