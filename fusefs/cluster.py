"""`DaskRunner`: has products made by the workers of a Dask cluster, through `concurrent.futures.Executor`.

The workers need fusefs in the same version, with the same libraries, and get to the caches or to the remotes.
What they are told goes through the cluster's scheduler, secrets of the remotes' configuration included.

Belongs to the event loop; the cluster is connected to and left outside of it (`connect`).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import trio

from fusefs.cluster_worker import Surroundings, make_piece, run_tasks
from fusefs.task_runs import FailedElsewhere, Outcome, failure
from store.errors import InputError, StoreError, StoreTimeout
from store.making.indexes import index_task
from store.making.task_wire import task_to_wire
from store.making.tasks import Origin, RowOrigin, Task
from store.media.index import VideoIndex
from store.media.index_file import from_bytes
from store.tree import UNKNOWN, Tree

T = TypeVar("T")

LOCAL: Final = "local"
"""In place of an address: a cluster of this machine's own, for as long as it is used."""
CONNECT_SECONDS: Final = 30.0
CALL_SECONDS: Final = 3600.0
"""For a call, its wait for a worker included."""
QUEUED: Final = 2
"""Calls for each thread of the cluster: while one is made the next is on its way."""


@contextlib.contextmanager
def connect(address: str, workers: int) -> Iterator[tuple[concurrent.futures.Executor, int]]:
    """An executor on a cluster, and how many threads that has. `workers` are those of a local one.

    Raises `InputError` where Dask is not installed, and `StoreError` where no cluster answers.
    """
    try:
        import distributed
    except ImportError:
        raise InputError("Dask is not installed here: pip install 'fusefs[dask]'") from None
    with contextlib.ExitStack() as stack:
        try:
            if address == LOCAL:
                cluster = distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    silence_logs=logging.ERROR,
                )
                client = stack.enter_context(distributed.Client(stack.enter_context(cluster)))
            else:
                client = stack.enter_context(distributed.Client(address, timeout=CONNECT_SECONDS))
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            raise StoreError(f"no Dask cluster with workers answers at {address}: {error}") from None
        executor = client.get_executor(pure=False, retries=1)
        stack.callback(executor.shutdown, wait=False)
        yield executor, sum(client.nthreads().values())


class DaskRunner:
    """See `Runner`."""

    def __init__(
        self, executor: concurrent.futures.Executor, threads: int, surroundings: Surroundings, tree: Tree
    ) -> None:
        """`tree` has the sizes that are beyond doubt."""
        self.lanes = QUEUED * max(threads, 1)
        self._executor = executor
        self._surroundings = surroundings
        self._tree = tree
        self._preparing: list[concurrent.futures.Future[list[Outcome]]] = []

    def prepare(self) -> None:
        """Have the workers open their caches while this process finds out what is to be made."""
        # Who lets go of a future cancels what it stands for.
        self._preparing = [
            self._executor.submit(run_tasks, self._surroundings, []) for _ in range(self.lanes // QUEUED)
        ]

    async def run(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        wire = [task_to_wire(task, self._size) for task in tasks]
        try:
            return await self._call(run_tasks, wire)
        except StoreError as error:
            return [failure(error)] * len(tasks)

    async def index(self, origin: Origin) -> VideoIndex:
        made = await self._call(make_piece, task_to_wire(index_task(origin), self._size))
        if isinstance(made, Outcome):
            raise FailedElsewhere(made.kind, made.message)
        index = from_bytes(made)
        if index is None:
            raise StoreError(f"the index of {origin.name!r} that the cluster made cannot be read")
        return index

    def close(self) -> None:
        """See `Runner`. The cluster is left to whoever has connected to it."""

    def _size(self, origin: Origin) -> int:
        return self._tree.size[origin.row] if isinstance(origin, RowOrigin) else UNKNOWN

    async def _call(self, work: Callable[[Surroundings, Any], T], argument: Any) -> T:
        future = self._executor.submit(work, self._surroundings, argument)
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def tell(_: object) -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(done.set)

        future.add_done_callback(tell)
        try:
            with trio.move_on_after(CALL_SECONDS) as scope:
                await done.wait()
        finally:
            future.cancel()
        if scope.cancelled_caught:
            raise StoreTimeout(f"the cluster did not answer within {CALL_SECONDS:.0f} s")
        try:
            return future.result(timeout=0)
        except Exception as error:  # a worker that died, or has another fusefs
            raise StoreError(f"the cluster failed: {type(error).__name__}: {error}") from None
