"""`Batches`: staged files are made durable and published together, while the next ones are staged.

A batch is what was staged while the one before was being published. So the disk has work from the beginning,
a fast one leaves little to wait for in the end, and a slow one is asked for fewer syncs.

Belongs to one thread; another one publishes, a batch at a time. So there are at most two batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol

from store.commit.publish import Staged

_LEAST: Final = 16
"""The part of the largest batch that is worth a sync."""


class Publishing(Protocol):
    """What an `ObjectWriter` does here."""

    def publish(self, batch: Sequence[Staged]) -> int: ...


class Batches:
    """Batches of so many files, or so many bytes, at most. To be closed before the writer is."""

    def __init__(self, writer: Publishing, files: int, size: int) -> None:
        self._writer = writer
        self._most_files = files
        self._most_bytes = size
        self._publisher = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._batch: list[Staged] = []
        self._bytes = 0
        self._running: Future[int] | None = None
        self._published = 0

    def add(self, staged: Staged) -> None:
        """Raises what `ObjectWriter.publish` does, for an earlier batch."""
        self._batch.append(staged)
        self._bytes += staged.size
        is_idle = self._running is None or self._running.done()
        if self._is_worth(_LEAST if is_idle else 1):
            self._publish()

    def finish(self) -> int:
        """Publish the rest; how many objects were new altogether. Raises as `add`."""
        if self._batch:
            self._publish()
        self._collect()
        return self._published

    def close(self) -> None:
        """Publish no more; when this returns nothing is being published."""
        self._publisher.shutdown(cancel_futures=True)

    def _is_worth(self, part: int) -> bool:
        return len(self._batch) >= self._most_files // part or self._bytes >= self._most_bytes // part

    def _publish(self) -> None:
        self._collect()
        self._running = self._publisher.submit(self._writer.publish, self._batch)
        self._batch, self._bytes = [], 0

    def _collect(self) -> None:
        if self._running:
            self._published += self._running.result()
            self._running = None
