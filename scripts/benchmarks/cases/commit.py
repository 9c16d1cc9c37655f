"""Making a version of a folder: `fusefs commit` against `dvc add`, and against a copy.

`fusefs commit` is done when what it made is on the disk, `dvc add` when it is in memory. So `dvc add` is also
measured with a sync behind it, and what the disk can do: a copy, with a sync behind it.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from benchmarks.datasets import initialize_repository, write_files
from benchmarks.fresh import fresh_file_system
from benchmarks.measure import Results, Target, rotate
from benchmarks.scale import Scale
from benchmarks.workshop import BenchError, Workshop, drop_caches

COPY = "cp, then sync"
SYSTEMS = {
    "dvc add": ("dvc", "add", "--quiet", "data"),
    COPY: ("cp", "-r", "data", "copy"),
    "fusefs": ("fusefs", "commit", "data"),
}
SYNCED = {"dvc add": "dvc add, then sync", COPY: COPY}
CHANGED = 100
"""One file in so many gets other bytes between two commits."""
TARGETS = (Target("first commit", 2, than="dvc add"),)
ROOM = 1 << 29
"""Bytes beside the data, its copy in the cache and half as much again for what the file system needs."""


def compare_commit(workshop: Workshop, scale: Scale) -> Results:
    """Fresh repositories in every round: empty caches, no state of earlier hashing."""
    size = scale.commit_files * scale.commit_bytes
    results = Results(f"commit of {size / 1e9:.3g} GB in {scale.commit_files} files", "dvc add", TARGETS)
    results.notes.append(f"wall time of the command; the files are {'cold' if scale.cold else 'in memory'}")
    data = workshop.directory("source") / "data"
    write_files(data, scale.commit_files, scale.commit_bytes)
    for number in range(scale.rounds):
        oids = set()
        for system in rotate(tuple(SYSTEMS), number):
            with fresh_file_system(workshop, size * 3 + ROOM) as (place, note):
                results.notes += [note] * (note not in results.notes)
                made = _commit(workshop, scale, results, system, data, place / "repository")
                oids.update(made)
        if len(oids) != 1:
            raise BenchError(f"the systems made different versions: {oids}")
    return results


def _commit(
    workshop: Workshop, scale: Scale, results: Results, system: str, data: Path, repository: Path
) -> list[str]:
    """Commit a copy of `data` three times; the metafile that came of it, none of a mere copy."""
    initialize_repository(workshop, repository)
    shutil.copytree(data, repository / "data")
    # Both keep what they have hashed outside the repository, too: on the same file system here.
    environment = {
        "DVC_SITE_CACHE_DIR": str(repository / ".site"),
        "XDG_STATE_HOME": str(repository / ".state"),
        "XDG_CACHE_HOME": str(repository / ".cache"),
    }
    if scale.cold:
        drop_caches()
    else:
        workshop.run("sync")
    seconds = workshop.clock(*SYSTEMS[system], cwd=repository, **environment)
    size = scale.commit_files * scale.commit_bytes
    if system != COPY:
        results.add("first commit", "MB/s", system, size / seconds / 1e6)
    if system in SYNCED:
        seconds += workshop.clock("sync", "--file-system", ".", cwd=repository)
        results.add("first commit", "MB/s", SYNCED[system], size / seconds / 1e6)
    if system == COPY:
        return []
    seconds = workshop.clock(*SYSTEMS[system], cwd=repository, **environment)
    results.add("again, unchanged", "s", system, seconds)
    _change(repository / "data", scale.commit_bytes)
    seconds = workshop.clock(*SYSTEMS[system], cwd=repository, **environment)
    results.add(f"again, one file in {CHANGED} changed", "s", system, seconds)
    return [(repository / "data.dvc").read_text()]


def _change(folder: Path, size: int) -> None:
    bytes_of = random.Random(CHANGED)
    for path in sorted(path for path in folder.rglob("*") if path.is_file())[::CHANGED]:
        path.write_bytes(bytes_of.randbytes(size))
