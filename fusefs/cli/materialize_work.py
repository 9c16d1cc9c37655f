"""One run of `fusefs materialize`: where it is done, how it gets on, and what is said of it."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import trio

from fusefs.cli.commit import format_size
from fusefs.dataset import Dataset
from fusefs.materializing import Materialization, Recipe, Tally
from fusefs.task_runs import LocalRunner, Runner
from store.engine import Engine
from store.making.used_views import note_view
from store.tree import Tree
from store.tree_files import TreeFiles

if TYPE_CHECKING:
    from fusefs.cluster import DaskRunner
    from fusefs.cluster_worker import Surroundings

TICK_SECONDS: Final = 0.2


class Work:
    """One materialization: where it is done, and what became of it."""

    def __init__(
        self,
        options: argparse.Namespace,
        dataset: Dataset,
        tree: Tree,
        recipe: Recipe,
        sources: Sequence[int],
        progress: ProductProgress | None,
    ) -> None:
        self.tally = Tally()
        self._options = options
        self._dataset = dataset
        self._tree = tree
        self._recipe = recipe
        self._sources = sources
        self._progress = progress
        self._push = dataset.push_remotes[options.push] if options.push else None
        self._cluster: DaskRunner | None = None

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """With the cluster that was asked for. Raises `StoreError`."""
        if not self._options.dask:
            yield
            return
        from fusefs.cluster import DaskRunner, connect

        with connect(self._options.dask, self._options.jobs) as (executor, threads):
            self._cluster = DaskRunner(executor, threads, self._surroundings(), self._tree)
            self._cluster.prepare()
            yield

    async def run(self, engine: Engine, files: TreeFiles) -> None:
        """Make everything."""
        await engine.threads.on_disk(note_view, self._dataset.cache, self._options.view)
        async with trio.open_nursery() as nursery:
            if self._progress is not None:
                nursery.start_soon(self._show, self._progress)
            runner = self._runner(engine)
            try:
                await Materialization(engine, files, self._recipe, runner, self.tally).run(self._sources)
            finally:
                runner.close()
            nursery.cancel_scope.cancel()

    def _runner(self, engine: Engine) -> Runner:
        return self._cluster or LocalRunner(engine, self._options.jobs, self._push)

    def _surroundings(self) -> Surroundings:
        from fusefs.cluster_worker import Surroundings

        dataset = self._dataset
        return Surroundings.of(
            dataset.caches, dataset.git_dirs, dataset.remotes, self._push, offline=self._options.offline
        )

    async def _show(self, progress: ProductProgress) -> None:
        try:
            while True:
                await trio.sleep(TICK_SECONDS)
                progress.update(self.tally)
        finally:
            progress.end()

    def describe(self, seconds: float, *, interrupted: bool) -> dict[str, Any]:
        """What `--json` prints; `bytes` and `seconds` are numbers."""
        tally = self.tally
        return {
            "target": self._dataset.target,
            "oid": self._dataset.oid or None,
            "rev": self._dataset.rev or None,
            "view": self._options.view,
            "cache": str(self._dataset.cache),
            "sources": tally.sources,
            "products": tally.products,
            "made": tally.made,
            "bytes": tally.bytes,
            "kept": tally.kept,
            "pushed": tally.pushed,
            "pieces": tally.pieces,
            "refused": tally.refused,
            "failures": {
                kind: {"failed": failure.files, "example": failure.example}
                for kind, failure in tally.failures.items()
            },
            "interrupted": interrupted,
            "seconds": round(seconds, 3),
        }

    def summarize(self, seconds: float, *, interrupted: bool) -> str:
        """A line for people."""
        tally = self.tally
        what = "frame" if self._options.view.startswith("frames:") else "piece"
        parts = [
            f"{self._options.view} of {_count(tally.sources, 'source')}: made {_count(tally.made, 'product')}"
            f" ({format_size(tally.bytes)})",
            f"{tally.kept} {'was' if tally.kept == 1 else 'were'} here",
        ]
        if self._options.push:
            parts.append(f"pushed {_count(tally.pushed, 'product')}")
        if tally.refused:
            parts.append(f"{_count(tally.refused, what)} damaged")
        if tally.failed:
            parts.append(f"{tally.failed} failed")
        if interrupted:
            parts.append("interrupted")
        rate = f", {tally.pieces / seconds:.0f} {what}s/s" if tally.made and not tally.kept else ""
        return f"{', '.join(parts)}; {seconds:.1f} s{rate}"


class ProductProgress:
    """A bar on standard error, with the rate and the time left."""

    def __init__(self) -> None:
        from rich import progress  # slow to import, and of use on a terminal only
        from rich.console import Console

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._begun = time.monotonic()
        self._task = self._bar.add_task("counting", total=None, rate="")
        self._bar.start()

    def update(self, tally: Tally) -> None:
        """Show how it is getting on. Until all is counted the time left is that of what is counted."""
        rate = tally.pieces / max(time.monotonic() - self._begun, 0.1)
        self._bar.update(
            self._task,
            completed=tally.done,
            total=tally.products or None,
            description="products" if tally.is_counted else "products so far",
            rate=f"{rate:.0f} pieces/s",
        )

    def end(self) -> None:
        self._bar.stop()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
