"""Versions as one file, and back: `fusefs backup` and `fusefs restore` against copying the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.datasets import initialize_repository, write_files, write_large_file
from benchmarks.fresh import fresh_file_system
from benchmarks.measure import Results, Target, rotate
from benchmarks.scale import Scale
from benchmarks.workshop import BenchError, Workshop, drop_caches

COPY, ONE_FILE, FUSEFS = "cp -r of the objects", "cp of the backup", "fusefs"
BACKUP, RESTORE = "backup", "restore"
TARGETS = tuple(Target(measure, 0.5, than=COPY) for measure in (BACKUP, RESTORE))
ROOM = 1 << 29
"""Bytes beside the data and their copies for what the file system needs."""


def compare_backup(workshop: Workshop, scale: Scale) -> Results:
    """MB/s of content, from the start of the command until all of it is on the disk."""
    large = scale.large_bytes // 2
    size = large + scale.small_files * scale.small_bytes
    results = Results(f"backup and restore of {size / 1e9:.3g} GB", COPY, TARGETS)
    results.notes += [
        f"one file of {large >> 20} MiB and {scale.small_files} of {scale.small_bytes} bytes, "
        f"{'cold' if scale.cold else 'in memory'}; fusefs hashes all of them, cp none",
    ]
    with fresh_file_system(workshop, 6 * size + ROOM) as (place, note):
        results.notes.append(note)
        repository = place / "repository"
        initialize_repository(workshop, repository)
        write_files(repository / "data", scale.small_files, scale.small_bytes)
        write_large_file(repository / "data" / "large.bin", large)
        environment = {"XDG_STATE_HOME": str(place / "state"), "XDG_CACHE_HOME": str(place / "trees")}
        workshop.run("fusefs", "commit", "data", cwd=repository, **environment)
        workshop.run("rm", "-rf", repository / "data")
        objects, file = repository / ".dvc/cache/files", place / "backup"

        def back_up() -> float:
            return workshop.clock("fusefs", "backup", "data", file, cwd=repository, **environment)

        def restore() -> float:
            return workshop.clock(
                "fusefs",
                "restore",
                file,
                place / "there",
                "--cache",
                place / "copy",
                cwd=place,
                **environment,
            )

        def copy(source: Path) -> float:
            script = 'cp -r "$1" "$2" && sync -f "$2"'
            return workshop.clock("sh", "-c", script, "sh", source, place / "copy")

        for number in range(scale.rounds):
            workshop.run("rm", "-f", file)
            works: dict[str, Callable[[], float]]
            for measure, own in ((BACKUP, back_up), (RESTORE, restore)):
                works = {COPY: lambda: copy(objects), FUSEFS: own}
                if measure == RESTORE:
                    works[ONE_FILE] = lambda: copy(file)
                for system in rotate(tuple(works), number):
                    workshop.run("rm", "-rf", place / "copy", place / "there")
                    workshop.run("sync")
                    if scale.cold:
                        drop_caches()
                    results.add(measure, "MB/s", system, size / works[system]() / 1e6)
        held = sum(path.stat().st_size for path in objects.rglob("*") if path.is_file())
        if held < size or file.stat().st_size < held:
            raise BenchError("the backup does not hold what it should")
    return results
