"""Frames of a video as files: all in order, again, at random, and of a video that is on a server only."""

from __future__ import annotations

import random
import shutil
import statistics
import sys
import time
from pathlib import Path

from benchmarks.datasets import make_repository
from benchmarks.lazy import DATA, clone, forget_everything, publish
from benchmarks.measure import Results, Target, rotate
from benchmarks.mounts import mounted_fusefs
from benchmarks.scale import Scale
from benchmarks.servers import BUCKET, moved, serving
from benchmarks.videos import repeat_video, write_video
from benchmarks.workshop import BenchError, Workshop

BARE_PROGRAM = Path(__file__).parents[1] / "decode_bare.py"
BARE = "PyAV, one process"
GROUPS = (30, 250)
RANDOM = 10
"""Frames, so far from each other that what is made for one has little of the next."""
INDEXED = "first listing of a video"
SETTLE_SECONDS = 0.5
"""Behind a read, for the workers: the rest of the chunk is made, and is not what is measured."""
IN_ORDER, AGAIN = "all frames in order", "all frames again"
MOVED = ("first frame of a remote video: moved", "middle frame of a remote video: moved")
RANDOM_NAMES = tuple(f"a random frame, a key frame every {gop}" for gop in GROUPS)
NEIGHBOUR = "the frame behind it"
TARGETS = (
    Target(IN_ORDER, 1.4, than=BARE),
    Target(AGAIN, 5000),
    *(Target(name, 1.2, than=BARE, at_least=False) for name in RANDOM_NAMES),
    Target(INDEXED, 0.6, at_least=False),
    *(Target(name, 8, at_least=False) for name in MOVED),
)


def compare_frames(workshop: Workshop, scale: Scale) -> Results:
    """Frames as jpg through a mount, against PyAV's decoder and Pillow's encoder in a loop."""
    results = Results("frames of a video", BARE, TARGETS)
    results.notes += [
        f"{scale.video_frames} frames, 1280x720, H.264, as jpg; a mount makes them in a process for each"
        " core, so its target in order is twice 0.7",
        "at random: a frame of which nothing is made yet, while the video is open; the median of "
        f"{RANDOM} frames a round",
    ]
    repository = make_repository(workshop, "video")
    (repository / "data").mkdir()
    for gop in GROUPS:
        write_video(repository / "data" / f"{gop}.mp4", scale.video_frames, gop=gop)
    workshop.run("fusefs", "commit", "data", cwd=repository)
    for number in range(scale.rounds):
        for system in rotate((BARE, "fusefs"), number):
            if system == BARE:
                _decode_all(workshop, results, repository, scale.video_frames)
            else:
                _read_all(workshop, results, repository, scale.video_frames)
        for gop, name in zip(GROUPS, RANDOM_NAMES, strict=True):
            chosen = _choose(scale.video_frames, f"{number} {gop}")
            for system in rotate((BARE, "fusefs"), number):
                if system == BARE:
                    seconds = _bare(workshop, repository, gop, *map(str, chosen))
                    results.add(name, "ms", BARE, statistics.median(seconds) * 1e3)
                else:
                    _read_some(workshop, results, repository, gop, chosen)
    _move(workshop, results, scale)
    return results


def _choose(frames: int, seed: str) -> list[int]:
    """Frames all over a video, in no order, and each with another behind it."""
    order = random.Random(seed)
    step = frames // RANDOM
    chosen = [step * part + order.randrange(step - 1) for part in range(RANDOM)]
    order.shuffle(chosen)
    return chosen


def _bare(workshop: Workshop, repository: Path, gop: int, *frames: str) -> list[float]:
    told = workshop.run(sys.executable, BARE_PROGRAM, repository / "data" / f"{gop}.mp4", *frames)
    return [float(word) for word in told.split()]


def _decode_all(workshop: Workshop, results: Results, repository: Path, frames: int) -> None:
    (seconds,) = _bare(workshop, repository, GROUPS[0])
    results.add(IN_ORDER, "frames/s", BARE, frames / seconds)


def _forget_products(repository: Path) -> None:
    shutil.rmtree(repository / ".dvc" / "cache" / "fusefs", ignore_errors=True)


def _read_all(workshop: Workshop, results: Results, repository: Path, frames: int) -> None:
    _forget_products(repository)
    with mounted_fusefs(workshop, repository / "data.dvc") as mountpoint:
        video = mountpoint / ".fusefs" / "frames" / "jpg" / f"{GROUPS[0]}.mp4"
        begun = time.monotonic()
        names = sorted(path.name for path in video.iterdir() if path.suffix == ".jpg")
        results.add(INDEXED, "s", "fusefs", time.monotonic() - begun)
        if len(names) != frames:
            raise BenchError(f"the video has {len(names)} frames and not {frames}")
        paths = [video / name for name in names]
        for measure in (IN_ORDER, AGAIN):
            begun = time.monotonic()
            for path in paths:
                if path.read_bytes()[:2] != b"\xff\xd8":
                    raise BenchError(f"{path.name} is no JPEG")
            results.add(measure, "frames/s", "fusefs", frames / (time.monotonic() - begun))


def _read_some(workshop: Workshop, results: Results, repository: Path, gop: int, chosen: list[int]) -> None:
    _forget_products(repository)
    with mounted_fusefs(workshop, repository / "data.dvc") as mountpoint:
        video = mountpoint / ".fusefs" / "frames" / "jpg" / f"{gop}.mp4"
        for number in (0, 1):  # the workers start and open the video
            (video / f"{number:06d}.jpg").read_bytes()
        time.sleep(SETTLE_SECONDS)
        seconds: list[float] = []
        behind: list[float] = []
        for number in chosen:
            for place, times in ((number, seconds), (number + 1, behind)):
                begun = time.monotonic()
                (video / f"{place:06d}.jpg").read_bytes()
                times.append(time.monotonic() - begun)
            time.sleep(SETTLE_SECONDS)
    results.add(RANDOM_NAMES[GROUPS.index(gop)], "ms", "fusefs", statistics.median(seconds) * 1e3)
    results.add(NEIGHBOUR, "ms", "fusefs", statistics.median(behind) * 1e3)


def _move(workshop: Workshop, results: Results, scale: Scale) -> None:
    """What a server sends of a large video for one frame of it."""
    root = workshop.directory("server")
    (root / BUCKET / DATA).mkdir(parents=True)
    file = root / BUCKET / DATA / "large.mp4"
    frames = repeat_video(file, scale.large_bytes)
    dataset = publish(workshop, root, [file])
    with serving(workshop, root, logged=True) as server:
        for name, number in zip(MOVED, (0, frames // 2), strict=True):
            forget_everything(workshop)
            server.forget_requests()
            repository = clone(workshop, dataset.repository, server)
            with mounted_fusefs(workshop, repository / f"{DATA}.dvc") as mountpoint:
                frame = mountpoint / ".fusefs" / "frames" / "jpg" / "large.mp4" / f"{number:06d}.jpg"
                frame.read_bytes()
            results.add(name, "MiB", "fusefs", moved(server.requests(dataset.keys[0])) / (1 << 20))
