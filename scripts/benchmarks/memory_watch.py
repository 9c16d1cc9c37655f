"""How much memory a process holds while something is measured."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from benchmarks.workshop import memory_of

PAUSE: Final = 0.05
"""Seconds between two looks. The peak is the kernel's own figure, so it is missed between none."""


@dataclass(slots=True)
class MemoryWatch:
    """Bytes, once it is over."""

    samples: list[int] = field(default_factory=list)
    peak: int = 0

    @property
    def middle(self) -> float:
        return statistics.median(self.samples)


@contextmanager
def watch_memory(pid: int) -> Iterator[MemoryWatch]:
    """Look at the resident memory of a process meanwhile, from a thread."""
    watch = MemoryWatch()
    over = threading.Event()

    def look() -> None:
        with suppress(OSError):  # it has ended
            while True:
                memory = memory_of(pid)
                watch.samples.append(memory["VmRSS"])
                watch.peak = memory["VmHWM"]
                if over.wait(PAUSE):
                    return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()
