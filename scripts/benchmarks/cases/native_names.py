"""The names of a million files in native mode, beside the same names in an image that lies on the disk.

Only root's mounts have images, and only root mounts the one beside: without root nothing is measured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.cases.many_entries import FIND
from benchmarks.datasets import write_manifest, write_objects
from benchmarks.measure import Results, Target, rotate
from benchmarks.mounts import daemon_pid, mounted_fusefs
from benchmarks.scale import Scale
from benchmarks.workshop import BenchError, Workshop, drop_caches, memory_of

SYSTEMS = ("disk", "native")
IMAGE_SECONDS = 120.0
PAUSE = 0.2
COLD, AGAIN = "find -type f -size +0, nothing in memory", "find -type f -size +0, again"
MADE = "image made, from the first mount on"
MEMORY = "daemon's resident memory"
TARGETS = (
    Target(COLD, 0.55, than="disk", system="native"),
    Target(AGAIN, 0.75, than="disk", system="native"),
    Target(MADE, 12, system="native", at_least=False),
    Target(MEMORY, 150, system="native", at_least=False),
)


def compare_native_names(workshop: Workshop, scale: Scale) -> Results:
    """`find` over all sizes, and what the image and the daemon take."""
    results = Results(f"native mode: a manifest of {scale.entries} entries", "disk", TARGETS)
    if os.geteuid() != 0:
        results.notes.append("not measured: only root's mounts have images of names")
        return results
    results.notes += [
        "disk: the image itself, mounted without fusefs",
        "nothing in memory: nothing was when the mount was made, and its time is not counted",
    ]
    cache = workshop.directory("cache")
    objects = write_objects(cache, scale.objects)
    oid = write_manifest(cache, [objects[number % len(objects)] for number in range(scale.entries)])
    results.add(MADE, "s", "native", _make_image(workshop, cache, oid))
    for number in range(scale.rounds):
        for system in rotate(SYSTEMS, number):
            if scale.cold:
                drop_caches()
                with _shown(workshop, cache, oid, system) as root:
                    results.add(COLD, "files/s", system, scale.entries / workshop.clock("find", root, *FIND))
            with _shown(workshop, cache, oid, system) as root:
                workshop.clock("find", root, *FIND)
                results.add(AGAIN, "files/s", system, scale.entries / workshop.clock("find", root, *FIND))
                if system == "native":
                    memory = memory_of(daemon_pid(workshop, root))
                    results.add(MEMORY, "MB", system, memory["VmRSS"] / 1e6)
    return results


def _images(workshop: Workshop) -> list[Path]:
    return [path for path in workshop.compiled_trees.glob("*.erofs") if not path.name.startswith(".")]


def _make_image(workshop: Workshop, cache: Path, oid: str) -> float:
    """Seconds from a first mount until its image is there."""
    with _shown(workshop, cache, oid, "native"):
        start = time.monotonic()
        while not _images(workshop):
            if time.monotonic() - start > IMAGE_SECONDS:
                raise BenchError(f"no image was made in {IMAGE_SECONDS:.0f} s")
            time.sleep(PAUSE)
        return time.monotonic() - start


@contextmanager
def _shown(workshop: Workshop, cache: Path, oid: str, system: str) -> Iterator[Path]:
    if system == "native":
        with mounted_fusefs(workshop, oid, "--mode", "native", "--cache", cache) as mountpoint:
            yield mountpoint
        return
    (image,) = _images(workshop)
    mountpoint = workshop.directory("image")
    workshop.run("mount", "-t", "erofs", "-o", "ro,loop", image, mountpoint)
    with workshop.at_exit(lambda: workshop.run("umount", mountpoint) and None):
        yield mountpoint
