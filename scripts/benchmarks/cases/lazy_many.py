"""A hundred readers of one missing object, and the first byte of a million files that nobody has."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.datasets import entry_path, write_large_file
from benchmarks.lazy import DATA, check, clone, forget_everything, make_metafile, publish
from benchmarks.measure import Results, Target
from benchmarks.mounts import mounted_fusefs
from benchmarks.scale import Scale
from benchmarks.servers import BUCKET, moved, put_object, serving
from benchmarks.workshop import BenchError, Workshop
from store.manifest import serialize_manifest

READERS = 100
DOWNLOADS = "{} readers of an object of {} bytes: downloads"
WAIT = "mount to first byte of {} files, {}"
NEW, KNOWN = "names new", "names known"
SLACK = 1.001
"""Of a download: rounding, no more."""


def measure_lazy_many(workshop: Workshop, scale: Scale) -> Results:
    """What the server's log says of the one object; then how long `fusefs mount` and one byte take."""
    sizes = (scale.lazy_bytes, scale.shared_bytes)
    targets = [Target(DOWNLOADS.format(READERS, size), SLACK, at_least=False) for size in sizes]
    targets += [Target(WAIT.format(scale.entries, state), 3, at_least=False) for state in (NEW, KNOWN)]
    results = Results("many readers, and many files, of what is on a server", "", tuple(targets))
    results.notes += [
        "downloads: bytes of the object that the server sent, in its lengths",
        f"{NEW}: the manifest is fetched and compiled, too; {KNOWN}: its compiled tree is there, no object",
        f"the {scale.entries} files share {scale.objects} small objects, all of them on the server only",
    ]
    for size in sizes:
        _share(workshop, scale, results, size)
    _begin(workshop, scale, results)
    return results


def _share(workshop: Workshop, scale: Scale, results: Results, size: int) -> None:
    root = workshop.directory("server")
    file = root / BUCKET / DATA / "shared.bin"
    file.parent.mkdir(parents=True)
    write_large_file(file, size)
    dataset = publish(workshop, root, [file])
    with serving(workshop, root, logged=True) as server:
        for _ in range(scale.rounds):
            forget_everything(workshop)
            server.forget_requests()
            place = clone(workshop, dataset.repository, server)
            with mounted_fusefs(workshop, place / f"{DATA}.dvc") as mountpoint:
                listing = workshop.write_list([mountpoint / file.name] * READERS, 0)
                check(workshop.read(listing, readers=READERS), size * READERS)
            sent = moved(server.requests(dataset.keys[0]))
            results.add(DOWNLOADS.format(READERS, size), "", "fusefs", sent / size)


def _begin(workshop: Workshop, scale: Scale, results: Results) -> None:
    root = workshop.directory("server")
    objects = [put_object(root, b"object %d\n" % number) for number in range(scale.objects)]
    entries = ((entry_path(number), objects[number % len(objects)]) for number in range(scale.entries))
    repository = make_metafile(workshop, root, serialize_manifest(entries), scale.entries)
    with serving(workshop, root) as server:
        for _ in range(scale.rounds):
            forget_everything(workshop)
            for state in (NEW, KNOWN):
                place = clone(workshop, repository, server)
                start = time.monotonic()
                with mounted_fusefs(workshop, place / f"{DATA}.dvc") as mountpoint:
                    _read_byte(mountpoint / entry_path(scale.entries // 2))
                    results.add(WAIT.format(scale.entries, state), "s", "fusefs", time.monotonic() - start)


def _read_byte(path: Path) -> None:
    with path.open("rb", buffering=0) as opened:
        if opened.read(1) != b"o":
            raise BenchError(f"{path} does not begin as it should")
