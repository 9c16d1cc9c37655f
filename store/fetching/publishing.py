"""`publish`: many fetched objects become durable and get their places together. Blocking; any thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from store.errors import CacheUnusable
from store.fetching.arrivals import Arrival, Arrivals
from store.fetching.download import Downloader, Fetched


class Published(NamedTuple):
    """What became of one object."""

    file: Fetched | None
    """Its file; None where none could be made."""
    failure: CacheUnusable | None
    """Then the file is still where it was."""


def publish(batch: Sequence[Fetched], downloader: Downloader, arrivals: Arrivals) -> list[Published]:
    """Give each its place, after writing what is in memory; what became of each, in order."""
    outcomes: list[Published] = []
    files: list[Fetched] = []
    for fetched in batch:
        try:
            file = fetched if fetched.data is None else downloader.write(fetched)
        except CacheUnusable as failure:
            outcomes.append(Published(None, failure))
        else:
            files.append(file)
            outcomes.append(Published(file, None))
    moved = arrivals.admit_all([Arrival(file.oid, file.path, file.descriptor) for file in files if file.path])
    failures = iter(moved)
    return [
        outcome if outcome.file is None else Published(outcome.file, next(failures)) for outcome in outcomes
    ]
