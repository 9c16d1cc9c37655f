"""Making a version of a folder: `fusefs commit` against `dvc add`."""

from __future__ import annotations

import shutil

from benchmarks.datasets import make_repository, write_files
from benchmarks.measure import Results, Target
from benchmarks.scale import Scale
from benchmarks.workshop import BenchError, Workshop, drop_caches

SYSTEMS = {"dvc add": ("dvc", "add", "--quiet", "data"), "fusefs": ("fusefs", "commit", "data")}
TARGETS = (Target("first commit", 2, than="dvc add"),)


def compare_commit(workshop: Workshop, scale: Scale) -> Results:
    """Fresh repositories on one disk in every round: empty caches, no state of earlier hashing."""
    size = scale.commit_files * scale.commit_bytes
    results = Results(f"commit of {size / 1e9:.3g} GB in {scale.commit_files} files", "dvc add", TARGETS)
    results.notes.append(f"wall time of the command; the files are {'cold' if scale.cold else 'in memory'}")
    data = workshop.directory("source") / "data"
    write_files(data, scale.commit_files, scale.commit_bytes)
    for number in range(scale.rounds):
        oids = set()
        for system, command in SYSTEMS.items():
            repository = make_repository(workshop, f"commit-{number}")
            shutil.copytree(data, repository / "data")
            # DVC keeps what it has hashed outside the repository, too.
            environment = {"DVC_SITE_CACHE_DIR": str(repository / ".site")}
            environment |= {
                "XDG_STATE_HOME": str(repository / ".state"),
                "XDG_CACHE_HOME": str(repository / ".cache"),
            }
            if scale.cold:
                drop_caches()
            seconds = workshop.clock(*command, cwd=repository, **environment)
            results.add("first commit", "MB/s", system, size / seconds / 1e6)
            seconds = workshop.clock(*command, cwd=repository, **environment)
            results.add("again, unchanged", "s", system, seconds)
            oids.add((repository / "data.dvc").read_text())
            shutil.rmtree(repository)
        if len(oids) != 1:
            raise BenchError(f"the systems made different versions: {oids}")
    return results
