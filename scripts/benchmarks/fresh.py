"""A file system in which nothing has happened yet, so that no case pays for what the one before deleted.

ext4 does not reuse the inodes of deleted files for minutes: where thousands were just removed, every
new file searches past them, and making files gets several times slower.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.workshop import BenchError, Workshop

FRESH = "each in a fresh ext4 of its own (a loop device over a file on the disk), in alternating order"
SHARED = (
    "one after the other in alternating order, on a disk where the last one's files were just deleted: "
    "ext4 is slow there"
)


@contextmanager
def fresh_file_system(workshop: Workshop, size: int) -> Iterator[tuple[Path, str]]:
    """An empty place for `size` bytes of data and a note that says what it is; removed in the end.

    Without root, loop devices or `mkfs.ext4` it is a new directory.
    """
    place = workshop.directory("fresh")
    image = place.with_suffix(".img")
    exits = workshop.at_exit(lambda: _remove(workshop, place, image))
    with exits:
        note = FRESH
        try:
            if os.geteuid() != 0:
                raise BenchError("only root may mount")
            with image.open("wb") as file:
                file.truncate(size)
            # At once, or the kernel would write inode tables in the background while we measure.
            options = "lazy_itable_init=0,lazy_journal_init=0"
            workshop.run("mkfs.ext4", "-q", "-F", "-E", options, image)
            workshop.run("mount", "-o", "loop,nosuid,nodev", image, place)
        except BenchError as error:
            note = f"{SHARED} (no fresh file system: {error})"
        yield place, note


def _remove(workshop: Workshop, place: Path, image: Path) -> None:
    if place.is_mount():
        workshop.run("umount", place)
        place.rmdir()
    else:
        workshop.run("rm", "-rf", place)
    image.unlink(missing_ok=True)
