"""A million entries in fuse mode: how soon a mount has them and lists them, and what its daemon holds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.datasets import write_manifest, write_objects
from benchmarks.measure import Results, Target
from benchmarks.mounts import daemon_pid, mounted_fusefs
from benchmarks.scale import Scale
from benchmarks.workshop import BenchError, Workshop, memory_of

FIND = ("-type", "f", "-size", "+0", "-fprintf", "/dev/null", "%s\n")
TARGETS = (
    Target("first mount", 8, at_least=False),
    Target("later mount, beyond an empty manifest's", 0.5, at_least=False),
    Target("find -type f -size +0", 8, at_least=False),
    Target("daemon's resident memory", 150, at_least=False),
)


def measure_many_entries(workshop: Workshop, scale: Scale) -> Results:
    """First and later mounts, `find` over all sizes, and the daemon's memory after it."""
    results = Results(f"a manifest of {scale.entries} entries", "", TARGETS)
    results.notes.append(f"its entries name {scale.objects} distinct objects, all of them in the cache")
    cache = workshop.directory("cache")
    objects = write_objects(cache, scale.objects)
    full = write_manifest(cache, [objects[number % len(objects)] for number in range(scale.entries)])
    empty = write_manifest(cache, [])
    for _ in range(scale.rounds):
        shutil.rmtree(workshop.compiled_trees, ignore_errors=True)
        with _mounted(workshop, cache, full, results, "first mount") as (mountpoint, _seconds):
            _list(workshop, scale, results, mountpoint)
        with _mounted(workshop, cache, empty, results, "first mount of an empty manifest"):
            pass
        with _mounted(workshop, cache, full, results, "later mount") as (_mountpoint, later):
            pass
        with _mounted(workshop, cache, empty, results, "later mount of an empty manifest") as (
            _mountpoint,
            least,
        ):
            pass
        results.add("later mount, beyond an empty manifest's", "s", "fusefs", later - least)
    return results


@contextmanager
def _mounted(
    workshop: Workshop, cache: Path, oid: str, results: Results, measure: str
) -> Iterator[tuple[Path, float]]:
    start = time.monotonic()
    with mounted_fusefs(workshop, oid, "--mode", "fuse", "--cache", cache) as mountpoint:
        seconds = time.monotonic() - start
        results.add(measure, "s", "fusefs", seconds)
        yield mountpoint, seconds


def _list(workshop: Workshop, scale: Scale, results: Results, mountpoint: Path) -> None:
    for measure in ("find -type f -size +0", "find -type f -size +0, again"):
        results.add(measure, "s", "fusefs", workshop.clock("find", mountpoint, *FIND))
    found = workshop.run("find", mountpoint, "-type", "f", "-size", "+0", "-printf", ".")
    if len(found) != scale.entries:
        raise BenchError(f"find saw {len(found)} files of {scale.entries}")
    memory = memory_of(daemon_pid(workshop, mountpoint))
    results.add("daemon's resident memory", "MB", "fusefs", memory["VmRSS"] / 1e6)
    results.add("daemon's own (anonymous) memory", "MB", "fusefs", memory["RssAnon"] / 1e6)
