"""One large object that is on a server only: from its beginning to its end, and a piece of its middle."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.datasets import write_large_file
from benchmarks.lazy import (
    BARE_FUSE,
    DATA,
    LazyDataset,
    bare_fuse_command,
    check,
    clone,
    forget_everything,
    get_with_obstore,
    publish,
    rclone_command,
)
from benchmarks.measure import Results, Target, rotate
from benchmarks.mounts import mounted_by, mounted_fusefs, read_ahead_of
from benchmarks.scale import Scale
from benchmarks.servers import BUCKET, Server, moved, own_rate, serving, write_listings
from benchmarks.workshop import BenchError, Reading, Workshop

NAME = "large.bin"
PIECE = 1 << 20
READ_AHEAD = 1 << 20
"""What the kernel is told by fusefs."""
SEQUENTIAL, MOVED, WAITED = "sequential", "1 MiB from the middle: moved", "1 MiB from the middle: time"
TARGETS = (Target(SEQUENTIAL, 0.8, than="obstore"), Target(MOVED, 8, at_least=False))


def compare_lazy_large(workshop: Workshop, scale: Scale) -> Results:
    """fusefs, bare obstore, a bare mount of it, and `rclone mount`."""
    results = Results(f"one object of {scale.large_bytes >> 20} MiB on a server", "obstore", TARGETS)
    results.notes += [
        "the server: nginx with static files, asked by a client that drops what comes, as obstore does",
        f"{BARE_FUSE}: a mount with nothing beside, that verifies and keeps nothing;",
        " the kernel reads as far ahead as for fusefs",
        "moved: bytes of the object that the server sent, as its log says once the mount has ended",
    ]
    root = workshop.directory("server")
    (root / BUCKET / DATA).mkdir(parents=True)
    file = root / BUCKET / DATA / NAME
    write_large_file(file, scale.large_bytes)
    dataset = publish(workshop, root, [file])
    write_listings(root, {"": [], f"{DATA}/": [file]})
    with serving(workshop, root, logged=True) as server:
        for number in range(scale.rounds):
            reading = own_rate(workshop, server, [f"/{BUCKET}/{dataset.keys[0]}"], 1)
            _add(results, "the server alone", reading)
            for system in rotate(("fusefs", "obstore", BARE_FUSE, "rclone mount"), number):
                forget_everything(workshop)
                _add(results, system, check(_read(workshop, dataset, server, system), dataset.bytes))
            _read_piece(workshop, results, dataset, server)
    return results


def _add(results: Results, system: str, reading: Reading) -> None:
    results.add(SEQUENTIAL, "MB/s", system, reading.bytes / reading.seconds / 1e6)


def _read(workshop: Workshop, dataset: LazyDataset, server: Server, system: str) -> Reading:
    if system == "obstore":
        return get_with_obstore(workshop, server, dataset.keys, "async", 1)
    mounted: AbstractContextManager[Path]
    if system == "fusefs":
        mounted = mounted_fusefs(workshop, clone(workshop, dataset.repository, server) / f"{DATA}.dvc")
    elif system == BARE_FUSE:
        mounted = mounted_by(workshop, *bare_fuse_command(workshop, dataset, server))
    else:
        mounted = mounted_by(workshop, *rclone_command(server))
    with mounted as mountpoint:
        if system == BARE_FUSE and os.geteuid() == 0:
            read_ahead_of(mountpoint).write_text(str(READ_AHEAD >> 10))
        return workshop.read(workshop.write_list([mountpoint / NAME], 0), block=1 << 20)


def _read_piece(workshop: Workshop, results: Results, dataset: LazyDataset, server: Server) -> None:
    forget_everything(workshop)
    server.forget_requests()
    middle = dataset.bytes // 2
    with mounted_fusefs(workshop, clone(workshop, dataset.repository, server) / f"{DATA}.dvc") as mountpoint:
        start = time.monotonic()
        with (mountpoint / NAME).open("rb", buffering=0) as opened:
            piece = os.pread(opened.fileno(), PIECE, middle)
        seconds = time.monotonic() - start
    with (dataset.root / BUCKET / DATA / NAME).open("rb", buffering=0) as original:
        if piece != os.pread(original.fileno(), PIECE, middle):
            raise BenchError("a piece of the large file is not what it should be")
    results.add(MOVED, "MiB", "fusefs", moved(server.requests(dataset.keys[0])) / (1 << 20))
    results.add(WAITED, "ms", "fusefs", seconds * 1e3)
