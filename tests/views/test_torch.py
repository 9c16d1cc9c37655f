"""`fusefs.torch.FrameDataset`, of mounts and of versions without one, and the example of training."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="there is no PyTorch here: scripts/setup says why")

from torch.utils.data import DataLoader  # noqa: E402

import fusefs  # noqa: E402
from fusefs import sessions  # noqa: E402
from fusefs.torch import FrameDataset  # noqa: E402
from store.media.frames import FrameReader  # noqa: E402
from store.media.index import build_index  # noqa: E402
from tests.mount.datasets import Cache  # noqa: E402
from tests.mount.mounts import Mount, Mounter  # noqa: E402
from tests.store.media.sources import BytesSource  # noqa: E402
from tests.store.media.videos import MAKERS, Videos  # noqa: E402

pytestmark = [pytest.mark.fuse, pytest.mark.torch]

ROOT = Path(__file__).resolve().parents[2]
CLIPS = ("b-frames", "rotated-90", "matroska")


class Shown:
    """A mount of videos, and the same version without it."""

    def __init__(self, mount: Mount, cache: Path, oid: str, files: dict[str, bytes]) -> None:
        self.mount, self.cache, self.oid, self.files = mount, cache, oid, files

    def picture(self, path: str, number: int) -> np.ndarray[Any, Any]:
        source = BytesSource(self.files[path])
        with FrameReader(source, build_index(source)) as reader:
            return next(reader.decode(number, 1)).rgb().transpose(2, 0, 1)


@pytest.fixture(scope="module")
def shown(shared_mounter: Mounter, videos: Videos) -> Shown:
    files = {f"clips/{name}{MAKERS[name][0]}": videos.path(name).read_bytes() for name in CLIPS}
    files["other/notes.txt"] = b"no video"
    cache = shared_mounter.home / "frames-for-torch"
    oid = Cache(cache).put_dataset(files)
    return Shown(shared_mounter.mount(oid, "--cache", cache), cache, oid, files)


@pytest.fixture(params=["mount", "version"])
def source(request: pytest.FixtureRequest, shown: Shown, tmp_path: Path, monkeypatch: Any) -> Any:
    """What a dataset is made of: a mount's directory, or an open version."""
    if request.param == "mount":
        yield shown.mount.path
        return
    for name in ("CACHE", "STATE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    with fusefs.open(shown.oid, cache=shown.cache) as files:
        yield files
    sessions.close_all()


def test_every_frame_of_every_video(source: Any, shown: Shown) -> None:
    frames = FrameDataset(source)
    assert [(path, len(numbers)) for path, numbers in frames.videos] == [
        ("clips/b-frames.mp4", 100),
        ("clips/matroska.mkv", 100),
        ("clips/rotated-90.mp4", 30),
    ]
    assert len(frames) == 230
    for place in (0, 57, 99, 100, 200, -1):
        tensor, path, number = frames[place]
        assert (tensor.dtype, tensor.shape[0]) == (torch.uint8, 3)
        assert np.array_equal(tensor.numpy(), shown.picture(path, number))
    assert frames[229][1:] == ("clips/rotated-90.mp4", 29)
    for place in (230, -231):
        with pytest.raises(IndexError):
            frames[place]


def test_a_selection_of_some_videos_transformed(source: Any, shown: Shown) -> None:
    frames = FrameDataset(
        source,
        only="clips/[br]*",
        recipe="png,colour=gray,scale=32x16,start=5,step=20,stop=70",
        transform=lambda tensor: tensor.float().mean(),
    )
    assert [(path, list(numbers)) for path, numbers in frames.videos] == [
        ("clips/b-frames.mp4", [5, 25, 45, 65]),
        ("clips/rotated-90.mp4", [5, 25]),
    ]
    mean, path, number = frames[4]
    assert (path, number) == ("clips/rotated-90.mp4", 5)
    gray = Image.fromarray(np.ascontiguousarray(shown.picture(path, number).transpose(1, 2, 0)))
    small = np.asarray(gray.resize((32, 16), Image.Resampling.LANCZOS).convert("L"))
    assert float(mean) == pytest.approx(small.mean())


@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_of_a_data_loader_see_the_same(source: Any, method: str, workers: int) -> None:
    if method == "spawn" and isinstance(source, Path):
        method = "fork"  # it takes seconds, and there is nothing of a mount that a process could inherit
    frames = FrameDataset(source, only=["clips/b-frames.mp4"], recipe="npy,scale=24x24,step=10")
    alone = {number: tensor for tensor, _, number in frames}
    loader = DataLoader(frames, batch_size=4, num_workers=workers, multiprocessing_context=method)
    seen = {}
    for tensors, paths, numbers in loader:
        assert set(paths) == {"clips/b-frames.mp4"}
        seen |= dict(zip(numbers.tolist(), tensors, strict=True))
    assert seen.keys() == alone.keys() == set(range(0, 100, 10))
    assert all(torch.equal(seen[number], alone[number]) for number in alone)


def test_a_dataset_can_be_pickled(source: Any) -> None:
    frames = FrameDataset(source, recipe="jpg")
    again = pickle.loads(pickle.dumps(frames))
    assert torch.equal(again[3][0], frames[3][0])


def test_what_cannot_be_is_named(source: Any, shown: Shown, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="spelt"):
        FrameDataset(source, recipe="gif")
    with pytest.raises(ValueError, match="no mount"):
        FrameDataset(tmp_path)
    with pytest.raises(FileNotFoundError):
        FrameDataset(source, only="nothing*")
    for outside in ("/etc", "../other"):
        with pytest.raises((FileNotFoundError, ValueError)):
            FrameDataset(source, only=outside)
    assert len(FrameDataset(source, only="other")) == 0
    frames = FrameDataset(source, recipe="jpg,stop=9")
    with pytest.raises((FileNotFoundError, ValueError)):
        frames.frame("clips/b-frames.mp4", 10)


def coloured(colour: int, count: int) -> list[Image.Image]:
    """Pictures that are told apart by their colour."""
    noise = np.random.default_rng(colour).integers(0, 90, (count, 48, 48, 3), np.uint8)
    noise[..., colour] += 150
    return [Image.fromarray(picture) for picture in noise]


def video_of(pictures: list[Image.Image]) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 48, 48, "yuv420p"
        for picture in pictures:
            output.mux(stream.encode(av.VideoFrame.from_image(picture)))
        output.mux(stream.encode(None))
    return file.getvalue()


def train(view: str, mountpoint: Path, *options: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/train_example.py", view, mountpoint, *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("view", ["frames", "shards"])
def test_the_example_learns(view: str, mounter: Mounter) -> None:
    files = {}
    for colour, name in enumerate(("red", "green")):
        pictures = coloured(colour, 48)
        if view == "frames":
            files[f"{name}/clip.mp4"] = video_of(pictures)
        else:
            for number, picture in enumerate(pictures):
                file = io.BytesIO()
                picture.save(file, "JPEG")
                files[f"{name}/{number:03d}.jpg"] = file.getvalue()
    cache = mounter.home / "objects"
    mount = mounter.mount(Cache(cache).put_dataset(files), "--cache", cache)
    lines = train(view, mount.path, "--epochs", "3", "--workers", "1")
    assert [line.partition(",")[0] for line in lines] == [f"epoch {n}: 96 pictures" for n in range(3)]
    assert lines[-1].endswith("100% right")
