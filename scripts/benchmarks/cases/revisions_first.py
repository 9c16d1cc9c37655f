"""`TARGET@REV` from nothing: until its names are listed, and until the first byte of a file is read."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from benchmarks.datasets import entry_path, make_repository, tag_versions, write_manifest, write_objects
from benchmarks.measure import Results
from benchmarks.mounts import first_access, mounted_fusefs
from benchmarks.scale import Scale
from benchmarks.workshop import Workshop

PROGRAM = Path(__file__).parents[1] / "first_dvc.py"
FILE = entry_path(0)
DVC_ONCE_FROM = 100_000
"""Files from which on DVC is measured in the first round only: it takes most of a minute."""
DVC_WHOLE_TO = 10_000
"""Files up to which `dvc get` copies the whole dataset, once."""


def compare_first_access(workshop: Workshop, scale: Scale) -> Results:
    """fusefs, `DVCFileSystem` and `dvc get` at the same tag of one repository."""
    results = Results("first access to a git revision", "DVCFileSystem", ())
    results.notes += [
        f"the datasets share {scale.objects} distinct small objects, all of them in the cache and in memory",
        "first listing: of the root and a directory in it; first byte: of a file; from a command's start",
        "names cold: neither has seen the version (no compiled tree; DVC's site cache empty); warm: it has",
        "DVCFileSystem: a Python program's start included; 'imported' counts from when DVC is imported",
        f"dvc get: of that file only; DVC once only from {DVC_ONCE_FROM} files on",
    ]
    repository = make_repository(workshop, "first")
    cache = repository / ".dvc" / "cache"
    objects = write_objects(cache, scale.objects)
    versions = {}
    for count in scale.first_files:
        oid = write_manifest(cache, [objects[number % len(objects)] for number in range(count)])
        versions[f"v{count}"] = (oid, count)
    tag_versions(workshop, repository, versions)
    case = _FirstAccess(workshop, results, repository)
    for number in range(scale.rounds):
        for count in scale.first_files:
            case.measure(count, with_dvc=number == 0 or count < DVC_ONCE_FROM)
    for count in scale.first_files:
        if count <= DVC_WHOLE_TO:
            case.copy_whole(count)
    return results


class _FirstAccess:
    def __init__(self, workshop: Workshop, results: Results, repository: Path) -> None:
        self._workshop = workshop
        self._results = results
        self._repository = repository
        self._copies = workshop.directory("copies")

    def measure(self, count: int, *, with_dvc: bool) -> None:
        shutil.rmtree(self._workshop.compiled_trees, ignore_errors=True)
        for state in ("cold", "warm"):
            name = f"{count} files, names {state}"
            self._with_fusefs(f"v{count}", name)
            if with_dvc:
                for measure in (self._with_file_system, self._with_get):
                    if state == "cold":
                        shutil.rmtree(self._workshop.dvc_state, ignore_errors=True)
                    measure(f"v{count}", name)

    def copy_whole(self, count: int) -> None:
        shutil.rmtree(self._workshop.dvc_state, ignore_errors=True)
        seconds = self._get(f"v{count}", "data")
        self._results.add(f"{count} files, copied whole", "s", "dvc get", seconds)

    def _add(self, name: str, system: str, listed: float, read: float) -> None:
        self._results.add(f"{name}: first listing", "s", system, listed)
        self._results.add(f"{name}: first byte", "s", system, read)

    def _with_fusefs(self, tag: str, name: str) -> None:
        start = time.monotonic()
        with mounted_fusefs(self._workshop, f"{self._repository}/data@{tag}") as mountpoint:
            listed, read = first_access(mountpoint, FILE)
        self._add(name, "fusefs", listed - start, read - start)

    def _with_file_system(self, tag: str, name: str) -> None:
        start = time.monotonic()
        said = self._workshop.run(sys.executable, PROGRAM, self._repository, tag, "data", f"data/{FILE}")
        imported, listed, read = map(float, said.split())
        self._add(name, "DVCFileSystem", listed - start, read - start)
        self._add(name, "DVCFileSystem, imported", listed - imported, read - imported)

    def _with_get(self, tag: str, name: str) -> None:
        self._results.add(f"{name}: first byte", "s", "dvc get", self._get(tag, f"data/{FILE}"))

    def _get(self, tag: str, path: str) -> float:
        copy = self._copies / "copy"
        seconds = self._workshop.clock(
            "dvc", "get", "--quiet", "--rev", tag, "--out", copy, self._repository, path
        )
        if copy.is_dir():
            shutil.rmtree(copy)
        else:
            copy.unlink()
        return seconds
