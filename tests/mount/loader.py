"""A data loader as machine learning has them: workers read files in random order, batch by batch.

Run as a program: `loader.py ROOT METHOD SEED`; METHOD is how workers come into being, `fork` or
`spawn`. Prints the MD5 of every file that the last epoch read, as JSON. Each worker lives through
all epochs and gets its batches through a queue; one file was opened before the workers were made,
as readers of large archives do.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import sys
from multiprocessing.queues import Queue

WORKERS = 4
EPOCHS = 2
BATCH = 8
SECONDS = 60.0

Batch = list[str]
Result = list[tuple[str, str]]


def digest(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def load(path: str) -> bytes:
    """As an image reader does: look at the head, then read the whole."""
    with open(path, "rb") as file:
        head = file.read(16)
        file.seek(0)
        whole = file.read()
    assert whole.startswith(head) and len(whole) == os.path.getsize(path)
    return whole


def work(archive: int, expected: str, batches: Queue[Batch | None], results: Queue[Result]) -> None:
    while (batch := batches.get(timeout=SECONDS)) is not None:
        results.put([(path, digest(load(path))) for path in batch])
        if archive >= 0:  # a descriptor from before the fork: positions are shared, pread is not
            assert digest(os.pread(archive, 1 << 20, 0)) == expected


def main(root: str, method: str, seed: str) -> None:
    context = multiprocessing.get_context(method)
    paths = [os.path.join(here, name) for here, _, names in os.walk(root) for name in names]
    largest = max(paths, key=os.path.getsize)
    archive = os.open(largest, os.O_RDONLY) if method == "fork" else -1
    expected = digest(load(largest)[: 1 << 20])
    batches: Queue[Batch | None] = context.Queue()
    results: Queue[Result] = context.Queue()
    workers = [
        context.Process(target=work, args=(archive, expected, batches, results)) for _ in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    order = random.Random(seed)
    found: dict[str, str] = {}
    for _ in range(EPOCHS):
        order.shuffle(paths)
        chosen = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
        for batch in chosen:
            batches.put(batch)
        found = dict(pair for _ in chosen for pair in results.get(timeout=SECONDS))
    for _ in workers:
        batches.put(None)
    for worker in workers:
        worker.join(SECONDS)
        assert worker.exitcode == 0, worker.exitcode
    json.dump({os.path.relpath(path, root): oid for path, oid in found.items()}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
