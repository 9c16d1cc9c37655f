"""`.fusefs/chunks`: what CVAT makes of videos and folders, in names, order, numbers and bytes."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from store.media.images import compressed_member
from tests.mount.datasets import Cache, entries_of, md5
from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.revisions.projects import Project
from tests.servers.access_log import assert_asked, objects_asked
from tests.servers.nginx import nginx
from tests.store.media.sources import BytesSource
from tests.store.media.videos import Videos, full_decode, md5_of

pytestmark = pytest.mark.fuse

SECONDS = 60.0
NAMES = ["compressed", "index.json", "manifest.jsonl", "original"]
HEAD = b'{"version":"1.1"}\n{"type":"images"}\n'
PREDEFINED = HEAD + b'{"name":"b","extension":".png"}\n{"name":"a","extension":".png"}\n' * 2


def picture(number: int, form: str = "PNG", *, size: tuple[int, int] = (48, 32), **options: Any) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (*reversed(size), 3), np.uint8)
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def turned(number: int) -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return picture(number, "JPEG", exif=exif)


def deep() -> bytes:
    file = io.BytesIO()
    Image.fromarray((1000 + np.arange(48 * 32) % 1024).astype(np.uint16).reshape(32, 48)).save(file, "PNG")
    return file.getvalue()


def bomb() -> bytes:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )


CAMERA = {
    "cam/1.png": picture(1),
    "cam/2.jpg": turned(2),
    "cam/10.png": deep(),
    "cam/sub/3.PNG": picture(3),
    "cam/related_images/2_jpg/y.png": picture(4),
    "cam/related_images/2_jpg/x.jpg": picture(5, "JPEG"),
    "cam/notes.txt": b"no frame",
    "cam/.hidden.png": picture(6),
}
ODD = {
    "odd/compressed/a.png": picture(7),
    "odd/compressed-chunks/b.png": picture(8),
    "odd/manifest.jsonl/c.png": picture(9),
    os.fsdecode(b"raw/\xff\xfe.png"): picture(10),
    "raw/new\nline.jpg": picture(11, "JPEG"),
}
SET = {"set/a.png": picture(12), "set/b.png": picture(13), "set/manifest.jsonl": PREDEFINED}
BROKEN = {
    "broken/0.png": picture(14),
    "broken/1.png": b"no picture at all",
    "broken/2.png": picture(15),
    "broken/text.mp4": b"This is no video.\n" * 99,
    "bomb/a.png": bomb(),
    "hostile/a.png": picture(16),
    "hostile/manifest.jsonl": HEAD + b'{"name":"../cam/1","extension":".png"}\n',
    "empty/readme.txt": b"nothing here",
}
MANY = {f"many/{number:03d}.png": picture(100 + number, size=(8, 8)) for number in range(150)}


@pytest.fixture(scope="module")
def files(videos: Videos) -> Mapping[str, bytes]:
    clips = {
        f"clips/{name}": videos.path(kind).read_bytes()
        for name, kind in (("a.mp4", "b-frames"), ("up.mov", "rotated-90"), ("cut.ts", "transport-cut"))
    }
    return {**CAMERA, **ODD, **SET, **BROKEN, **MANY, **clips}


@pytest.fixture(scope="module")
def mount(shared_mounter: Mounter, files: Mapping[str, bytes]) -> Mount:
    return shared_mounter.mount_files(files)


def seen(mount: Mount, recipe: str, path: str = "") -> Path:
    return mount.path / ".fusefs" / "chunks" / recipe / path


def told(mount: Mount, *lines: str) -> None:
    """Wait until the log says all this: it is written behind the answers."""
    until(lambda: all(line in mount.log.read_text() for line in lines), mount.log.read_text)


def members(path: Path) -> dict[str, bytes]:
    """What is in a zip, which must be as large as it says and take every reader."""
    content = path.read_bytes()
    assert path.stat().st_size == len(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} <= {zipfile.ZIP_STORED}
        return {name: archive.read(name) for name in archive.namelist()}


def compressed(content: bytes, quality: int = 70) -> bytes:
    return compressed_member(BytesSource(content), quality)


# Folders of images


def test_a_folder(mount: Mount) -> None:
    folder = seen(mount, "2,quality=60", "cam")
    assert sorted(os.listdir(folder)) == [*NAMES, "related_images", "sub"]
    order = ["cam/1.png", "cam/10.png", "cam/2.jpg", "cam/sub/3.PNG"]
    assert os.listdir(folder / "compressed") == os.listdir(folder / "original") == ["0.zip", "1.zip"]
    for number, paths in enumerate((order[:2], order[2:])):
        assert members(folder / "compressed" / f"{number}.zip") == {
            f"{place:06d}.jpeg": compressed(CAMERA[path], 60) for place, path in enumerate(paths)
        }
        assert members(folder / "original" / f"{number}.zip") == {
            f"{place:06d}{Path(path).suffix}": CAMERA[path] for place, path in enumerate(paths)
        }
    assert Image.open(io.BytesIO(members(folder / "compressed" / "1.zip")["000000.jpeg"])).size == (32, 48)
    assert Image.open(io.BytesIO(members(folder / "compressed" / "0.zip")["000001.jpeg"])).mode == "L"


def test_the_manifest_of_a_folder(mount: Mount) -> None:
    expected = HEAD + (
        b'{"name":"1","extension":".png","width":48,"height":32}\n'
        b'{"name":"10","extension":".png","width":48,"height":32}\n'
        b'{"name":"2","extension":".jpg","width":32,"height":48,'
        b'"meta":{"related_images":["related_images/2_jpg/x.jpg","related_images/2_jpg/y.png"]}}\n'
        b'{"name":"sub/3","extension":".PNG","width":48,"height":32}\n'
    )
    folder = seen(mount, "auto", "cam")
    assert (folder / "manifest.jsonl").read_bytes() == expected
    places = json.loads((folder / "index.json").read_bytes())
    assert [expected[place:].splitlines()[0] for place in places.values()] == expected.splitlines()[2:]
    assert list(places) == ["0", "1", "2", "3"]
    some = seen(mount, "auto,start=1,step=2,stop=2", "cam")
    assert (some / "manifest.jsonl").read_bytes().splitlines()[2:] == [
        b"{}",
        b'{"name":"10","extension":".png","width":48,"height":32}',
        b"{}",
    ]
    assert list(members(some / "original" / "0.zip").values()) == [CAMERA["cam/10.png"]]


def test_orders_and_default_sizes(mount: Mount) -> None:
    natural = members(seen(mount, "9,order=natural", "cam/original/0.zip"))
    assert list(natural.values()) == [
        CAMERA[f"cam/{name}"] for name in ("1.png", "2.jpg", "10.png", "sub/3.PNG")
    ]
    assert sorted(os.listdir(seen(mount, "auto", "many/original")), key=lambda name: int(name[:-4])) == [
        *("0.zip", "1.zip", "2.zip")
    ]
    lengths = [len(members(seen(mount, "auto", f"many/original/{number}.zip"))) for number in range(3)]
    assert lengths == [72, 72, 6]
    chosen = seen(mount, "50,start=10,step=3", "many/original")
    found = [content for name in ("0.zip",) for content in members(chosen / name).values()]
    assert found == [MANY[f"many/{number:03d}.png"] for number in range(10, 150, 3)]


def test_a_predefined_order(mount: Mount) -> None:
    folder = seen(mount, "3,order=predefined", "set")
    assert [list(members(folder / "original" / name).values()) for name in ("0.zip", "1.zip")] == [
        [SET["set/b.png"], SET["set/a.png"], SET["set/b.png"]],
        [SET["set/a.png"]],
    ]
    names = [json.loads(line)["name"] for line in (folder / "manifest.jsonl").read_bytes().splitlines()[2:]]
    assert names == ["b", "a", "b", "a"]
    assert [json.loads(line)["name"] for line in PREDEFINED.splitlines()[2:]] == names
    for place, reason in (
        ("cam", "'cam' has no manifest.jsonl"),
        ("hostile", "'hostile': manifest.jsonl names"),
    ):
        with pytest.raises(OSError, match="Input/output"):
            os.listdir(seen(mount, "3,order=predefined", f"{place}/compressed"))
        told(mount, reason)


def test_names_that_collide_or_are_no_text(mount: Mount) -> None:
    folder = seen(mount, "auto", "odd")
    assert sorted(os.listdir(folder)) == [
        *("compressed", "compressed-chunks", "compressed-chunks-chunks", "index.json", "manifest.jsonl"),
        *("manifest.jsonl-chunks", "original"),
    ]
    assert os.listdir(folder / "compressed-chunks-chunks") == ["0.zip"]
    assert list(members(folder / "original" / "0.zip").values()) == [
        ODD[f"odd/{name}"] for name in ("compressed-chunks/b.png", "compressed/a.png", "manifest.jsonl/c.png")
    ]
    assert (folder / "manifest.jsonl-chunks").read_bytes().startswith(HEAD)
    assert list(members(folder / "compressed" / "original" / "0.zip").values()) == [
        ODD["odd/compressed/a.png"]
    ]
    raw = seen(mount, "auto", "raw")
    lines = (raw / "manifest.jsonl").read_bytes().splitlines()[2:]
    assert [json.loads(line)["name"] for line in lines] == ["new\nline", "\udcff\udcfe"]
    assert len(members(raw / "compressed" / "0.zip")) == 2


def test_what_is_broken_is_told_and_nothing_else_suffers(mount: Mount) -> None:
    folder = seen(mount, "2", "broken")
    for name in ("manifest.jsonl", "index.json", "compressed/0.zip"):
        with pytest.raises(OSError, match="Input/output"):
            (folder / name).read_bytes()
        with pytest.raises(OSError, match="Input/output"):
            (folder / name).stat()
    told(mount, "'broken/1.png' is no image that can be read, and CVAT", ": broken/1.png is no image")
    assert list(members(folder / "original" / "0.zip").values()) == [
        BROKEN["broken/0.png"],
        BROKEN["broken/1.png"],
    ]
    assert members(folder / "compressed" / "1.zip") == {"000000.jpeg": compressed(BROKEN["broken/2.png"])}
    for recipe in ("auto", "9"):
        for name in ("manifest.jsonl", "compressed/0.zip"):
            with pytest.raises(OSError, match="Input/output"):
                seen(mount, recipe, f"bomb/{name}").read_bytes()
    told(mount, "bomb/a.png has more than", "'bomb/a.png' is no image")
    last = seen(mount, "2,start=2", "broken")
    assert (last / "manifest.jsonl").read_bytes().splitlines()[2:4] == [b"{}", b"{}"]
    video = folder / "text.mp4"
    assert sorted(os.listdir(video)) == NAMES
    for name in ("compressed", "original"):
        with pytest.raises(OSError, match="Input/output"):
            os.listdir(video / name)
    told(mount, "broken/text.mp4")


def test_what_has_no_frames(mount: Mount) -> None:
    assert os.listdir(seen(mount, "auto", "empty")) == []
    with pytest.raises(FileNotFoundError):
        os.stat(seen(mount, "auto", "empty/manifest.jsonl"))
    beyond = seen(mount, "auto,start=99", "cam")
    assert os.listdir(beyond / "compressed") == os.listdir(beyond / "original") == []
    assert (beyond / "manifest.jsonl").read_bytes() == HEAD + b"{}\n" * 4


def test_names_that_are_none(mount: Mount) -> None:
    folder = seen(mount, "2", "cam")
    for name in ("2.zip", "00.zip", "0.mp4", "0.zip ", "-1.zip", "9999999999.zip", "0"):
        with pytest.raises(FileNotFoundError):
            os.stat(folder / "compressed" / name)
    with pytest.raises(FileNotFoundError):
        os.stat(folder / "1.png")
    with pytest.raises(FileNotFoundError):
        os.stat(seen(mount, "36,zip=2"))
    told(mount, "it is spelt auto or FRAMES")
    with pytest.raises(OSError, match="Read-only"):
        (folder / "compressed" / "0.zip").write_bytes(b"")


# Videos


def frames_of(content: bytes) -> list[np.ndarray[Any, Any]]:
    with av.open(io.BytesIO(content)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_video(mount: Mount, files: Mapping[str, bytes], videos: Videos) -> None:
    folder = seen(mount, "auto", "clips/a.mp4")
    assert sorted(os.listdir(folder)) == NAMES
    assert os.listdir(folder / "compressed") == ["0.mp4", "1.mp4", "2.mp4"]
    assert os.listdir(folder / "original") == ["0.zip", "1.zip", "2.zip"]
    plain = full_decode(videos.path("b-frames"))
    for number, count in enumerate((36, 36, 28)):
        chunk = folder / "compressed" / f"{number}.mp4"
        shown = frames_of(chunk.read_bytes())
        assert len(shown) == count and chunk.stat().st_size == len(chunk.read_bytes())
        originals = members(folder / "original" / f"{number}.zip")
        assert list(originals) == [f"{place:06d}.png" for place in range(count)]
        pictures = [np.asarray(Image.open(io.BytesIO(content))) for content in originals.values()]
        known = {frame.rgb: place for place, frame in enumerate(plain)}
        came = [known.get(md5_of(picture), -1) for picture in pictures]
        assert came == list(range(36 * number, 36 * number + count))
        for picture, lossy in zip(pictures, shown, strict=True):
            assert np.abs(picture.astype(int) - lossy).mean() < 16


def test_the_manifest_of_a_video(mount: Mount) -> None:
    folder = seen(mount, "36,start=50", "clips/a.mp4")
    lines = (folder / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    assert lines[:3] == [
        b'{"version":"1.1"}\n',
        b'{"type":"video"}\n',
        b'{"properties":{"name":"a.mp4","resolution":[128,72],"length":100}}\n',
    ]
    assert [json.loads(line) for line in lines[3:]] == [
        {"number": number, "pts": number * 512} for number in range(0, 100, 24)
    ]
    places = json.loads((folder / "index.json").read_bytes())
    assert places == {str(n): len(b"".join(lines[: 3 + n])) for n in range(5)}
    assert os.listdir(folder / "compressed") == ["0.mp4", "1.mp4"]


def test_zips_of_a_turned_video(mount: Mount) -> None:
    folder = seen(mount, "4,start=3,step=2,stop=20,zip=1", "clips/up.mov")
    assert b'"resolution":[72,128],"length":30' in (folder / "manifest.jsonl").read_bytes()
    assert os.listdir(folder / "compressed") == ["0.zip", "1.zip", "2.zip"]
    small = members(folder / "compressed" / "2.zip")
    assert list(small) == ["000000.jpeg"]
    assert Image.open(io.BytesIO(small["000000.jpeg"])).size == (72, 128)
    assert Image.open(io.BytesIO(members(folder / "original" / "2.zip")["000000.png"])).size == (72, 128)


def test_unzip_takes_every_chunk(mount: Mount) -> None:
    unzip = shutil.which("unzip")
    if unzip is None:
        pytest.skip("unzip is not installed")
    for path in ("cam/compressed", "cam/original", "clips/cut.ts/compressed", "clips/cut.ts/original"):
        directory = seen(mount, "40,zip=1", path)
        for name in os.listdir(directory):
            done = subprocess.run(
                [unzip, "-t", directory / name], capture_output=True, text=True, timeout=SECONDS
            )
            assert done.returncode == 0, done.stdout + done.stderr


# What is kept, and what is not made


def products(cache: Path) -> dict[Path, int]:
    derived = cache / "fusefs" / "derived"
    return {path: path.stat().st_mtime_ns for path in derived.rglob("*") if path.is_file()}


def test_listing_makes_nothing_and_what_was_made_is_found_again(mounter: Mounter, videos: Videos) -> None:
    """Also where there are no sources any more; without either it is made again."""
    cache = Cache(mounter.home / "shared")
    clip = videos.path("constant").read_bytes()
    sources = {**CAMERA, "clip.mp4": clip}
    oid = cache.put_dataset(sources)
    first = mounter.mount(oid, "--cache", cache.root)
    for directory, _, _ in os.walk(seen(first, "2")):
        os.listdir(directory)
    assert len(products(cache.root)) <= 1  # the index of the video, which says how many chunks there are
    wanted = {
        path: seen(first, "2", path).read_bytes()
        for path in (
            *("cam/compressed/1.zip", "cam/compressed/0.zip", "cam/manifest.jsonl"),
            *("clip.mp4/compressed/0.mp4", "clip.mp4/original/9.zip", "clip.mp4/index.json"),
        )
    }
    first.umount()
    kept = products(cache.root)
    assert len(kept) >= 6
    for content in set(sources.values()):
        cache.remove(md5(content))
    second = mounter.mount(oid, "--cache", cache.root)
    assert {path: seen(second, "2", path).read_bytes() for path in wanted} == wanted
    second.umount()
    assert products(cache.root) == kept
    shutil.rmtree(cache.root / "fusefs" / "derived")
    for content in sources.values():
        cache.put(content)
    third = mounter.mount(oid, "--cache", cache.root)
    assert {path: seen(third, "2", path).read_bytes() for path in wanted} == wanted


def test_images_that_a_remote_has_are_fetched_once(mounter: Mounter, tmp_path: Path) -> None:
    cache, there = Cache(tmp_path / "cache"), Cache(tmp_path / "remote")
    for content in MANY.values():
        there.put(content)
    oid = cache.put_manifest(entries_of(MANY))
    log = tmp_path / "access.log"

    with nginx(tmp_path / "nginx", there.root, extra=f"access_log {log};") as server:
        mount = mounter.mount(oid, "--cache", cache.root, "--remote", server.url)
        folder = seen(mount, "40", "many")
        assert sorted(os.listdir(folder / "original")) == ["0.zip", "1.zip", "2.zip", "3.zip"]
        assert not objects_asked(log)
        first = members(folder / "original" / "0.zip")
        assert list(first.values()) == list(MANY.values())[:40]
        until(lambda: objects_asked(log).keys() >= {md5(content) for content in first.values()})
        lines = (folder / "manifest.jsonl").read_bytes().splitlines()
        assert len(lines) == 2 + len(MANY)
        for number in range(4):
            assert list(members(folder / "compressed" / f"{number}.zip").values()) == [
                compressed(content) for content in list(MANY.values())[40 * number : 40 * number + 40]
            ]
        assert_asked(log, {md5(content) for content in MANY.values()}, mount)
        assert mount.status()["errors"] == 0
        mount.umount()


def test_chunks_outlive_their_sources_and_the_remote_of_those(
    mounter: Mounter, tmp_path: Path, videos: Videos
) -> None:
    """Of a video and of a folder of images: what was made is all that is needed, and stands in the cache."""
    files = {"clips/a.mp4": videos.path("b-frames").read_bytes()} | dict(list(MANY.items())[:40])
    cache, there = Cache(tmp_path / "cache"), Cache(tmp_path / "remote")
    for content in files.values():
        there.put(content)
    oid = cache.put_manifest(entries_of(files, sizes=True))
    places = ("clips/a.mp4/compressed/1.mp4", "clips/a.mp4/original/2.zip", "many/compressed/0.zip")

    def read(mount: Mount) -> list[bytes]:
        return [seen(mount, "auto", place).read_bytes() for place in places]

    with nginx(tmp_path / "nginx", there.root) as server:
        mount = mounter.mount(oid, "--cache", cache.root, "--remote", server.url, "--no-pin")
        first = read(mount)
        mount.umount()
        for content in files.values():
            cache.place(md5(content)).unlink(missing_ok=True)
        url = server.url
    mount = mounter.mount(oid, "--cache", cache.root, "--remote", url, "--no-pin")
    assert read(mount) == first
    with pytest.raises(OSError):
        seen(mount, "auto", "clips/a.mp4/compressed/0.mp4").read_bytes()  # which nobody has made
    assert "Traceback" not in mount.umount()


@pytest.mark.modes("fuse")  # a view at the root is for fuse mode alone
def test_as_a_mount_of_its_own(mounter: Mounter) -> None:
    mount = mounter.mount_files(CAMERA, "--view", "chunks:2")
    assert sorted(os.listdir(mount.path)) == ["cam", *NAMES]
    assert list(members(mount.path / "original" / "1.zip").values()) == [
        CAMERA[path] for path in ("cam/2.jpg", "cam/sub/3.PNG")
    ]
    assert sorted(os.listdir(mount.path / "cam" / "sub")) == NAMES


@pytest.mark.modes("fuse")  # a view at the root is for fuse mode alone
def test_a_switch_takes_the_names_along(mounter: Mounter, project: Project) -> None:
    for tag, files in (("v1", CAMERA), ("v2", {"sub/compressed/x.png": picture(20), "notes.txt": b"two"})):
        project.track("data", files)
        project.commit(tag)
    mount = mounter.mount("data@v1", "--view", "chunks:2", cwd=project.root)
    assert sorted(os.listdir(mount.path)) == ["cam", *NAMES]
    assert len(os.listdir(mount.path / "original")) == 2
    with (mount.path / "original" / "0.zip").open("rb", buffering=0) as opened:
        assert mounter.run("switch", mount.path, "v2").returncode == 0
        assert os.listdir(mount.path / "original") == ["0.zip"]
        assert list(members(mount.path / "original" / "0.zip").values()) == [picture(20)]
        assert sorted(os.listdir(mount.path / "sub")) == ["compressed", "compressed-chunks", *NAMES[1:]]
        with zipfile.ZipFile(io.BytesIO(opened.read())) as archive:
            assert archive.read("000001.png") == CAMERA["cam/10.png"]


def test_a_size_that_was_wrong_is_corrected(mounter: Mounter) -> None:
    """A file in the cache told it, and the object that came in its place is another length's."""
    files = {"a.png": picture(21), "b.png": picture(22)}
    cache = Cache(mounter.home / "own")
    cache.put(b"short", md5(files["a.png"]))
    cache.put(files["b.png"])
    mount = mounter.mount(cache.put_manifest(entries_of(files)), "--cache", cache.root)
    chunk = seen(mount, "2", "original/0.zip")
    before = chunk.stat()
    cache.remove(md5(files["a.png"]))
    cache.put(files["a.png"])
    assert list(members(chunk).values()) == list(files.values())
    assert chunk.stat().st_ino == before.st_ino
    assert chunk.stat().st_size == before.st_size + len(files["a.png"]) - len(b"short")
