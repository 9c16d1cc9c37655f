"""Making a version of a folder: `fusefs commit` against `dvc add`."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.datasets import initialize_repository, write_files
from benchmarks.fresh import fresh_file_system
from benchmarks.measure import Results, Target, rotate
from benchmarks.scale import Scale
from benchmarks.workshop import BenchError, Workshop, drop_caches

SYSTEMS = {"dvc add": ("dvc", "add", "--quiet", "data"), "fusefs": ("fusefs", "commit", "data")}
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
                oids.add(_commit(workshop, scale, results, system, data, place / "repository"))
        if len(oids) != 1:
            raise BenchError(f"the systems made different versions: {oids}")
    return results


def _commit(
    workshop: Workshop, scale: Scale, results: Results, system: str, data: Path, repository: Path
) -> str:
    """Commit a copy of `data` twice; the metafile that came of it."""
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
    results.add("first commit", "MB/s", system, size / seconds / 1e6)
    seconds = workshop.clock(*SYSTEMS[system], cwd=repository, **environment)
    results.add("again, unchanged", "s", system, seconds)
    return (repository / "data.dvc").read_text()
