"""`.fusefs/frames`: every frame as a file, on real mounts, held against full decodes by libav."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import tarfile
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import FFmpegError
from PIL import Image as Pictures

from store.media.encode import encode
from store.media.encoding import Encoding
from store.media.index import build_index
from tests.mount.datasets import BROKEN_NAMES, STRANGE_NAMES, Cache, md5
from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.store.media.sources import BytesSource
from tests.store.media.videos import _SCALING, MAKERS, Image, Videos, find_box, full_decode, md5_of, plain

pytestmark = pytest.mark.fuse

KINDS = (
    "constant",
    "variable",
    "b-frames",
    "open-gop",
    "long-gop",
    "edit-range-open",
    "edit-two",
    "rotated-90",
    "matroska",
    "vp9",
    "avi-b-frames",
    "transport-cut",
    "truncated",
)
BAD = ("text", "empty", "no-video", "half-without-moov")
OTHER = {
    "notes/readme.txt": b"no video here\n",
    "notes/clip": b"nor here, whatever it is called",
    "folder.mp4/inner/frames.json": b"[]",
    "frames.json": b"{}",
    "000000.jpg": b"a file of the data",
}


def derived(cache_root: Path) -> list[Path]:
    """What is kept of what was made."""
    return [path for path in (cache_root / "fusefs/derived").glob("**/*") if path.is_file()]


def npy_of(path: Path) -> Image:
    return np.load(io.BytesIO(path.read_bytes()))  # type: ignore[no-any-return]


def picture_of(path: Path) -> Image:
    return np.asarray(Pictures.open(io.BytesIO(path.read_bytes())))


@cache
def pictures(path: Path) -> list[Image]:
    """Every frame of a full decode in RGB, by the way of libav's own conversion that `videos.plain` takes."""
    found: list[Image] = []
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert stream is not None
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except FFmpegError:
                continue
            for frame in frames:
                assert isinstance(frame, av.VideoFrame)
                rgb = frame.to_ndarray(format="rgb24", interpolation=_SCALING, threads=1)
                assert md5_of(rgb) == plain(frame).rgb
                found.append(rgb)
    return found


class Shown:
    """A mount of videos of many kinds."""

    def __init__(self, mount: Mount, cache_root: Path, videos: Videos) -> None:
        self.mount, self.cache, self.videos = mount, cache_root, videos

    def place(self, recipe: str, path: str = "") -> Path:
        return self.mount.path / ".fusefs/frames" / recipe / path

    def clip(self, name: str, recipe: str) -> Path:
        """The directory of one of the videos."""
        return self.place(recipe, f"clips/{name}{MAKERS[name][0]}")


@pytest.fixture(scope="module")
def shown(shared_mounter: Mounter, videos: Videos) -> Shown:
    files = {f"clips/{name}{MAKERS[name][0]}": videos.path(name).read_bytes() for name in KINDS}
    files |= {f"bad/{name}.mp4": videos.path(name).read_bytes() for name in BAD}
    files["sub/deep/resized.mjpeg"] = videos.path("resized").read_bytes()
    cache_root = shared_mounter.home / "objects"
    oid = Cache(cache_root).put_dataset(files | OTHER)
    return Shown(shared_mounter.mount(oid, "--cache", cache_root), cache_root, videos)


def names_in(path: Path) -> list[str]:
    return sorted(found.name for found in path.iterdir())


# Names and attributes


def test_videos_are_directories_in_their_places(shown: Shown) -> None:
    assert names_in(shown.place("jpg")) == ["bad", "clips", "folder.mp4", "notes", "sub"]
    assert names_in(shown.place("jpg", "clips")) == sorted(f"{name}{MAKERS[name][0]}" for name in KINDS)
    assert names_in(shown.place("jpg", "notes")) == []
    assert names_in(shown.place("jpg", "folder.mp4")) == ["inner"]
    assert names_in(shown.place("jpg", "folder.mp4/inner")) == []
    assert shown.clip("constant", "jpg").is_dir()
    for path in ("notes/readme.txt", "notes/clip", "frames.json", "000000.jpg", "nothing.mp4"):
        with pytest.raises(FileNotFoundError):
            shown.place("jpg", path).stat()


