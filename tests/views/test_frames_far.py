"""Frames of videos that are not here, of very long ones, and of readers who do whatever they like."""

from __future__ import annotations

import errno
import io
import os
import random
import re
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from store.media.index import build_index
from tests.mount.datasets import Cache, entries_of, md5
from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.servers.nginx import nginx
from tests.store.media.long_videos import with_frames
from tests.store.media.sources import BytesSource
from tests.store.media.videos import Videos, full_decode, md5_of

pytestmark = pytest.mark.fuse

STEPS = int(os.environ.get("FUSEFS_FRAME_STEPS", "150"))
CHOSEN = os.environ.get("FUSEFS_FRAME_SEED")
LONG = int(os.environ.get("FUSEFS_FRAME_COUNT", "50000"))


def npy(path: Path) -> str:
    """The hash of a frame's pixels."""
    return md5_of(np.load(io.BytesIO(path.read_bytes())))


# A remote


def noisy(length: int) -> bytes:
    """A video of that many bytes: the same group of ten pictures of noise again and again."""
    one, many = io.BytesIO(), io.BytesIO()
    noise = np.random.default_rng(1)
    with av.open(one, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=25, options={"preset": "ultrafast", "qp": "2", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 480, 360, "yuv420p"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (360, 480, 3), np.uint8))
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with av.open(io.BytesIO(one.getvalue())) as source, av.open(many, "w", format="mp4") as output:
        old = source.streams.video[0]
        new = output.add_stream_from_template(old)
        packets = [
            (bytes(packet), packet.pts, packet.is_keyframe) for packet in source.demux(old) if packet.size
        ]
        step = packets[1][1] - packets[0][1]
        for turn in range(length // sum(len(data) for data, _, _ in packets) + 1):
            for data, pts, is_key in packets:
                packet = av.Packet(data)
                packet.pts = packet.dts = pts + turn * len(packets) * step
                packet.time_base, packet.stream, packet.is_keyframe = old.time_base, new, is_key
                output.mux(packet)
    return many.getvalue()


@dataclass(frozen=True, slots=True)
class Far:
    """A version whose only video is behind a web server."""

    oid: str
    cache: Cache
    url: str
    log: Path
    frames: int

    def moved(self) -> int:
        """Bytes that the server has sent of objects."""
        lines = self.log.read_text().splitlines()
        return sum(int(found[1]) for line in lines if (found := re.search(r'" 20[06] (\d+) ', line)))

    def all_moved(self, mount: Mount) -> int:
        """The same, when all that has come to a mount is in the log, which is written behind the answers."""
        until(lambda: self.moved() >= mount.count("fusefs_fetched_bytes_total"))
        return self.moved()


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    data = noisy(int(os.environ.get("FUSEFS_FAR_BYTES", str(48 << 20))))
    files = {"a.mp4": data}
    cache, there = Cache(tmp_path / "cache"), Cache(tmp_path / "remote")
    there.put(data)
    oid = cache.put_manifest(entries_of(files, sizes=True))
    with nginx(tmp_path / "nginx", there.root, extra=f"access_log {tmp_path}/access.log;") as server:
        frames = build_index(BytesSource(data)).frame_count
        yield Far(oid, cache, server.url, tmp_path / "access.log", frames)


def test_a_frame_of_a_remote_video_moves_little(mounter: Mounter, far: Far) -> None:
    mount = mounter.mount(far.oid, "--cache", far.cache.root, "--remote", far.url)
    place = mount.path / ".fusefs/frames/npy/a.mp4"
    first = npy(place / "000000.npy")
    moved = far.all_moved(mount)
    assert 0 < moved <= 8 << 20
    middle = far.frames // 20 * 10
    assert npy(place / f"{middle:06d}.npy") == first, "each group is the same"
    before, moved = moved, far.all_moved(mount)
    assert moved - before <= 8 << 20
    assert npy(place / f"{middle + 10:06d}.npy") == first
    assert "Traceback" not in mount.umount()
    assert far.moved() - moved <= 8 << 20


# Many frames


def test_a_very_long_video(mounter: Mounter, videos: Videos) -> None:
    """Its table says so; the payload of all but the first frames is missing."""
    data = with_frames(videos.path("constant").read_bytes(), LONG)
    mount = mounter.mount_files({"a.mp4": data})
    place = mount.path / ".fusefs/frames/jpg/a.mp4"
    before = resident(mount)
    found = 0
    with os.scandir(place) as entries:
        for number, entry in enumerate(entries):
            found += 1
            if number and number % 10_007 == 0:
                assert entry.name == f"{number - 1:06d}.jpg"
    assert found == LONG + 1
    assert (place / f"{LONG - 1:06d}.jpg").name in {entry.name for entry in os.scandir(place)}
    size = (place / "frames.json").stat().st_size
    assert size > 60 * LONG
    with (place / "frames.json").open("rb") as file:
        file.seek(size - 4096)
        assert f'"frame": {LONG - 1},'.encode() in file.read()
    assert resident(mount) - before < (200 << 20) + 200 * LONG
    assert mount.status()["errors"] == 0


def resident(mount: Mount) -> int:
    """Bytes of memory that the daemon has."""
    pages = int(Path(f"/proc/{mount.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# Whatever may happen


def workers_of(pid: int) -> list[int]:
    """The processes that the daemon has started."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def test_a_worker_that_dies_costs_no_mount(mounter: Mounter, videos: Videos) -> None:
    """Who waits for it gets an error, which is remembered for a while; other videos are read."""
    names = ("long-gop", "b-frames")
    mount = mounter.mount_files({f"{name}.mp4": videos.path(name).read_bytes() for name in names})
    full = {name: full_decode(videos.path(name)) for name in names}
    place = mount.path / ".fusefs/frames/npy"
    assert npy(place / "long-gop.mp4/000150.npy") == full["long-gop"][150].rgb
    workers = workers_of(mount.pid)
    assert workers
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    assert npy(place / "b-frames.mp4/000070.npy") == full["b-frames"][70].rgb
    try:
        assert npy(place / "long-gop.mp4/000003.npy") == full["long-gop"][3].rgb
    except OSError as error:
        assert error.errno == errno.EIO
    assert npy(place / "long-gop.mp4/000150.npy") == full["long-gop"][150].rgb
    assert "Traceback" not in mount.umount()


def test_a_decoder_that_crashes_at_work_is_an_error_of_its_frames(mounter: Mounter, videos: Videos) -> None:
    """Whoever waits is told, the log says why, what was made before stays, and all others are served."""
    files = {
        name: videos.path(name.removesuffix(".mp4")).read_bytes() for name in ("long-gop.mp4", "b-frames.mp4")
    }
    mount = mounter.mount_files(files)
    place = mount.path / ".fusefs/frames/png,scale=3000x2000/long-gop.mp4"  # that takes a while
    first = (place / "000000.png").read_bytes()
    caught: list[int | None] = []

    def read() -> None:
        try:
            (place / "000020.png").read_bytes()
        except OSError as error:
            caught.append(error.errno)

    reader = threading.Thread(target=read)
    workers = workers_of(mount.pid)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    reader.start()
    time.sleep(0.2)  # it waits; where it has not begun to, it finds a worker that died before its task
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    reader.join(60)
    assert caught == [errno.EIO]
    assert (place / "000000.png").read_bytes() == first
    full = full_decode(videos.path("b-frames"))
    assert npy(mount.path / ".fusefs/frames/npy/b-frames.mp4/000070.npy") == full[70].rgb
    log = mount.umount()
    assert "long-gop.mp4" in log and "SIGKILL" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("is_far", [False, True], ids=["here", "fetched"])
@pytest.mark.parametrize("legacy", [False, True], ids=["dvc-3", "dvc-2"])
def test_random_readers(mounter: Mounter, videos: Videos, legacy: bool, is_far: bool) -> None:
    """Frames in any order by several recipes are those of a full decode, while products go and mounts end,
    in both kinds of cache, which have the videos, or have them come and go."""
    seed = int(CHOSEN) if CHOSEN else secrets.randbits(32)
    print(f"seed {seed}: FUSEFS_FRAME_SEED={seed} repeats this run")
    order = random.Random(seed)
    kinds = ("open-gop", "variable", "edit-two", "matroska", "mpeg2")
    full = {name: full_decode(videos.path(name)) for name in kinds}
    cache = Cache(mounter.home / "objects", legacy=legacy)
    files = {f"{name}.mkv": videos.path(name).read_bytes() for name in kinds}
    oid = cache.put_dataset(files)
    words: tuple[str | Path, ...] = ("--cache", cache.root)
    if is_far:
        there = Cache(mounter.home / "remote", legacy=legacy)
        for data in files.values():
            there.put(data)
            cache.remove(md5(data))
        words += ("--remote", there.root, "--no-pin")
    mount = mounter.mount(oid, *words)
    seen: dict[str, bytes] = {}
    for _ in range(STEPS):
        what = order.random()
        if what < 0.02:
            assert "Traceback" not in mount.umount()
            mount = mounter.mount(oid, *words)
            continue
        if what < 0.06 and is_far:
            for data in files.values():
                if order.random() < 0.5:
                    cache.place(md5(data)).unlink(missing_ok=True)
        if what < 0.06:
            for path in (cache.root / "fusefs/derived").glob("**/*"):
                if path.is_file() and order.random() < 0.5:
                    path.unlink()
            continue
        name = order.choice(kinds)
        recipe = order.choice(("npy", "npy,start=3,step=4", "bmp", "jpg", "png,scale=20x12"))
        place = mount.path / f".fusefs/frames/{recipe}/{name}.mkv"
        form = recipe.partition(",")[0]
        chosen = range(len(full[name]))[3::4] if "step" in recipe else range(len(full[name]))
        if what < 0.1:
            names = {entry.name for entry in os.scandir(place)}
            assert names == {f"{n:06d}.{form}" for n in chosen} | {"frames.json"}
            continue
        frame = order.choice(chosen)
        path = place / f"{frame:06d}.{form}"
        if what < 0.2:
            size = path.stat().st_size
            assert size == len(path.read_bytes())
        data = path.read_bytes()
        if form == "npy":
            assert md5_of(np.load(io.BytesIO(data))) == full[name][frame].rgb
        assert seen.setdefault(f"{recipe} {name} {frame}", data) == data
    assert mount.status()["errors"] == 0
    assert "Traceback" not in mount.umount()
