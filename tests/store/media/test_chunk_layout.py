"""Order of frames, related images, manifests and zips, against files as CVAT writes them."""

from __future__ import annotations

import io
import json
import random
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from natsort import os_sorted

from store.errors import InputError
from store.media.manifest_jsonl import (
    ImageEntry,
    KeyFrame,
    image_manifest,
    index_of,
    predefined_paths,
    video_manifest,
)
from store.media.ordering import NATURAL, PREDEFINED, frames_of, kind_of
from store.media.zips import Zip, ZipLayout, checksums_of, pack_checksums

HEAD = b'{"version":"1.1"}\n{"type":"images"}\n'


def test_which_files_are_frames_and_in_which_order() -> None:
    paths = [
        *("b/10.png", "b/9.JPG", "B/1.tiff", "a.svg", "a.txt", "clip.mp4", ".hidden.png", "__MACOSX/x.png"),
        *("b/._9.jpg", ".git/x.png", "b/related_images/9_JPG/c.png", "noextension"),
    ]
    assert frames_of(paths, "lexicographical") == ("B/1.tiff", "b/10.png", "b/9.JPG")
    assert frames_of(paths, NATURAL) == ("B/1.tiff", "b/9.JPG", "b/10.png")
    wanted = ("b/9.JPG", "B/1.tiff", "b/9.JPG")
    assert frames_of(paths, PREDEFINED, wanted) == wanted
    with pytest.raises(InputError, match=r"a\.svg"):
        frames_of(paths, PREDEFINED, ["a.svg"])
    with pytest.raises(InputError, match="natural"):
        frames_of(paths, "random")
    assert [kind_of(name) for name in ("a.svg", "a.MKV", "a.jpeg", "a")] == [None, "video", "image", None]


names = st.text("aAbBzéÉß019 _-", min_size=1, max_size=6).map(lambda name: f"{name}.png")


@given(st.lists(st.lists(names, min_size=1, max_size=3).map("/".join), unique=True, max_size=12))
def test_natural_order_is_that_of_natsort_without_a_locale(paths: list[str]) -> None:
    shuffled = random.Random(0).sample(paths, len(paths))
    assert frames_of(shuffled, NATURAL) == tuple(os_sorted(sorted(paths)))


def test_a_manifest_of_images() -> None:
    related = ("cam0/related_images/000001_jpg/a.png",)
    entries = [
        ImageEntry("cam0/000001.jpg", 1920, 1080, related, "0" * 32),
        None,
        ImageEntry("é.b.png", 1, 2),
    ]
    manifest = image_manifest(entries)
    assert manifest == HEAD + (
        b'{"name":"cam0/000001","extension":".jpg","width":1920,"height":1080,'
        b'"meta":{"related_images":["cam0/related_images/000001_jpg/a.png"]},'
        b'"checksum":"00000000000000000000000000000000"}\n'
        b"{}\n"
        b'{"name":"\\u00e9.b","extension":".png","width":1,"height":2}\n'
    )
    assert index_of(manifest) == b'{"0":36,"1":218,"2":221}'
    for start, line in zip(json.loads(index_of(manifest)).values(), manifest.splitlines()[2:], strict=True):
        assert manifest[start:].startswith(line)
    assert predefined_paths(manifest) == ("cam0/000001.jpg", "é.b.png")


def test_a_manifest_of_a_video() -> None:
    frames = [KeyFrame(0, 0, "a" * 32), KeyFrame(135, 486000)]
    manifest = video_manifest("some/clip.mp4", 1280, 720, 778, frames)
    assert manifest == (
        b'{"version":"1.1"}\n{"type":"video"}\n'
        b'{"properties":{"name":"clip.mp4","resolution":[1280,720],"length":778}}\n'
        b'{"number":0,"pts":0,"checksum":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}\n{"number":135,"pts":486000}\n'
    )
    assert index_of(manifest) == b'{"0":107,"1":174}'
    assert manifest[107:].startswith(b'{"number":0') and manifest[174:].startswith(b'{"number":135')
    with pytest.raises(InputError, match="not one of images"):
        predefined_paths(manifest)


