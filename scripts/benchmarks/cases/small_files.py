"""Many small files, read whole in shuffled order, by one reader and by four."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.datasets import commit_all, make_repository, write_files
from benchmarks.measure import Results, Target, rotate
from benchmarks.mounts import mounted_fusefs, mounted_rclone
from benchmarks.scale import Scale
from benchmarks.workshop import Workshop, drop_caches

READERS = (1, 4)
IN_FUSE = "fusefs, fuse mode"
SYSTEMS = ("disk", "fusefs", IN_FUSE, "rclone mount")


def _name(readers: int, which: str) -> str:
    return f"{readers} reader{'s' if readers > 1 else ''}, {which}"


TARGETS = tuple(
    Target(_name(readers, which), factor, than="rclone mount", system=IN_FUSE)
    for readers in READERS
    for which, factor in (("first pass", 2), ("second pass", 6))
)


def compare_small_files(workshop: Workshop, scale: Scale) -> Results:
    """fusefs, the same files on the disk, `rclone mount` and `DVCFileSystem`."""
    results = Results(f"{scale.small_files} files of {scale.small_bytes} bytes", "disk", TARGETS)
    results.notes += [
        "fusefs: in the mode that this machine allows",
        "first pass: a fresh mount, of which the kernel knows neither names nor pages; the bytes are in the",
        " page cache, as are the disk's names; second pass: again; cold: nothing is in memory",
        "rclone mount: a local directory, --read-only, its defaults otherwise (no VFS cache)",
        "DVCFileSystem: in-process Python without a mount, at revision HEAD; files opened and read,",
        f" {scale.dvc_files} of them",
    ]
    repository = make_repository(workshop, "small")
    data = repository / "data"
    paths = [path.relative_to(data) for path in write_files(data, scale.small_files, scale.small_bytes)]
    workshop.run("fusefs", "commit", "data", cwd=repository)
    commit_all(workshop, repository)
    case = _SmallFiles(workshop, results, repository, paths, scale.dvc_files)
    for number in range(scale.rounds):
        systems = rotate(SYSTEMS, number)
        for readers in READERS:
            for system in systems:
                case.read_warm(system, readers, seed=number)
            case.read_with_dvc(readers, seed=number)
            if scale.cold:
                for system in systems:
                    case.read_cold(system, readers, seed=number)
                case.warm_up()
    return results


class _SmallFiles:
    def __init__(
        self, workshop: Workshop, results: Results, repository: Path, paths: list[Path], dvc_files: int
    ) -> None:
        self._workshop = workshop
        self._results = results
        self._repository = repository
        self._paths = paths
        self._dvc_files = dvc_files
        self.warm_up()

    @contextmanager
    def _tree(self, system: str) -> Iterator[Path]:
        """The root of the files as `system` shows them."""
        data = self._repository / "data"
        if system == "disk":
            yield data
        elif system in ("fusefs", IN_FUSE):
            mode = "fuse" if system == IN_FUSE else "auto"
            with mounted_fusefs(self._workshop, self._repository / "data.dvc", "--mode", mode) as mountpoint:
                yield mountpoint
        else:
            with mounted_rclone(self._workshop, data) as mountpoint:
                yield mountpoint

    def _list(self, root: Path, seed: int) -> Path:
        return self._workshop.write_list([root / path for path in self._paths], seed)

    def warm_up(self) -> None:
        """Bring the workspace and the cache's objects into the page cache."""
        objects = self._repository / ".dvc" / "cache" / "files"
        self._workshop.read(self._workshop.write_list([p for p in objects.rglob("*") if p.is_file()], 0))
        self._workshop.read(self._list(self._repository / "data", 0))

    def _add(self, readers: int, which: str, system: str, seconds: float) -> None:
        self._results.add(_name(readers, which), "files/s", system, len(self._paths) / seconds)

    def read_warm(self, system: str, readers: int, seed: int) -> None:
        with self._tree(system) as root:
            listing = self._list(root, seed)
            for which in ("first pass", "second pass"):
                self._add(readers, which, system, self._workshop.read(listing, readers=readers).seconds)

    def read_cold(self, system: str, readers: int, seed: int) -> None:
        with self._tree(system) as root:
            listing = self._list(root, seed)
            drop_caches()
            self._add(readers, "cold", system, self._workshop.read(listing, readers=readers).seconds)

    def read_with_dvc(self, readers: int, seed: int) -> None:
        paths = [Path("data") / path for path in self._paths[: self._dvc_files]]
        listing = self._workshop.write_list(paths, seed)
        program = Path(__file__).parents[1] / "read_dvc.py"
        said = self._workshop.run(sys.executable, program, self._repository, listing, str(readers))
        for which, seconds in zip(("first pass", "second pass"), map(float, said.split()), strict=True):
            self._results.add(_name(readers, which), "files/s", "DVCFileSystem", len(paths) / seconds)
