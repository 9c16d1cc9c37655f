"""`fusefs switch` on a live mount that the kernel knows by heart, while a program opens a file in it."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.datasets import entry_path, make_repository, tag_versions, write_manifest, write_objects
from benchmarks.measure import Results
from benchmarks.mounts import mounted_fusefs
from benchmarks.scale import Scale
from benchmarks.workshop import BenchError, Workshop

FILE = entry_path(0)
COMMAND = "fusefs switch, names {}"
GAP = "longest wait of a program that opens a file again and again, {}"


def measure_switch(workshop: Workshop, scale: Scale) -> Results:
    """Every round: a fresh mount, to a version it has not seen, and back to the one it began with."""
    results = Results(f"switch of a mount of {scale.switch_files} files", "", ())
    results.notes += [
        "before each switch all files are read: names, attributes and pages are in the kernel's caches",
        "names cold: the new version's tree is compiled meanwhile; warm: the daemon has it",
        "the command's time includes its start; 'no switch': the longest wait where nothing happens",
    ]
    repository = make_repository(workshop, "switch")
    cache = repository / ".dvc" / "cache"
    objects = write_objects(cache, max(2, min(scale.objects, scale.switch_files)))
    digests = [objects[number % len(objects)] for number in range(scale.switch_files)]
    versions = {"v1": (write_manifest(cache, digests), len(digests))}
    digests[0] = objects[1]
    versions["v2"] = (write_manifest(cache, digests), len(digests))
    tag_versions(workshop, repository, versions)
    for number in range(scale.rounds):
        shutil.rmtree(workshop.compiled_trees, ignore_errors=True)
        with mounted_fusefs(workshop, f"{repository}/data@v1") as mountpoint:
            paths = [mountpoint / entry_path(place) for place in range(scale.switch_files)]
            listing = workshop.write_list(paths, number)
            opened = workshop.write_list([mountpoint / FILE], 0)
            for state, rev, content in (("cold", "v2", b"object 1\n"), ("warm", "v1", b"object 0\n")):
                workshop.read(listing)
                _switch(workshop, results, mountpoint, opened, state, rev, content)
            workshop.read(listing)
            with workshop.spinning(opened) as spinner:
                workshop.run("sleep", "0.5")
            results.add(GAP.format("no switch"), "ms", "fusefs", spinner.longest * 1e3)
    return results


def _switch(
    workshop: Workshop, results: Results, mountpoint: Path, opened: Path, state: str, rev: str, content: bytes
) -> None:
    with workshop.spinning(opened) as spinner:
        seconds = workshop.clock("fusefs", "switch", mountpoint, rev)
    found = (mountpoint / FILE).read_bytes()
    if found != content:
        raise BenchError(f"after the switch to {rev}, {FILE} has {found!r}")
    results.add(COMMAND.format(state), "s", "fusefs", seconds)
    results.add(GAP.format(f"names {state}"), "ms", "fusefs", spinner.longest * 1e3)
