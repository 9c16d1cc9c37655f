"""What a miss costs in native mode and in fuse mode, and how many a server has at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.datasets import write_files
from benchmarks.lazy import DATA, LazyDataset, check, clone, forget_everything, object_folders, publish
from benchmarks.measure import Results, Target, rotate
from benchmarks.mounts import mounted_fusefs
from benchmarks.scale import Scale
from benchmarks.servers import BUCKET, Server, serving, way_to, write_listings
from benchmarks.workshop import Workshop

MODES = ("native", "fuse")
MILLISECONDS = 500
"""That a request takes to the server whose requests at once are counted: time for all readers to ask."""
ALONE_FILES = 2000
"""Files that a single reader reads: a mean does not need all of them."""
AT_ONCE = "requests for objects of one directory, at once"


def _name(readers: int) -> str:
    return f"a miss, {readers} reader{'s' if readers > 1 else ''}"


def compare_miss(workshop: Workshop, scale: Scale) -> Results:
    """Each file is read once, by a single reader and then by many."""
    targets = (
        *(Target(_name(n), 1.3, "fuse", "native", at_least=False) for n in (1, scale.lazy_readers)),
        *(Target(AT_ONCE, scale.lazy_readers, system=mode) for mode in MODES),
    )
    results = Results(f"misses: objects of {scale.lazy_bytes} bytes on a server", "fuse", targets)
    results.notes += [
        "nginx with static files, near; a fresh mount and nothing in any cache; all sizes are known",
        "with many readers: the time of all, divided by the files",
        f"at once: {scale.lazy_readers} readers of as many files, each request takes {MILLISECONDS} ms",
    ]
    root = workshop.directory("server")
    files = write_files(root / BUCKET / DATA, scale.lazy_files, scale.lazy_bytes)
    dataset = publish(workshop, root, files)
    write_listings(root, object_folders(root))
    case = _Miss(workshop, results, dataset, scale.lazy_readers)
    with serving(workshop, root) as server:
        for number in range(scale.rounds):
            for mode in rotate(MODES, number):
                case.measure_cost(server, mode)
                case.count_requests(server, mode)
    return results


@dataclass(frozen=True, slots=True)
class _Miss:
    workshop: Workshop
    results: Results
    dataset: LazyDataset
    readers: int

    def measure_cost(self, server: Server, mode: str) -> None:
        alone = min(ALONE_FILES, len(self.dataset.paths) // 2)
        parts = {1: self.dataset.paths[:alone], self.readers: self.dataset.paths[alone:]}
        forget_everything(self.workshop)
        repository = clone(self.workshop, self.dataset.repository, server)
        with mounted_fusefs(self.workshop, repository / f"{DATA}.dvc", "--mode", mode) as mountpoint:
            self._look(mountpoint)
            for readers, paths in parts.items():
                seconds = self._read(mountpoint, paths, readers)
                self.results.add(_name(readers), "ms", mode, 1000 * seconds / len(paths))

    def count_requests(self, server: Server, mode: str) -> None:
        """Files of one directory, all at the same time."""
        folder = self.dataset.paths[0].parent
        paths = [path for path in self.dataset.paths if path.parent == folder][: self.readers]
        forget_everything(self.workshop)
        with way_to(self.workshop, server.port, MILLISECONDS) as way:
            far = way.leading_to(server)
            repository = clone(self.workshop, self.dataset.repository, far)
            with mounted_fusefs(self.workshop, repository / f"{DATA}.dvc", "--mode", mode) as mountpoint:
                self._look(mountpoint)
                way.most_at_once()
                self._read(mountpoint, paths, self.readers)
                self.results.add(AT_ONCE, "", mode, way.most_at_once())

    def _look(self, mountpoint: Path) -> None:
        """Have all sizes known, so that nothing but objects is asked for."""
        self.workshop.run("find", mountpoint, "-size", "+0")

    def _read(self, mountpoint: Path, paths: Sequence[Path], readers: int) -> float:
        listing = self.workshop.write_list([mountpoint / path for path in paths], 0)
        expected = self.dataset.bytes * len(paths) // len(self.dataset.paths)
        return check(self.workshop.read(listing, readers=readers), expected).seconds