@pytest.mark.parametrize(
    "line",
    [
        b'{"name":"../a","extension":".png"}',
        b'{"name":"/a","extension":".png"}',
        b'{"name":"a/../b","extension":".png"}',
        b'{"name":"a//b","extension":".png"}',
        b'{"name":"","extension":""}',
        b'{"name":"a\\u0000","extension":".png"}',
        b'{"name":"\\ud800","extension":".png"}',
        b'{"name":"a"}',
        b'{"name":1,"extension":".png"}',
        b'["a"]',
        b"{",
        b"[" * 60_000,
        b'{"name":"' + b"a" * 5000 + b'","extension":".png"}',
        b" " * 70_000 + b"1",
        b'{"name":"\xff","extension":".png"}',
    ],
    ids=range(15),
)
def test_a_hostile_manifest(line: bytes) -> None:
    with pytest.raises(InputError, match="line 3") as raised:
        predefined_paths(HEAD + line + b"\n")
    assert len(str(raised.value)) < 200


@given(st.binary(max_size=80))
def test_any_bytes_are_a_manifest_or_an_input_error(content: bytes) -> None:
    for candidate in (content, HEAD + content):
        try:
            predefined_paths(candidate)
        except InputError:
            continue


def test_other_versions() -> None:
    line = b'{"name":"a","extension":".png"}\n'
    assert predefined_paths(HEAD.replace(b"1.1", b"1.0") + line) == ("a.png",)
    with pytest.raises(InputError, match="version"):
        predefined_paths(HEAD.replace(b"1.1", b"2.0") + line)


def build_zip(members: Sequence[tuple[str, bytes]]) -> bytes:
    """The zip of members given by extension and bytes, read in one piece."""
    contents = [content for _, content in members]
    whole = Zip(
        ZipLayout(tuple(extension for extension, _ in members), tuple(map(len, contents))),
        checksums_of(pack_checksums([zlib.crc32(content) for content in contents])),
    )
    return b"".join(
        part if isinstance(part, bytes) else contents[part.number] for part in whole.parts(0, whole.size)
    )


members = st.lists(st.tuples(st.sampled_from(["jpeg", "png", "JPG"]), st.binary(max_size=99)), max_size=9)


@given(members)
def test_zips(content: list[tuple[str, bytes]]) -> None:
    made = build_zip(content)
    assert made == build_zip(content)
    layout = ZipLayout(tuple(e for e, _ in content), tuple(len(b) for _, b in content))
    assert len(made) == layout.size
    for offset, (_, wanted) in zip(layout.offsets, content, strict=True):
        assert made[offset : offset + len(wanted)] == wanted
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{n:06d}.{extension}" for n, (extension, _) in enumerate(content)]
        assert [archive.read(name) for name in archive.namelist()] == [wanted for _, wanted in content]
        for info in archive.infolist():
            assert (info.compress_type, info.extra) == (zipfile.ZIP_STORED, b"")
            assert info.date_time == (1980, 1, 1, 0, 0, 0)


@given(members, st.integers(0, 999), st.integers(0, 999))
def test_ranges_of_zips_whose_members_lie_elsewhere(
    content: list[tuple[str, bytes]], offset: int, length: int
) -> None:
    layout = ZipLayout(tuple(e for e, _ in content), tuple(len(b) for _, b in content))
    whole = Zip(layout, [zlib.crc32(b) for _, b in content])
    parts = list(whole.parts(offset, length))
    assert all(len(part) if isinstance(part, bytes) else part.length for part in parts)
    made = b"".join(
        part if isinstance(part, bytes) else content[part.number][1][part.offset :][: part.length]
        for part in parts
    )
    assert made == build_zip(content)[offset : offset + length]
    with pytest.raises(InputError, match="checksums"):
        Zip(layout, [0] * (len(content) + 1))


def test_unzip_takes_them(tmp_path: Path) -> None:
    unzip = shutil.which("unzip")
    if unzip is None:
        pytest.skip("unzip is not installed")
    (tmp_path / "0.zip").write_bytes(build_zip([("jpeg", b"one"), ("png", b"")]))
    answer = subprocess.run([unzip, "-t", tmp_path / "0.zip"], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("extensions", "sizes"), [(("jpeg",), (1 << 32,)), (("a/b",), (1,)), (("",), (1,)), (("png",), ())]
)
def test_what_a_zip_cannot_hold(extensions: tuple[str, ...], sizes: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        ZipLayout(extensions, sizes)
