"""One large file in fuse mode: from its beginning to its end, and 4 kB at random places."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.datasets import make_repository, write_large_file
from benchmarks.measure import Results, Target, rotate
from benchmarks.mounts import mounted_by, mounted_fusefs, read_ahead_of
from benchmarks.scale import Scale
from benchmarks.workshop import Workshop, drop_caches

RANDOM_BYTES = 4096
KERNEL_DEFAULT = "128k"
RAISED, DEFAULT = "fusefs, read-ahead raised", "fusefs, read-ahead 128 KiB"
ZEROS = "pyfuse3, nothing read"
ZEROS_PROGRAM = Path(__file__).parent.parent / "zeros.py"
TARGETS = (
    Target("sequential, cold", 0.5, than="disk", system=RAISED),
    Target("random 4 kB, cold", 0.5, than="disk", system=RAISED),
)


def compare_large_file(workshop: Workshop, scale: Scale) -> Results:
    """With our read-ahead and with the kernel's, against the same file on the disk."""
    results = Results(f"one file of {scale.large_bytes >> 20} MiB", "disk", TARGETS)
    repository = make_repository(workshop, "large")
    original = repository / "data" / "large.bin"
    original.parent.mkdir()
    write_large_file(original, scale.large_bytes)
    workshop.run("fusefs", "commit", "data", cwd=repository)
    results.notes.append(f"disk: read-ahead {read_ahead_of(original).read_text().strip()} KiB")
    results.notes.append(
        f"{ZEROS}: what a request takes in a mount that answers with zeros; add the disk's time to it"
    )
    if scale.cold:
        results.notes.append("cold: this kernel's caches were dropped; a hypervisor may have the bytes")
    else:
        results.notes.append("warm only: cold needs root, and is no part of --quick")
    for number in range(scale.rounds):
        for system in rotate(("disk", RAISED, DEFAULT, ZEROS), number):
            if system == ZEROS:
                if scale.cold:
                    _measure_zeros(workshop, scale, results, number)
            elif system == "disk":
                _measure(workshop, scale, results, system, original, number)
            else:
                _measure_mounted(workshop, scale, results, system, repository / "data.dvc", number)
    return results


def _measure_mounted(
    workshop: Workshop, scale: Scale, results: Results, system: str, target: Path, number: int
) -> None:
    flags = ("--mode", "fuse", *(("--read-ahead", KERNEL_DEFAULT) if system == DEFAULT else ()))
    with mounted_fusefs(workshop, target, *flags) as mountpoint:
        kibibytes = int(read_ahead_of(mountpoint).read_text())
        if system == RAISED and kibibytes <= 128:
            note = f"{RAISED}: not measured: it is {kibibytes} KiB here, and only root may raise it"
            results.notes += [note] * (note not in results.notes)
            return
        if number == 0:
            results.notes.append(f"{system}: {kibibytes} KiB")
        _measure(workshop, scale, results, system, mountpoint / "large.bin", number)


def _measure(
    workshop: Workshop, scale: Scale, results: Results, system: str, path: Path, number: int
) -> None:
    listing = workshop.write_list([path], number)

    def add_sequential(which: str, mode: str = "whole") -> None:
        reading = workshop.read(listing, mode, block=1 << 20)
        results.add(which, "MB/s", system, reading.bytes / reading.seconds / 1e6)

    def add_random(which: str) -> None:
        reading = workshop.read(listing, "random", block=RANDOM_BYTES, count=scale.random_reads)
        results.add(which, "reads/s", system, scale.random_reads / reading.seconds)

    if scale.cold:
        drop_caches()
        add_random("random 4 kB, cold")
        drop_caches()
        add_sequential("sequential, cold")
    else:
        workshop.read(listing)
    add_sequential("sequential, warm")
    add_sequential("mapped, warm", "mmap")
    add_random("random 4 kB, warm")


def _measure_zeros(workshop: Workshop, scale: Scale, results: Results, number: int) -> None:
    command = (sys.executable, str(ZEROS_PROGRAM), str(scale.large_bytes))
    with mounted_by(workshop, *command) as mountpoint:
        listing = workshop.write_list([mountpoint / "zeros"], number)
        reading = workshop.read(listing, "random", block=RANDOM_BYTES, count=scale.random_reads)
    results.add("random 4 kB, cold", "reads/s", ZEROS, scale.random_reads / reading.seconds)
