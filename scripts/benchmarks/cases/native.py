"""What is cached, read in native mode and in fuse mode, beside the same files on the disk.

All of it warm, but for the first pass with nothing in memory. Beside them stands an overlay of the kernel's
with nothing of ours: what it falls behind the disk is the kernel's, the rest is ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.datasets import make_repository, write_files, write_large_file
from benchmarks.measure import Results, Target, rotate
from benchmarks.mounts import mounted_fusefs
from benchmarks.scale import Scale
from benchmarks.workshop import Workshop, drop_caches

OVERLAY = "bare overlay"
SYSTEMS = ("disk", "native", OVERLAY, "fuse")
READERS = (1, 4)
RANDOM_BYTES = 4096
MODES = {
    "sequential": "whole",
    "sequential, O_DIRECT": "whole-direct",
    "mapped": "mmap",
    "mapped to a multiple of 2 MiB": "huge",
}
RANDOM_MODES = {"random 4 kB": "random", "random 4 kB, O_DIRECT": "random-direct"}


def _name(readers: int) -> str:
    return f"small files again, {readers} reader{'s' if readers > 1 else ''}"


COLD = "small files, first pass, nothing in memory"
TARGETS = (
    Target(COLD, 0.8, than="disk", system="native"),
    *(Target(_name(readers), 0.85, than="disk", system="native") for readers in READERS),
    *(Target(f"1 GiB {which}", 0.95, than="disk", system="native") for which in (*MODES, *RANDOM_MODES)),
)


def compare_native(workshop: Workshop, scale: Scale) -> Results:
    """Small files by one reader and by four; a large one from its beginning, mapped, at random places."""
    results = Results(f"native mode: {scale.small_files} files of {scale.small_bytes} bytes", "disk", TARGETS)
    results.notes += [
        "first pass: a fresh mount, of which the kernel knows no names; again: it knows them all",
        "nothing in memory: nothing was when the mount was made, and its time is not counted",
        f"1 GiB: {scale.large_bytes >> 20} MiB here",
        "bare overlay: the kernel's, of the files themselves and an empty directory, with nothing of ours",
        "mapped: the kernel chooses places where large pages fit for files of a disk, not of an overlay",
    ]
    systems: Sequence[str] = SYSTEMS
    if os.geteuid() != 0:
        results.notes.append(f"{OVERLAY}: not measured: only root may mount one")
        systems = [system for system in SYSTEMS if system != OVERLAY]
    repository = make_repository(workshop, "native")
    data = repository / "data"
    small = [path.relative_to(data) for path in write_files(data, scale.small_files, scale.small_bytes)]
    write_large_file(data / "large.bin", scale.large_bytes)
    workshop.run("fusefs", "commit", "data", cwd=repository)
    for number in range(scale.rounds):
        for system in rotate(systems, number):
            if scale.cold:
                drop_caches()
                with _shown(workshop, repository, system) as root:
                    cold = workshop.read(workshop.write_list([root / path for path in small], number))
                    results.add(COLD, "files/s", system, cold.files / cold.seconds)
            with _shown(workshop, repository, system) as root:
                listing = workshop.write_list([root / path for path in small], number)
                first = workshop.read(listing)
                results.add("small files, first pass", "files/s", system, first.files / first.seconds)
                for readers in READERS:
                    again = workshop.read(listing, readers=readers)
                    results.add(_name(readers), "files/s", system, again.files / again.seconds)
                _read_large(workshop, results, system, root / "large.bin", scale.random_reads)
    return results


@contextmanager
def _shown(workshop: Workshop, repository: Path, system: str) -> Iterator[Path]:
    if system == "disk":
        yield repository / "data"
        return
    if system == OVERLAY:
        mountpoint = workshop.directory("overlay")
        layers = f"lowerdir={repository / 'data'}:{workshop.directory('empty')}"
        workshop.run("mount", "-t", "overlay", "-o", f"ro,{layers}", "overlay", mountpoint)
        with workshop.at_exit(lambda: workshop.run("umount", mountpoint) and None):
            yield mountpoint
        return
    with mounted_fusefs(workshop, repository / "data.dvc", "--mode", system) as mountpoint:
        yield mountpoint


def _read_large(workshop: Workshop, results: Results, system: str, path: Path, reads: int) -> None:
    listing = workshop.write_list([path], None)
    workshop.read(listing, block=1 << 20)
    for which, mode in MODES.items():
        reading = workshop.read(listing, mode, block=1 << 20)
        results.add(f"1 GiB {which}", "MB/s", system, reading.bytes / reading.seconds / 1e6)
    for which, mode in RANDOM_MODES.items():
        reading = workshop.read(listing, mode, block=RANDOM_BYTES, count=reads)
        results.add(f"1 GiB {which}", "reads/s", system, reads / reading.seconds)
