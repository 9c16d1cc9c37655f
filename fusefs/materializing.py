"""`materialize`: makes all products of a view of a version, as many at a time as its runner bears.

What is kept is passed over, so an interrupted run goes on where it ended. Videos and folders are looked at a
few at a time, ahead of what is made of them; the products that one worker makes best one after the other are
given to one. What cannot be made is counted by classes and stops nothing.

Belongs to the event loop. Caller: `fusefs materialize`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from fusefs.fetching import Failure
from fusefs.task_runs import Outcome, Runner, failure
from store.engine import Engine
from store.errors import StoreError
from store.making.cvat_sources import ChunkedFolder, ChunkedVideo, is_video, open_folder
from store.making.cvat_tasks import measuring
from store.making.frame_chunks import FrameChunks
from store.making.tasks import Origin, RowOrigin, Series, Task
from store.media.folders import directories_with_frames
from store.media.index import VideoIndex
from store.media.ordering import is_frame
from store.media.recipe import ChunksRecipe, FramesRecipe, parse_chunks, parse_frames
from store.tree import Tree
from store.tree_files import TreeFiles
from store.tree_glob import find_files, find_rows

PLANNED_AT_ONCE: Final = 4
"""Videos and folders whose products are being counted, or wait for their turn."""
MOST_IN_CALL: Final = 8
"""Products of one call: little is lost with a worker, and progress is seen."""
CALLS_LEFT: Final = 2
"""Calls for each lane that a source's products are enough for, behind a call of several groups."""

Recipe = FramesRecipe | ChunksRecipe
IndexOf = Callable[[Origin], Awaitable[VideoIndex]]


@dataclass(slots=True)
class Tally:
    """How a materialization is getting on."""

    sources: int = 0
    """Videos and folders, looked at so far."""
    products: int = 0
    """That there are, as far as they have been counted."""
    made: int = 0
    kept: int = 0
    """Products that were there before."""
    pushed: int = 0
    pieces: int = 0
    """Frames and the like in all products that are there now."""
    refused: int = 0
    """Those that their content does not allow: damaged frames."""
    bytes: int = 0
    """Of what was made."""
    failures: dict[str, Failure] = field(default_factory=dict)
    failed_products: int = 0
    is_counted: bool = False
    """All sources have been looked at."""

    @property
    def done(self) -> int:
        return self.made + self.kept + self.failed_products

    @property
    def failed(self) -> int:
        return sum(failure.files for failure in self.failures.values())

    def note(self, outcome: Outcome, name: str) -> None:
        """What became of a product."""
        if outcome.kind:
            self.failed_products += 1
            self.fail(outcome, name)
            return
        self.kept += outcome.kept
        self.made += not outcome.kept
        self.pushed += outcome.pushed
        self.pieces += outcome.pieces
        self.refused += outcome.refused
        self.bytes += 0 if outcome.kept else outcome.bytes

    def fail(self, outcome: Outcome, name: str) -> None:
        """A product or a whole source failed."""
        example = outcome.message if name in outcome.message else f"{name!r}: {outcome.message}"
        self.failures.setdefault(outcome.kind, Failure(0, example)).files += 1


def parse_recipe(view: str) -> Recipe:
    """The recipe of `frames:RECIPE` or `chunks:RECIPE`. Raises `InputError`."""
    kind, _, recipe = view.partition(":")
    return parse_frames(recipe) if kind == "frames" else parse_chunks(recipe)


def find_sources(tree: Tree, recipe: Recipe, only: Sequence[str], name: str) -> list[int]:
    """The rows that products are made of: videos and, for chunks, directories of images. Blocking.

    A directory that `only` names counts as one folder of images, whatever it holds; where nothing is named,
    every directory with images of its own is one. Raises `NotTracked`.
    """
    rows = [row for row in find_files(tree, only, name) if is_video(tree, row)]
    if isinstance(recipe, ChunksRecipe):
        with_frames = directories_with_frames(tree)
        if only:
            named = {row for pattern in only for row in find_rows(tree, pattern, name)}
        else:
            named = {row for row in range(tree.rows) if with_frames[row] and _has_own(tree, row)}
        rows += sorted(row for row in named if with_frames[row])
    return rows


def _has_own(tree: Tree, directory: int) -> bool:
    """Whether a directory has an image in itself."""
    return any(not tree.is_directory(row) and is_frame(tree.path(row)) for row in tree.children(directory))


