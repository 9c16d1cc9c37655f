"""`read_version`: a version's files for a command without a mount, until it ends or is interrupted."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import trio

from fusefs.dataset import Dataset, Request, open_dataset
from fusefs.directories import blob_directory, cache_directory
from store.blobs import BlobSource
from store.engine import Engine, Settings, open_engine
from store.learnt_sizes import kept_path
from store.making.started_worker import StartedWorkers
from store.remotes.opening import open_remote
from store.remotes.spec import RemoteSpec
from store.tree import Tree
from store.tree_files import TreeFiles

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Work = Callable[[Engine, TreeFiles], Awaitable[None]]


async def read_version(
    request: Request,
    dataset: Dataset,
    tree: Tree,
    work: Work,
    *,
    workers: int = 0,
    started: StartedWorkers | None = None,
) -> int:
    """Do `work` with the engine and files of a resolved dataset.

    `workers` are the processes that make something, 0 for the default, and `started` the first of them.
    Returns the signal that has ended it early, 0 for none. Raises as `work`.
    """
    try:
        return await _read(request, dataset, tree, work, workers, started)
    except BaseExceptionGroup as group:
        # Several tasks fail when one does; the first is what is reported, as if there were no tasks.
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


async def _read(
    request: Request,
    dataset: Dataset,
    tree: Tree,
    work: Work,
    workers: int,
    started: StartedWorkers | None,
) -> int:
    settings = Settings(
        caches=dataset.caches,
        blobs=blob_directory(),
        own=cache_directory(),
        offline=request.offline,
        workers=workers,
        started_workers=started,
    )
    assert dataset.tree is not None
    came = 0

    async def obey_signals() -> None:
        nonlocal came
        wanted = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
        with trio.open_signal_receiver(*wanted) as signals:
            async for number in signals:
                came = number
                nursery.cancel_scope.cancel()
                return

    async with open_engine(settings, open_remote) as engine:
        files = TreeFiles(
            tree,
            engine.store,
            BlobSource(dataset.git_dirs, settings.blobs) if dataset.git_dirs else None,
            finder=engine.finder,
            remotes=engine.remote_set(dataset.remotes, partial(_refresh, engine, request)),
            kept=kept_path(dataset.tree),
        )
        files.start_learning()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(obey_signals)
                await work(engine, files)
                nursery.cancel_scope.cancel()
        finally:
            files.keep_sizes()
    return came


async def _refresh(engine: Engine, request: Request) -> Sequence[RemoteSpec]:
    """The remotes as they are configured now: a denial may be due to credentials of yesterday."""
    return (await engine.threads.on_disk(open_dataset, request)).remotes
