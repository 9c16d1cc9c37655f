"""What the machine itself does, measured before the cases: so that two runs can be compared.

A figure of a case may be held against that of another run only as far as these agree.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.scale import Scale
from benchmarks.workshop import BenchError, Workshop

HASHED: Final = 1 << 26
BLOCK: Final = 1 << 20
PAGE: Final = 4096
PROCESSES: Final = 50
WATCHED_SECONDS: Final = 1.0
BUSY: Final = 0.1
"""Share of the CPUs that others may use before it is said."""


@dataclass(frozen=True, slots=True)
class Load:
    """What others do on the machine while the benchmark waits."""

    average: float
    """Of the last minute, in processes."""
    busy: float
    """Share of all CPUs' time."""

    def lines(self) -> list[str]:
        found = (
            f"load: {self.busy:.0%} of the CPUs busy before the first case, load average {self.average:.1f}"
        )
        if self.busy <= BUSY:
            return [found]
        return [f"caveat: {found}: something else runs; compare ratios only, if anything"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """One reading of each, in the unit that its name says."""

    md5_mb_a_second: float
    processes_a_second: float
    write_mb_a_second: float
    """Sequential, with `fsync`."""
    read_mb_a_second: float
    """Sequential, 1 MiB at once, past the page cache; 0 where the file system has no O_DIRECT."""
    random_reads_a_second: float
    """4 KiB each, likewise."""

    def lines(self) -> list[str]:
        disk = f"disk: {self.write_mb_a_second:.0f} MB/s written"
        if self.read_mb_a_second:
            disk += f"; read with O_DIRECT: {self.read_mb_a_second:.0f} MB/s, "
            disk += f"{self.random_reads_a_second:.0f} x 4 KiB/s at random"
        cpu = f"CPU: md5 {self.md5_mb_a_second:.0f} MB/s, {self.processes_a_second:.0f} processes/s"
        return [f"calibration: {cpu}; {disk}"]


def watch_load() -> Load:
    """Do nothing for a second and see who does something."""
    before, start = _ticks(), time.monotonic()
    time.sleep(WATCHED_SECONDS)
    idle = (_ticks() - before) / os.sysconf("SC_CLK_TCK")
    cpus = os.cpu_count() or 1
    busy = 1 - idle / (cpus * (time.monotonic() - start))
    return Load(os.getloadavg()[0], min(1.0, max(0.0, busy)))


def _ticks() -> int:
    """Idle time of all CPUs since the start, in ticks; waiting for a disk is idle, too."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[4]) + int(fields[5])


def calibrate(workshop: Workshop, scale: Scale) -> Calibration:
    """A few seconds' work on one CPU and on the disk of the workshop."""
    data = os.urandom(BLOCK)
    start = time.monotonic()
    for _ in range(HASHED // BLOCK):
        hashlib.md5(data, usedforsecurity=False)
    hashed = HASHED / (time.monotonic() - start) / 1e6
    start = time.monotonic()
    for _ in range(PROCESSES):
        workshop.run("true")
    started = PROCESSES / (time.monotonic() - start)
    path = workshop.directory("calibration") / "file"
    start = time.monotonic()
    with path.open("wb", buffering=0) as file:
        for _ in range(scale.calibrated_bytes // BLOCK):
            file.write(data)
        os.fsync(file.fileno())
    written = scale.calibrated_bytes / (time.monotonic() - start) / 1e6
    sequential, randomly = _read_directly(path, scale)
    path.unlink()
    return Calibration(hashed, started, written, sequential, randomly)


def _read_directly(path: Path, scale: Scale) -> tuple[float, float]:
    """MB/s from beginning to end, and 4 KiB reads a second; zeros without O_DIRECT."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return 0.0, 0.0
    # Its memory begins at a page's, as O_DIRECT wants it.
    with os.fdopen(descriptor, "rb", buffering=0), mmap.mmap(-1, BLOCK) as block:
        page = memoryview(block)[:PAGE]
        start = time.monotonic()
        for offset in range(0, scale.calibrated_bytes, BLOCK):
            if os.preadv(descriptor, [block], offset) != BLOCK:
                raise BenchError(f"{path} cannot be read back")
        seconds = time.monotonic() - start
        start = time.monotonic()
        pages = scale.calibrated_bytes // PAGE
        for number in range(scale.calibrated_reads):
            os.preadv(descriptor, [page], number * 7919 % pages * PAGE)
        reads = scale.calibrated_reads / (time.monotonic() - start)
        page.release()
    return scale.calibrated_bytes / seconds / 1e6, reads
