"""Images for a training job: PyTorch's `DataLoader` on a mount, beside the same files on the disk."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.datasets import FILES_A_DIRECTORY, make_repository
from benchmarks.measure import Results, Target, rotate
from benchmarks.mounts import mounted_fusefs
from benchmarks.scale import Scale
from benchmarks.workshop import BenchError, Workshop

IN_FUSE = "fusefs, fuse mode"
SYSTEMS = ("disk", "fusefs", IN_FUSE)
WORKERS = 2
BATCH = 64
SIDE = 160
"""Pixels: as small as datasets come, so that as little as possible of the time is the decoder's."""
PATCHES = 20
FIRST, AGAIN = "first epoch", "second epoch"
TARGETS = tuple(Target(which, 0.9, than="disk") for which in (FIRST, AGAIN))
PROGRAM = Path(__file__).parents[1] / "load_images.py"


def compare_loader(workshop: Workshop, scale: Scale) -> Results:
    """Two epochs in one random order; the pixels of all systems must be the same."""
    results = Results(f"DataLoader: {scale.small_files} JPEG files, {WORKERS} workers", "disk", TARGETS)
    if importlib.util.find_spec("torch") is None:
        results.notes.append("not measured: PyTorch is not installed; scripts/setup says why")
        return results
    repository = make_repository(workshop, "images")
    data = repository / "data"
    paths = [path.relative_to(data) for path in write_images(data, scale.small_files)]
    size = sum((data / path).stat().st_size for path in paths)
    results.notes += [
        f"{SIDE} x {SIDE} pixels, {size // len(paths)} bytes each, decoded by Pillow; batches of {BATCH}",
        "all in memory, workers started; of a fresh mount nothing but some images of the end was read before",
    ]
    workshop.run("fusefs", "commit", "data", cwd=repository)
    objects = [path for path in (repository / ".dvc/cache/files").rglob("*") if path.is_file()]
    for files in (objects, [data / path for path in paths]):
        workshop.read(workshop.write_list(files, None))
    seen: set[int] = set()
    for number in range(scale.rounds):
        for system in rotate(SYSTEMS, number):
            with _shown(workshop, repository, system) as root:
                listing = workshop.write_list([root / path for path in paths], number)
                said = workshop.run(sys.executable, PROGRAM, str(WORKERS), str(BATCH), "2", listing)
            for which, line in zip((FIRST, AGAIN), said.splitlines(), strict=True):
                nanoseconds, images, pixels = map(int, line.split())
                seen.add(pixels)
                results.add(which, "images/s", system, images * 1e9 / nanoseconds)
                if images != len(paths) or len(seen) > 1:
                    raise BenchError(f"{system} shows other images than the disk")
    return results


def write_images(directory: Path, count: int) -> list[Path]:
    """`count` distinct JPEG files, a thousand to a directory: soft patches of colour, and a little noise."""
    paths = [
        directory / f"part-{number // FILES_A_DIRECTORY:03d}" / f"{number:06d}.jpg" for number in range(count)
    ]
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(-12, 12, (SIDE, SIDE, 3), dtype=np.int16)

    def write(number: int) -> None:
        patches = np.random.default_rng(number).integers(12, 244, (PATCHES, PATCHES, 3), dtype=np.uint8)
        soft = np.asarray(Image.fromarray(patches).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        Image.fromarray((soft + noise).astype(np.uint8)).save(paths[number], quality=90)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, range(count)))
    return paths


@contextmanager
def _shown(workshop: Workshop, repository: Path, system: str) -> Iterator[Path]:
    if system == "disk":
        yield repository / "data"
        return
    mode = "fuse" if system == IN_FUSE else "auto"
    with mounted_fusefs(workshop, repository / "data.dvc", "--mode", mode) as mountpoint:
        yield mountpoint
