"""`store_files`: the workers that read, and the one that publishes, side by side and bounded.

Slices of the file list go to a pool of threads; what they stage is gathered into batches, each of
which costs one sync of the file system, and a batch is synced and published while the next is
read. In flight are at most a few slices a worker and two batches. Used by `version`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

from store.commit.batches import Batches
from store.commit.progress import Progress
from store.commit.publish import ObjectWriter, Staged
from store.commit.scan import Found
from store.commit.staging import Hashed, Link, Meter, Stager

_SLICE_FILES: Final = 128
_SLICE_BYTES: Final = 16 << 20
_SLICES_PER_WORKER: Final = 3
_AHEAD_FILES: Final = 64
"""That all workers together have open before it is their turn."""
_BATCH_FILES: Final = 8192
_BATCH_BYTES: Final = 512 << 20
_TICK_SECONDS: Final = 0.2


def store_files(
    source: Path, files: Sequence[Found], writer: ObjectWriter, link: Link, jobs: int, progress: Progress
) -> tuple[list[Hashed], int]:
    """Hash `files` with `jobs` threads and publish what the cache lacks; (all, number published).

    Raises what `Stager.stage` and `ObjectWriter.publish` raise; by then no thread is at work any more.
    """
    meter = Meter()
    stager = Stager(source, writer, link, meter, max(1, _AHEAD_FILES // jobs))
    batches = Batches(writer, _BATCH_FILES, _BATCH_BYTES)
    hashed: list[Hashed] = []
    progress.begin(len(files), sum(found.size for found in files))
    workers = ThreadPoolExecutor(jobs, thread_name_prefix="commit-hash")
    try:
        for done in _run(stager, files, jobs, workers, meter, progress):
            hashed.extend(done)
            for one in done:
                if one.staged:
                    batches.add(Staged(one.staged, one.md5, one.found.size))
        published = batches.finish()
    finally:
        # On the way out of a failure or an interrupt: nobody may write into the room from here on.
        stager.cancel()
        workers.shutdown(cancel_futures=True)
        batches.close()
        progress.end()
    return hashed, published


def _run(
    stager: Stager,
    files: Sequence[Found],
    jobs: int,
    workers: ThreadPoolExecutor,
    meter: Meter,
    progress: Progress,
) -> Iterator[list[Hashed]]:
    """The workers' results as they come."""
    waiting = deque(enumerate(_slice(files)))
    running: set[Future[list[Hashed]]] = set()
    while waiting or running:
        while waiting and len(running) < jobs * _SLICES_PER_WORKER:
            number, part = waiting.popleft()
            running.add(workers.submit(stager.stage, part, str(number)))
        done, running = wait(running, timeout=_TICK_SECONDS, return_when=FIRST_COMPLETED)
        progress.update(*meter.read())
        for future in done:
            yield future.result()


def _slice(files: Sequence[Found]) -> Iterator[list[Found]]:
    """Parts of similar work, large files first, so that none is left to one worker at the end."""
    large = sorted((f for f in files if f.size >= _SLICE_BYTES), key=lambda f: -f.size)
    yield from ([found] for found in large)
    part: list[Found] = []
    size = 0
    for found in files:
        if found.size >= _SLICE_BYTES:
            continue
        part.append(found)
        size += found.size
        if len(part) >= _SLICE_FILES or size >= _SLICE_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