def test_frames_are_named_by_their_numbers(shown: Shown) -> None:
    full = len(full_decode(shown.videos.path("b-frames")))
    expected = [f"{number:06d}.jpg" for number in range(full)]
    assert names_in(shown.clip("b-frames", "jpg")) == [*expected, "frames.json"]
    some = names_in(shown.clip("b-frames", "png,start=7,step=40,stop=90"))
    assert some == ["000007.png", "000047.png", "000087.png", "frames.json"]
    assert names_in(shown.clip("b-frames", "jpg,start=100")) == ["frames.json"]


@pytest.mark.parametrize(
    "name",
    ["000100.jpg", "000000.png", "0.jpg", "00000.jpg", "0000000.jpg", "-00001.jpg", "9" * 200, "٠٠٠٠٠٠.jpg"],
)
def test_what_is_no_frame_is_not_there(shown: Shown, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        (shown.clip("b-frames", "jpg") / name).stat()


@pytest.mark.parametrize(
    ("recipe", "spelling"),
    [
        ("jpg,scale=8x8,quality=80", "jpg,quality=80,scale=8x8"),
        ("jpg,quality=90", "jpg"),
        ("jpg,quality=101", "a quality is from 1 to 100"),
        ("tiff", "jpg, png, bmp, npy, webp"),
    ],
)
def test_what_is_no_recipe_is_not_there_and_the_log_says_how_it_is_spelt(
    shown: Shown, recipe: str, spelling: str
) -> None:
    with pytest.raises(FileNotFoundError):
        (shown.place(recipe) / "clips").stat()
    lines = shown.mount.log.read_text
    until(lambda: any(recipe in line and spelling in line for line in lines().splitlines()), lines)


def test_a_frame_that_is_not_selected_is_not_there(shown: Shown) -> None:
    some = shown.clip("b-frames", "png,start=7,step=40,stop=90")
    assert (some / "000047.png").is_file()
    for name in ("000046.png", "000006.png", "000127.png"):
        assert not (some / name).exists()


def test_listing_makes_nothing_and_exact_sizes_are_known(mounter: Mounter, videos: Videos) -> None:
    objects = Cache(mounter.home / "objects")
    oid = objects.put_dataset({"a.mp4": videos.path("b-frames").read_bytes()})
    mount = mounter.mount(oid, "--cache", objects.root)
    for recipe in ("npy", "bmp", "jpg", "bmp,colour=gray"):
        assert len(names_in(mount.path / ".fusefs/frames" / recipe / "a.mp4")) == 101
    told: dict[str, int] = {}
    for recipe in ("npy", "bmp", "bmp,colour=gray", "npy,colour=gray,scale=33x21"):
        place = mount.path / ".fusefs/frames" / recipe / "a.mp4"
        sizes = {entry.stat().st_size for entry in os.scandir(place) if entry.name != "frames.json"}
        assert len(sizes) == 1
        told[recipe] = sizes.pop()
    mount.umount()
    assert [path.stat().st_size < 10_000 for path in derived(objects.root)] == [True], "only an index"
    mount = mounter.mount(oid, "--cache", objects.root)
    for recipe, size in told.items():
        path = mount.path / f".fusefs/frames/{recipe}/a.mp4/000050.{recipe[:3]}"
        assert len(path.read_bytes()) == path.stat().st_size == size


def test_sizes_are_those_of_the_bytes(shown: Shown) -> None:
    for recipe in ("jpg", "webp,quality=50", "png,scale=64x40"):
        place = shown.clip("constant", recipe)
        form = recipe.partition(",")[0]
        for number in (30, 0, 59):
            path = place / f"{number:06d}.{form}"
            size = path.stat().st_size
            assert size == len(path.read_bytes()) == path.stat().st_size


def test_tools_see_whole_files(shown: Shown, tmp_path: Path) -> None:
    place = shown.clip("variable", "jpg,scale=32x18")
    archive = subprocess.run(["tar", "cf", "-", "."], cwd=place, capture_output=True, timeout=60, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as opened:
        members = {Path(member.name).name: member.size for member in opened if member.isfile()}
    subprocess.run(["cp", "-r", place, tmp_path / "copy"], timeout=60, check=True)
    copied = {path.name: path.stat().st_size for path in (tmp_path / "copy").iterdir()}
    assert members == copied
    assert len(copied) == 81
    for path in (tmp_path / "copy").iterdir():
        assert path.read_bytes() == (place / path.name).read_bytes()
        if path.suffix == ".jpg":
            assert picture_of(path).shape == (18, 32, 3)


def test_attributes(shown: Shown) -> None:
    clip = shown.clip("constant", "jpg")
    frame, table = clip / "000003.jpg", clip / "frames.json"
    assert oct(clip.stat().st_mode) == "0o40755"
    assert oct(frame.stat().st_mode) == oct(table.stat().st_mode) == "0o100644"
    assert (
        frame.stat().st_mtime
        == table.stat().st_mtime
        != shown.clip("constant", "jpg,quality=89").stat().st_mtime
    )
    oid = md5(shown.videos.path("constant").read_bytes())
    assert os.getxattr(clip, "user.fusefs.oid") == oid.encode()
    assert (
        os.getxattr(frame, "user.fusefs.source") == os.getxattr(table, "user.fusefs.source") == oid.encode()
    )
    for path in (clip, frame):
        with pytest.raises(OSError, match="No data"):
            os.getxattr(path, "user.fusefs.nothing")
    with pytest.raises(OSError, match="Read-only"):
        (clip / "new.jpg").write_bytes(b"")


# Pixels


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_that_of_a_full_decode(shown: Shown, name: str) -> None:
    full = full_decode(shown.videos.path(name))
    place = shown.clip(name, "npy")
    assert len(names_in(place)) == len(full) + 1
    for number, frame in enumerate(full):
        array = npy_of(place / f"{number:06d}.npy")
        assert array.shape == (frame.height, frame.width, 3)
        assert md5_of(array) == frame.rgb


def test_any_frame_first(mounter: Mounter, videos: Videos) -> None:
    """No frame of these was made before: decoding begins in the middle."""
    files = {f"{name}.mp4": videos.path(name).read_bytes() for name in ("open-gop", "edit-two", "long-gop")}
    mount = mounter.mount_files(files)
    for name in ("open-gop", "edit-two", "long-gop"):
        full = full_decode(videos.path(name))
        for number in (len(full) - 1, len(full) // 2, 1):
            array = npy_of(mount.path / f".fusefs/frames/npy/{name}.mp4/{number:06d}.npy")
            assert md5_of(array) == full[number].rgb


@pytest.mark.parametrize("form", ["png", "bmp", "webp", "jpg"])
def test_files_are_what_encoding_the_frame_gives(shown: Shown, form: str) -> None:
    full = pictures(shown.videos.path("b-frames"))
    for recipe, encoding in (
        (form, Encoding(form)),
        (f"{form},colour=gray,scale=50x40", Encoding(form, scale=(50, 40), colour="gray")),
    ):
        for number in (0, 47, 99):
            data = (shown.clip("b-frames", recipe) / f"{number:06d}.{form}").read_bytes()
            assert data == encode(full[number], encoding)
            if form in ("png", "bmp") and recipe == form:
                assert (np.asarray(Pictures.open(io.BytesIO(data))) == full[number]).all()


def test_the_table_tells_of_the_frames(shown: Shown) -> None:
    for name in ("variable", "rotated-90"):
        data = (shown.clip(name, "jpg") / "frames.json").read_bytes()
        assert len(data) == (shown.clip(name, "jpg") / "frames.json").stat().st_size
        told = json.loads(data)
        full = full_decode(shown.videos.path(name))
        assert [frame["pts"] for frame in told["frames"]] == [frame.pts for frame in full]
        assert [frame["file"] for frame in told["frames"]] == names_in(shown.clip(name, "jpg"))[:-1]
        assert told["oid"] == md5(shown.videos.path(name).read_bytes())
        assert told["source"] == f"clips/{name}.mp4"
    assert told["rotation"] == 90


@pytest.mark.modes("fuse")  # a view at the root is for fuse mode alone
def test_a_view_at_the_root(mounter: Mounter, videos: Videos) -> None:
    files = {"a/clip.mp4": videos.path("constant").read_bytes(), "text.txt": b"text", ".fusefs/x.txt": b"x"}
    mount = mounter.mount_files(files, "--view", "frames:png,scale=16x9", control=".fusefs-control")
    assert names_in(mount.path) == [".fusefs", "a"]
    assert len(names_in(mount.path / "a/clip.mp4")) == 61
    assert picture_of(mount.path / "a/clip.mp4/000059.png").shape == (9, 16, 3)
    inode = (mount.path / "a/clip.mp4/000000.png").stat().st_ino
    assert inode == (mount.path / "a/clip.mp4/../clip.mp4/000000.png").stat().st_ino


# What is wrong with files


def failing(path: Path) -> int:
    with pytest.raises(OSError) as caught:
        list(path.iterdir()) if path.is_dir() else path.read_bytes()
    assert caught.value.errno is not None
    return caught.value.errno


def thousand_streams(data: bytes) -> bytes:
    """An MP4 with its one track a thousand times."""
    begin, end = find_box(data, b"moov", b"trak")
    at, stop = find_box(data, b"moov")
    length = (stop - at + 999 * (end - begin)).to_bytes(4, "big")
    return data[:at] + length + data[at + 4 : end] + data[begin:end] * 999 + data[end:]


def test_what_only_looks_like_a_video(mounter: Mounter, videos: Videos) -> None:
    files = {f"{name}.mp4": videos.path(name).read_bytes() for name in BAD}
    good = videos.path("constant").read_bytes()
    mount = mounter.mount_files(files | {"many.mp4": thousand_streams(good), "good.mp4": good})
    place = mount.path / ".fusefs/frames/jpg"
    assert names_in(place) == sorted([*files, "many.mp4", "good.mp4"])
    for name in (*files, "many.mp4"):
        assert failing(place / name) == errno.EIO
        with pytest.raises(OSError, match="Input/output"):
            (place / name / "000000.jpg").stat()
    assert len(names_in(place / "good.mp4")) == 61
    log = mount.umount()
    for name in files:
        assert name in log
    assert "no-video.mp4 has no video stream" in log
    assert "many.mp4 has 1000 streams; at most 100 are read" in log
    assert "Traceback" not in log


def test_a_video_by_another_name(shown: Shown) -> None:
    """What has no extension of a video is not listed, and is there for who names it."""
    assert names_in(shown.place("npy", "sub/deep")) == []
    assert len(names_in(shown.place("npy,scale=8x8", "sub/deep/resized.mjpeg"))) == 21
    assert npy_of(shown.place("npy,scale=8x8", "sub/deep/resized.mjpeg/000019.npy")).shape == (8, 8, 3)


def with_damage(data: bytes, number: int) -> bytes:
    """A video whose frame of that number is garbage."""
    index = build_index(BytesSource(data))
    packet = int(index.order[number])
    at, size = int(index.packets.offsets[packet]), int(index.packets.sizes[packet])
    return data[:at] + b"\xff" * size + data[at + size :]


def test_frames_that_cannot_be_had(mounter: Mounter, videos: Videos) -> None:
    """A damaged one, and those of another size than was told, are errors; their neighbours are not."""
    damaged = mounter.home / "damaged.mp4"
    damaged.write_bytes(with_damage(videos.path("b-frames").read_bytes(), 59))
    files = {"damaged.mp4": damaged.read_bytes(), "grows.mjpeg": videos.path("resized").read_bytes()}
    mount = mounter.mount_files(files)
    frames = mount.path / ".fusefs/frames"
    full = full_decode(damaged)
    for number in (58, 60, 99):
        shown = npy_of(frames / f"npy/damaged.mp4/{number:06d}.npy")
        assert md5_of(shown) == full[number - (number > 59)].rgb
    assert failing(frames / "npy/damaged.mp4/000059.npy") == errno.EIO
    assert (frames / "npy/damaged.mp4/000059.npy").stat().st_size == 128 * 72 * 3 + 128
    assert failing(frames / "jpg/damaged.mp4/000059.jpg") == errno.EIO
    full = full_decode(videos.path("resized"))
    assert md5_of(npy_of(frames / "npy/grows.mjpeg/000009.npy")) == full[9].rgb
    assert failing(frames / "npy/grows.mjpeg/000010.npy") == errno.EIO
    assert failing(frames / "bmp/grows.mjpeg/000019.bmp") == errno.EIO
    assert md5_of(picture_of(frames / "png/grows.mjpeg/000010.png")) == full[10].rgb
    log = mount.umount()
    assert "frame 59 is damaged" in log
    assert "frame 10 is of another size than the video says" in log
    assert "scale=" in log
    assert "Traceback" not in log


def test_strange_names(mounter: Mounter, videos: Videos) -> None:
    data = videos.path("jpegs").read_bytes()
    files = {f"{name[:120]}.mov": data for name in (*STRANGE_NAMES, *BROKEN_NAMES)}
    mount = mounter.mount_files(files)
    place = mount.path / ".fusefs/frames/png"
    assert names_in(place) == sorted(files)
    expected = (place / next(iter(files)) / "000003.png").read_bytes()
    for name in files:
        assert (place / name / "000003.png").read_bytes() == expected
        assert json.loads((place / name / "frames.json").read_bytes())["source"] == name
    assert "Traceback" not in mount.umount()


# What is kept


def test_products_outlive_their_source_and_the_mount(mounter: Mounter, videos: Videos) -> None:
    """The index and the frames that were made are all that is needed."""
    objects = Cache(mounter.home / "objects")
    data = videos.path("open-gop").read_bytes()
    oid = objects.put_dataset({"a.mp4": data})
    mount = mounter.mount(oid, "--cache", objects.root, "--no-pin")
    place = Path(".fusefs/frames/jpg/a.mp4")
    first = {path.name: path.read_bytes() for path in (mount.path / place).iterdir()}
    key = os.getxattr(mount.path / place / "000007.jpg", "user.fusefs.key").decode()
    times = {path.name: path.stat().st_mtime for path in (mount.path / place).iterdir()}
    mount.umount()
    assert any(path.parent.name + path.name == key for path in derived(objects.root))
    objects.remove(md5(data))
    mount = mounter.mount(oid, "--cache", objects.root, "--no-pin")
    assert {path.name: path.read_bytes() for path in (mount.path / place).iterdir()} == first
    assert {path.name: path.stat().st_mtime for path in (mount.path / place).iterdir()} == times
    assert failing(mount.path / ".fusefs/frames/png/a.mp4/000000.png") == errno.EIO
    assert "a.mp4" in mount.umount()


def test_two_mounts_share_what_is_made(mounter: Mounter, videos: Videos) -> None:
    objects = Cache(mounter.home / "objects")
    data = videos.path("b-frames").read_bytes()
    one = mounter.mount(objects.put_dataset({"one/a.mp4": data}), "--cache", objects.root)
    two = mounter.mount(objects.put_dataset({"b.mp4": data, "c.mp4": data}), "--cache", objects.root)
    made = [path.read_bytes() for path in sorted((one.path / ".fusefs/frames/jpg/one/a.mp4").glob("*.jpg"))]
    one.umount()  # with which all that was made is in its place
    before = {path: path.stat().st_mtime_ns for path in derived(objects.root)}
    for name in ("b.mp4", "c.mp4"):
        again = sorted((two.path / f".fusefs/frames/jpg/{name}").glob("*.jpg"))
        assert [path.read_bytes() for path in again] == made
    assert {path: path.stat().st_mtime_ns for path in derived(objects.root)} == before


def test_a_damaged_product_is_made_again(mounter: Mounter, videos: Videos) -> None:
    objects = Cache(mounter.home / "objects")
    oid = objects.put_dataset({"a.mp4": videos.path("b-frames").read_bytes()})
    mount = mounter.mount(oid, "--cache", objects.root)
    place = Path(".fusefs/frames/npy/a.mp4")
    first = {path.name: path.read_bytes() for path in (mount.path / place).iterdir()}
    mount.umount()
    for path in derived(objects.root):
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
    mount = mounter.mount(oid, "--cache", objects.root)
    assert {path.name: path.read_bytes() for path in (mount.path / place).iterdir()} == first
    assert "Traceback" not in mount.umount()
