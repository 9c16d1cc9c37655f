"""`Batches`: staged files are made durable and published together, while the next ones are staged.

Belongs to one thread; another one publishes, a batch at a time. So there are at most two batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from store.commit.publish import Staged


class Publishing(Protocol):
    """What an `ObjectWriter` does here."""

    def publish(self, batch: Sequence[Staged]) -> int: ...


class Batches:
    """Batches of so many files, or so many bytes. To be closed before the writer is."""

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
        if len(self._batch) >= self._most_files or self._bytes >= self._most_bytes:
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

    def _publish(self) -> None:
        self._collect()
        self._running = self._publisher.submit(self._writer.publish, self._batch)
        self._batch, self._bytes = [], 0

    def _collect(self) -> None:
        if self._running:
            self._published += self._running.result()
            self._running = None
