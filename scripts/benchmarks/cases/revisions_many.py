"""Many versions of one dataset from one mount: time to open the last, and memory of the daemon."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

from benchmarks.datasets import entry_path, make_repository, tag_versions, write_manifest, write_objects
from benchmarks.measure import Results, Target
from benchmarks.mounts import daemon_pid, first_access, mounted_fusefs
from benchmarks.scale import Scale
from benchmarks.workshop import BenchError, Workshop, memory_of

CHANGED = 0.01
FILE = entry_path(0)
ONE = "one version"
ANONYMOUS = "daemon's own (anonymous) memory"
RESIDENT = "daemon's resident memory"


def measure_many_revisions(workshop: Workshop, scale: Scale) -> Results:
    """A mount of the first version through which all are opened, by `.fusefs/revs/TAG`."""
    many = f"{scale.versions} versions"
    target = Target(ANONYMOUS, 1.5, than=ONE, system=many, at_least=False)
    title = f"{scale.versions} versions of {scale.version_files} files, each {CHANGED:.0%} changed"
    results = Results(title, ONE, (target,))
    results.notes += [
        f"the files share {scale.objects} distinct small objects, all of them in the cache and in memory",
        "opened: the directory of the version and one in it are listed, the first byte of a file is read",
        "names cold: the version's tree is compiled then; warm: it was, and another daemon opens it",
        "memory: in the first round, after find -size +0 over all that the daemon serves",
    ]
    repository = make_repository(workshop, "many")
    tags = _write_versions(workshop, scale, repository)
    for number in range(scale.rounds):
        shutil.rmtree(workshop.compiled_trees, ignore_errors=True)
        with mounted_fusefs(workshop, f"{repository}/data@{tags[0]}") as mountpoint:
            if number == 0:
                _list(workshop, scale, mountpoint)
                _add_memory(workshop, results, mountpoint, ONE)
            seconds = [_open(mountpoint, tag) for tag in tags]
            last = f"open the {scale.versions}th version"
            results.add(f"{last}, names cold", "s", many, seconds[-1])
            results.add(f"open all {scale.versions} versions, names cold", "s", many, sum(seconds))
            results.add("open an opened version again", "s", many, _open(mountpoint, tags[-1]))
            if number == 0:
                for tag in tags:
                    _list(workshop, scale, _revision(mountpoint, tag))
                _add_memory(workshop, results, mountpoint, many)
        with mounted_fusefs(workshop, f"{repository}/data@{tags[0]}") as mountpoint:
            warm = [_open(mountpoint, tag) for tag in tags]
            results.add(f"{last}, names warm", "s", many, warm[-1])
    return results


def _write_versions(workshop: Workshop, scale: Scale, repository: Path) -> list[str]:
    cache = repository / ".dvc" / "cache"
    objects = write_objects(cache, scale.objects)
    chance = random.Random(scale.versions)
    digests = [objects[number % len(objects)] for number in range(scale.version_files)]
    versions = {}
    for number in range(scale.versions):
        versions[f"v{number:03d}"] = (write_manifest(cache, digests), len(digests))
        for place in chance.sample(range(len(digests)), max(1, int(len(digests) * CHANGED))):
            digests[place] = chance.choice(objects)
    tag_versions(workshop, repository, versions)
    return list(versions)


def _revision(mountpoint: Path, tag: str) -> Path:
    return mountpoint / ".fusefs" / "revs" / tag


def _open(mountpoint: Path, tag: str) -> float:
    """Seconds until a version is listed and the first byte of a file in it is read."""
    start = time.monotonic()
    _, read = first_access(_revision(mountpoint, tag), FILE)
    return read - start


def _list(workshop: Workshop, scale: Scale, root: Path) -> None:
    found = workshop.run("find", root, "-type", "f", "-size", "+0", "-printf", ".")
    if len(found) != scale.version_files:
        raise BenchError(f"find saw {len(found)} files of {scale.version_files} in {root}")


def _add_memory(workshop: Workshop, results: Results, mountpoint: Path, system: str) -> None:
    memory = memory_of(daemon_pid(workshop, mountpoint))
    results.add(ANONYMOUS, "MB", system, memory["RssAnon"] / 1e6)
    results.add(RESIDENT, "MB", system, memory["VmRSS"] / 1e6)