class Materialization:
    """One run."""

    def __init__(
        self, engine: Engine, files: TreeFiles, recipe: Recipe, runner: Runner, tally: Tally
    ) -> None:
        """`tally` tells how it goes."""
        self.tally = tally
        self._engine = engine
        self._files = files
        self._recipe = recipe
        self._runner = runner

    async def run(self, sources: Sequence[int]) -> None:
        """Make everything of these rows. Raises nothing for what cannot be made."""
        groups_in, groups_out = trio.open_memory_channel[list[Task]](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._plan_all, sources, groups_in)
            async with groups_out:
                for _ in range(self._runner.lanes):
                    nursery.start_soon(self._make, groups_out.clone())

    async def _make(self, groups: trio.MemoryReceiveChannel[list[Task]]) -> None:
        async with groups:
            async for tasks in groups:
                outcomes = await self._runner.run(tasks)
                for task, outcome in zip(tasks, outcomes, strict=True):
                    self.tally.note(outcome, task.origins[0].name)

    async def _plan_all(self, sources: Sequence[int], groups: trio.MemorySendChannel[list[Task]]) -> None:
        limit = trio.Semaphore(PLANNED_AT_ONCE)

        async def plan(row: int) -> None:
            try:
                await self._plan(row, groups)
            finally:
                limit.release()

        async with groups, trio.open_nursery() as nursery:
            for row in sources:
                await limit.acquire()
                nursery.start_soon(plan, row)
        self.tally.is_counted = True

    async def _plan(self, row: int, groups: trio.MemorySendChannel[list[Task]]) -> None:
        """Have everything made that a row gives."""
        try:
            count, planned = await plan_tasks(
                self._engine, self._files, self._recipe, row, self._runner.index
            )
        except StoreError as error:
            self.tally.fail(failure(error), self._files.tree.path(row))
            return
        finally:
            self.tally.sources += 1
        self.tally.products += count
        for group in in_calls(planned, count, self._runner.lanes):
            await groups.send(group)


def in_calls(groups: Iterable[list[Task]], count: int, lanes: int) -> Iterator[list[Task]]:
    """Groups of `count` tasks in all, some together: calls cost something, but in the end there are to be
    small ones for everybody. A group is never parted."""
    call: list[Task] = []
    for group in groups:
        if call and len(call) + len(group) > min(MOST_IN_CALL, count // (CALLS_LEFT * lanes)):
            yield call
            call = []
        call += group
        count -= len(group)
    if call:
        yield call


async def plan_tasks(
    engine: Engine, files: TreeFiles, recipe: Recipe, row: int, index_of: IndexOf
) -> tuple[int, Iterator[list[Task]]]:
    """How many products a video or folder gives, and their tasks, those together that one worker makes best.

    Raises `StoreError`.
    """
    origin = RowOrigin(files, row)
    if isinstance(recipe, FramesRecipe):
        index = await index_of(origin)
        frames = await engine.threads.on_disk(FrameChunks, origin, index, recipe)
        return len(frames), _groups(frames, len(frames))
    if files.tree.is_directory(row):
        folder = await open_folder(engine.maker, engine.threads, files, row, recipe)
        return await engine.threads.on_disk(_folder_tasks, files, folder)
    index = await index_of(origin)
    video = await engine.threads.on_disk(ChunkedVideo, origin, index, recipe)
    count = video.numbering.chunk_count
    return 2 * count, _chain(_groups(video.compressed, count), _groups(video.original, count))


def _folder_tasks(files: TreeFiles, folder: ChunkedFolder) -> tuple[int, Iterator[list[Task]]]:
    """Chunks, what their originals' zips need beside the images, and what the manifest needs."""
    count = folder.numbering.chunk_count
    selected = [RowOrigin(files, int(folder.rows[frame])) for frame in folder.numbering.frames]
    measured = [[task] for task, _ in measuring(selected)]
    checksums = ([folder.checksums(chunk)] for chunk in range(count))
    return 2 * count + len(measured), _chain(_groups(folder.compressed, count), checksums, measured)


def _groups(series: Series, count: int) -> Iterator[list[Task]]:
    """The tasks of a series, those of a run together."""
    group: list[Task] = []
    run = -1
    for chunk in range(count):
        task = series.task(chunk)
        assert task is not None  # there are so many
        if group and (series.run_of(chunk) != run or len(group) == MOST_IN_CALL):
            yield group
            group = []
        group.append(task)
        run = series.run_of(chunk)
    if group:
        yield group


def _chain(*parts: Iterable[list[Task]]) -> Iterator[list[Task]]:
    for part in parts:
        yield from part
