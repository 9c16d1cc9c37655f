"""All frames of a video, made ahead of their readers: by processes of one machine, by a cluster's workers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.datasets import make_repository
from benchmarks.measure import Results, Target, rotate
from benchmarks.scale import Scale
from benchmarks.videos import write_video
from benchmarks.workshop import BenchError, Workshop

ONE, TWO = "1 process", "2 processes"
ONE_WORKER, TWO_WORKERS = "1 Dask worker", "2 Dask workers"
FRAMES = "frames as jpg"
TARGETS = (
    Target(FRAMES, 1.7, than=ONE, system=TWO),
    Target(FRAMES, 1.7, than=ONE_WORKER, system=TWO_WORKERS),
)
START_SECONDS = 60.0
_WAIT = """
import sys, distributed
distributed.Client(scheduler_file=sys.argv[1]).wait_for_workers(int(sys.argv[2]), timeout=60)
"""


def measure_materialize(workshop: Workshop, scale: Scale) -> Results:
    """The whole command each time, with nothing kept; a cluster is up before and has read nothing."""
    results = Results("materialize", ONE, TARGETS)
    results.notes.append(
        f"one video of {scale.video_frames} frames, 1280x720, H.264; workers have one thread"
    )
    repository = make_repository(workshop, "video")
    (repository / "data").mkdir()
    write_video(repository / "data" / "clip.mp4", scale.video_frames)
    workshop.run("fusefs", "commit", "data", cwd=repository)
    for number in range(scale.rounds):
        for system in rotate((ONE, TWO, ONE_WORKER, TWO_WORKERS), number):
            shutil.rmtree(repository / ".dvc/cache/fusefs", ignore_errors=True)
            count = 2 if system in (TWO, TWO_WORKERS) else 1
            if system in (ONE, TWO):
                rate = _materialize(workshop, repository, "--jobs", str(count))
            else:
                with _cluster(workshop, count) as address:
                    rate = _materialize(workshop, repository, "--dask", address)
            results.add(FRAMES, "frames/s", system, rate)
    return results


def _materialize(workshop: Workshop, repository: Path, *words: str) -> float:
    """Frames a second of one run."""
    begun = time.monotonic()
    told = workshop.run(
        "fusefs", "materialize", "data.dvc", "--view", "frames:jpg", "--json", *words, cwd=repository
    )
    seconds = time.monotonic() - begun
    described = json.loads(told)
    if described["kept"] or described["failures"]:
        raise BenchError(f"not all frames were made: {told}")
    return float(described["pieces"]) / seconds


@contextmanager
def _cluster(workshop: Workshop, workers: int) -> Iterator[str]:
    """A scheduler and so many workers of their own; their address."""
    dask = Path(sys.executable).with_name("dask")
    file = workshop.directory("cluster") / "scheduler.json"
    place = ("--scheduler-file", str(file), "--no-dashboard")
    commands = [
        (dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *place),
        *((dask, "worker", "--nthreads", "1", "--no-nanny", *place) for _ in range(workers)),
    ]
    with workshop.at_exit(lambda: None) as stack:
        for command in commands:
            process = subprocess.Popen(
                command,
                cwd=file.parent,
                env=workshop.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
        yield _await_workers(workshop, file, workers)


def _await_workers(workshop: Workshop, file: Path, workers: int) -> str:
    deadline = time.monotonic() + START_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            raise BenchError("the Dask scheduler does not start")
        time.sleep(0.05)
    workshop.run(sys.executable, "-c", _WAIT, file, str(workers))
    address = json.loads(file.read_text())["address"]
    return str(address)
