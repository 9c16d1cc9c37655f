"""A second epoch in the order of the first, with half the dataset in the cache: does prefetching pay?"""

from __future__ import annotations

from benchmarks.datasets import write_files
from benchmarks.lazy import DATA, LazyDataset, check, clone, forget_everything, publish
from benchmarks.measure import Results, Target, rotate
from benchmarks.mounts import mounted_fusefs
from benchmarks.scale import Scale
from benchmarks.servers import BUCKET, Server, further_away, serving
from benchmarks.workshop import Workshop

MILLISECONDS = 20
READERS = 4
"""As a training job's loader has workers."""
ON, OFF = "fusefs", "fusefs, no prefetch"
WITHOUT = "--no-prefetch"
"""What turns it off; a fusefs without this flag does not prefetch, and there is nothing to compare."""
SECOND = "second epoch"
TARGETS = (Target(SECOND, 2, than=OFF),)


def compare_lazy_epochs(workshop: Workshop, scale: Scale) -> Results:
    """Two epochs of one random order on one mount, with and without what the first one taught."""
    size = scale.lazy_files * scale.lazy_bytes
    results = Results(
        f"two epochs of {scale.lazy_files} files, {MILLISECONDS} ms from the server", OFF, TARGETS
    )
    results.notes += [
        f"{READERS} readers, the same random order in both epochs; the cache may hold half of {size} bytes",
    ]
    known = workshop.run("fusefs", "mount", "--help")
    missing = [flag for flag in (WITHOUT, "--cache-size") if flag not in known]
    if missing:
        results.notes.append(f"not measured: this fusefs has no {' and no '.join(missing)}")
        return results
    root = workshop.directory("server")
    files = write_files(root / BUCKET / DATA, scale.lazy_files, scale.lazy_bytes)
    dataset = publish(workshop, root, files)
    with serving(workshop, root) as near, further_away(workshop, near, MILLISECONDS) as server:
        for number in range(scale.rounds):
            for system in rotate((ON, OFF), number):
                _read_twice(workshop, results, dataset, server, system, number)
    return results


def _read_twice(
    workshop: Workshop, results: Results, dataset: LazyDataset, server: Server, system: str, seed: int
) -> None:
    forget_everything(workshop)
    flags = ["--cache-size", str(dataset.bytes // 2)] + [WITHOUT] * (system == OFF)
    place = clone(workshop, dataset.repository, server)
    with mounted_fusefs(workshop, place / f"{DATA}.dvc", *flags) as mountpoint:
        listing = workshop.write_list([mountpoint / path for path in dataset.paths], seed)
        for epoch in ("first epoch", SECOND):
            reading = check(workshop.read(listing, readers=READERS), dataset.bytes)
            results.add(epoch, "files/s", system, reading.files / reading.seconds)
