"""A version as tar shards, read from the first to the last, against `cat` of the same files."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.datasets import make_repository, write_files, write_large_file
from benchmarks.measure import Results, Target, rotate
from benchmarks.mounts import mounted_fusefs
from benchmarks.scale import Scale
from benchmarks.workshop import Workshop, drop_caches

SAMPLES = 1000
FILES, SHARDS, DISK = "files of the mount", "shards of the mount", "files on the disk"
OPENED = "members read by opening all shards"
SMALL, LARGE = "small", "large"
TARGETS = (
    *(
        Target(f"{which} files, {state}", 0.8, than=FILES, system=SHARDS)
        for which in (SMALL, LARGE)
        for state in ("warm", "cold")
    ),
    Target(OPENED, 0, system=SHARDS, at_least=False),
)


def compare_shards(workshop: Workshop, scale: Scale) -> Results:
    """Each system reads all files in their order; MB/s of files, without what a shard has around them."""
    results = Results("tar shards", FILES, TARGETS)
    results.notes += [
        f"small: {scale.small_files} files of {scale.small_bytes} bytes, {SAMPLES} to a shard; "
        f"large: one of {scale.large_bytes >> 20} MiB",
        "warm: a fresh mount, of which the kernel knows nothing, and the objects are in the page cache",
    ]
    small, large = make_repository(workshop, SMALL), make_repository(workshop, LARGE)
    write_files(small / "data", scale.small_files, scale.small_bytes)
    (large / "data").mkdir()
    write_large_file(large / "data" / "large.bin", scale.large_bytes)
    for repository in (small, large):
        workshop.run("fusefs", "commit", "data", cwd=repository)
    for number in range(scale.rounds):
        for which, repository in ((SMALL, small), (LARGE, large)):
            for system in rotate((DISK, FILES, SHARDS), number):
                _measure(workshop, results, which, repository, system, cold=False)
                if scale.cold:
                    _measure(workshop, results, which, repository, system, cold=True)
    return results


def _measure(
    workshop: Workshop, results: Results, which: str, repository: Path, system: str, *, cold: bool
) -> None:
    originals = sorted(path for path in (repository / "data").rglob("*") if path.is_file())
    content = sum(path.stat().st_size for path in originals)
    if cold:
        drop_caches()
    else:  # brings what will be read into the page cache
        objects = (repository / ".dvc" / "cache" / "files").rglob("*")
        for paths in ([path for path in objects if path.is_file()], originals):
            workshop.read(workshop.write_list(paths, 0))
    # In fuse mode, where all opens are counted; views are served alike in both.
    with mounted_fusefs(workshop, repository / "data.dvc", "--mode", "fuse") as mountpoint:
        if system == DISK:
            paths = originals
        elif system == FILES:
            paths = [mountpoint / path.relative_to(repository / "data") for path in originals]
        else:
            paths = _open_shards(results, mountpoint)
        reading = workshop.read(workshop.write_list(paths, None))
    results.add(
        f"{which} files, {'cold' if cold else 'warm'}", "MB/s", system, content / reading.seconds / 1e6
    )


def _open_shards(results: Results, mountpoint: Path) -> list[Path]:
    """The shards, each of which was opened; the members that were read for that are a measure."""
    before = _opened(mountpoint)
    shards = sorted((mountpoint / ".fusefs" / "shards" / str(SAMPLES)).glob("*.tar"))
    for shard in shards:
        with shard.open("rb", buffering=0) as file:
            file.seek(0, 2)
    results.add(OPENED, "members", SHARDS, _opened(mountpoint) - before)
    return shards


def _opened(mountpoint: Path) -> int:
    """How many objects the mount has opened for readers."""
    status = json.loads((mountpoint / ".fusefs" / "status").read_text())
    return int(status["hits"]) + int(status["misses"])
