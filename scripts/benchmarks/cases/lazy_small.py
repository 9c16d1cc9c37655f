"""Many small objects that are on a server only: read by 64 readers, near and 20 ms away."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.datasets import write_files
from benchmarks.lazy import (
    BARE_FUSE,
    DATA,
    HTTP,
    LazyDataset,
    bare_fuse_command,
    check,
    clone,
    forget_everything,
    get_with_obstore,
    object_folders,
    publish,
    rclone_command,
    s3fs_command,
)
from benchmarks.measure import Results, Target, rotate
from benchmarks.memory_watch import watch_memory
from benchmarks.mounts import daemon_pid, mounted_by, mounted_fusefs
from benchmarks.scale import Scale
from benchmarks.servers import BUCKET, Server, further_away, own_rate, serving, write_listings
from benchmarks.workshop import Reading, Workshop

MILLISECONDS = 20
PEERS = {"rclone mount": "rclone", "s3fs": "s3fs", "dvc pull": "dvc"}
"""Systems by the program that they need."""
S3FS_FILES = 1000
"""Files that s3fs reads: it asks three times for each, and a rate does not need all of them."""
BARE, THREADS = "obstore", "obstore, threads"
NEAR, FAR = "cold", f"cold, {MILLISECONDS} ms away"
PEAK, MIDDLE = "daemon's peak memory, {}", "daemon's median memory, {}"
TARGETS = (
    Target(NEAR, 0.7, than=BARE),
    Target(FAR, 0.8, than=BARE),
    *(Target(which, 1, than=peer) for which in (NEAR, FAR) for peer in PEERS),
    *(Target(PEAK.format(which), 256 * 1.048576, at_least=False) for which in (NEAR, FAR)),
)


def compare_lazy_small(workshop: Workshop, scale: Scale) -> Results:
    """fusefs, bare obstore, and what else shows or brings files of a server."""
    results = Results(
        f"{scale.lazy_files} objects of {scale.lazy_bytes} bytes on a server, {scale.lazy_readers} readers",
        BARE,
        TARGETS,
    )
    results.notes += [
        "nginx with static files at unsigned S3 paths; its own rate is that of a client that only asks;",
        " it lists the objects as S3 does, by static files, too",
        f"{MILLISECONDS} ms away: every request waits so long in a proxy, whose own rate is given likewise",
        f"{BARE}: {scale.lazy_readers} requests in flight in one process, async; bytes are dropped;",
        f" {THREADS}: as many threads; fusefs: mounted before the clock starts, nothing in any cache",
        f"{BARE_FUSE}: a mount with nothing beside, that verifies and keeps nothing",
        f"rclone mount, s3fs: the same files by their names, s3fs at most {S3FS_FILES} of them;",
        " dvc pull: the whole command, its start included",
    ]
    root = workshop.directory("server")
    files = write_files(root / BUCKET / DATA, scale.lazy_files, scale.lazy_bytes)
    dataset = publish(workshop, root, files)
    folders: dict[str, list[Path]] = {"": [], f"{DATA}/": []}
    for file in files:
        folders.setdefault(f"{DATA}/{file.parent.name}/", []).append(file)
    write_listings(root, folders | object_folders(root))
    peers = tuple(name for name, program in PEERS.items() if shutil.which(program, path=_path(workshop)))
    results.notes += [f"not installed, so not measured: {name}" for name in PEERS if name not in peers]
    with serving(workshop, root) as near, further_away(workshop, near, MILLISECONDS) as far:
        for number in range(scale.rounds):
            for which, server in ((NEAR, near), (FAR, far)):
                case = _LazySmall(workshop, scale, results, dataset, server, which)
                case.measure_server()
                for system in rotate(("fusefs", BARE, THREADS, BARE_FUSE, *peers), number):
                    case.measure(system, number)
    return results


def _path(workshop: Workshop) -> str:
    return workshop.environment["PATH"]


class _LazySmall:
    def __init__(
        self,
        workshop: Workshop,
        scale: Scale,
        results: Results,
        dataset: LazyDataset,
        server: Server,
        which: str,
    ) -> None:
        self._workshop = workshop
        self._readers = scale.lazy_readers
        self._results = results
        self._dataset = dataset
        self._server = server
        self._which = which

    def measure_server(self) -> None:
        paths = [f"/{BUCKET}/{key}" for key in self._dataset.keys]
        reading = own_rate(self._workshop, self._server, paths, self._readers)
        self._add("the server alone", check(reading, self._dataset.bytes))

    def measure(self, system: str, seed: int) -> None:
        forget_everything(self._workshop)
        if system == "fusefs":
            self._read_with_fusefs(seed)
        elif system in (BARE, THREADS):
            how = "async" if system == BARE else "threads"
            reading = get_with_obstore(self._workshop, self._server, self._dataset.keys, how, self._readers)
            self._add(system, check(reading, self._dataset.bytes))
        elif system == "dvc pull":
            self._pull()
        elif system == BARE_FUSE:
            command = bare_fuse_command(self._workshop, self._dataset, self._server)
            with mounted_by(self._workshop, *command) as mountpoint:
                self._add(system, self._read(mountpoint, self._dataset.paths, seed))
        else:
            make_command = rclone_command if system == "rclone mount" else s3fs_command
            paths = self._dataset.paths[: S3FS_FILES if system == "s3fs" else None]
            with mounted_by(self._workshop, *make_command(self._server)) as mountpoint:
                self._add(system, self._read(mountpoint, paths, seed))

    def _add(self, system: str, reading: Reading) -> None:
        self._results.add(self._which, "files/s", system, reading.files / reading.seconds)

    def _read(self, mountpoint: Path, paths: Sequence[Path], seed: int) -> Reading:
        listing = self._workshop.write_list([mountpoint / path for path in paths], seed)
        expected = self._dataset.bytes * len(paths) // len(self._dataset.paths)
        return check(self._workshop.read(listing, readers=self._readers), expected)

    def _read_with_fusefs(self, seed: int) -> None:
        repository = clone(self._workshop, self._dataset.repository, self._server)
        with (
            mounted_fusefs(self._workshop, repository / f"{DATA}.dvc") as mountpoint,
            watch_memory(daemon_pid(self._workshop, mountpoint)) as memory,
        ):
            self._add("fusefs", self._read(mountpoint, self._dataset.paths, seed))
        self._results.add(PEAK.format(self._which), "MB", "fusefs", memory.peak / 1e6)
        self._results.add(MIDDLE.format(self._which), "MB", "fusefs", memory.middle / 1e6)

    def _pull(self) -> None:
        repository = clone(self._workshop, self._dataset.repository, self._server, HTTP)
        start = time.monotonic()
        self._workshop.run("dvc", "pull", "-q", "-j", str(self._readers), cwd=repository)
        seconds = time.monotonic() - start
        files = [repository / DATA / path for path in self._dataset.paths]
        size = sum(file.stat().st_size for file in files)
        self._add("dvc pull", check(Reading(seconds, size, len(files)), self._dataset.bytes))
