"""Zips that are made to do harm, or that nobody can import: a line each, and nothing of them is recorded."""

from __future__ import annotations

import io
import json
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backup.archives import there
from tests.backup.cvat_zips import task, task_files, write_zip
from tests.mount.datasets import md5
from tests.mount.mounts import Mounter

FILES = task_files(1)


def refuse(mounter: Mounter, file: Path) -> str:
    """What is said of a bad zip; nothing is recorded, and the cache has right objects only."""
    place = mounter.home / "restored"
    place.mkdir()
    before = there(mounter.home)
    done = mounter.run("restore", file, place, "--cache", mounter.home / "objects")
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for name in there(mounter.home) - before:
        if name.startswith("objects/files/md5/"):
            assert md5((mounter.home / name).read_bytes()) == "".join(name.split("/")[-2:])
        else:
            assert name.startswith(("objects/fusefs/", "state/", ".")), name
    incoming = mounter.home / "objects/fusefs/incoming"
    assert not incoming.exists() or not there(incoming)
    return done.stderr


def zip_with(file: Path, name: str | zipfile.ZipInfo, data: bytes = b"x") -> Path:
    write_zip(file, FILES)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(name, data)
    return file


@pytest.mark.parametrize("name", ["/etc/x", "../x", "data/../../x", "data//x", "data/./x", "data\\..\\x"])
def test_names_that_lead_elsewhere(mounter: Mounter, name: str) -> None:
    assert "is not a path inside" in refuse(mounter, zip_with(mounter.home / "bad.zip", name))


def test_rules_for_dvc(mounter: Mounter) -> None:
    assert "would hide files from DVC" in refuse(
        mounter, zip_with(mounter.home / "bad.zip", "data/.dvcignore")
    )


def linked() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("data/link.png")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def test_links(mounter: Mounter) -> None:
    assert "is a link" in refuse(mounter, zip_with(mounter.home / "bad.zip", linked(), b"/etc/passwd"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice(mounter: Mounter) -> None:
    assert "twice" in refuse(mounter, zip_with(mounter.home / "bad.zip", "task.json", task(0)))


def test_a_file_that_is_a_directory(mounter: Mounter) -> None:
    file = zip_with(mounter.home / "bad.zip", "data/street", b"x")
    assert "as a file and as a directory" in refuse(mounter, file)


def test_a_bomb(mounter: Mounter) -> None:
    file = mounter.home / "bomb.zip"
    write_zip(file, FILES | {"data/big.png": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    assert "it is a bomb" in refuse(mounter, file)


def directory(data: bytes) -> tuple[int, int]:
    """Where the last member's directory entry and its local header begin."""
    entry = data.rindex(b"PK\1\2")
    return entry, struct.unpack_from("<I", data, entry + 42)[0]


def lie_shorter(data: bytearray) -> str:
    entry, _ = directory(data)
    size = struct.unpack_from("<I", data, entry + 24)[0]
    struct.pack_into("<II", data, entry + 20, size - 1, size - 1)
    return "cannot be unpacked"


def lie_longer(data: bytearray) -> str:
    entry, _ = directory(data)
    struct.pack_into("<II", data, entry + 20, 1 << 30, 1 << 30)
    return "lies beyond its end"


def lie_differently(data: bytearray) -> str:
    entry, _ = directory(data)
    struct.pack_into("<I", data, entry + 24, 5)
    return "has two different lengths"


def overlap(data: bytearray) -> str:
    entry, _ = directory(data)
    struct.pack_into("<I", data, entry + 42, 0)
    return "overlaps another member"


def encrypt(data: bytearray) -> str:
    entry, _ = directory(data)
    data[entry + 8] |= 1
    return "is encrypted"


def flip(data: bytearray) -> str:
    _, header = directory(data)
    data[header + 30 + len("data/manifest.jsonl") + 3] ^= 1
    return "cannot be unpacked"


def not_utf8(data: bytearray) -> str:
    for place in (data.index(b"data/street/00.png"), data.rindex(b"data/street/00.png")):
        data[place + 5] = 0xE9
    return "is a name that is not UTF-8"


def said_to_be_utf8(data: bytearray) -> str:
    place = data.rindex(b"data/street/00.png")
    data[place + 5] = 0xE9
    data[place - 46 + 9] |= 0x08
    return "is not a zip that can be read"


def cut(data: bytearray) -> str:
    del data[len(data) // 2 :]
    return "is not a zip that can be read"


@pytest.mark.parametrize(
    "harm",
    [lie_shorter, lie_longer, lie_differently, overlap, encrypt, flip, not_utf8, said_to_be_utf8, cut],
)
def test_a_zip_that_lies(mounter: Mounter, harm: Callable[[bytearray], str]) -> None:
    file = write_zip(mounter.home / "bad.zip", FILES)
    data = bytearray(file.read_bytes())
    expected = harm(data)
    file.write_bytes(data)
    assert expected in refuse(mounter, file)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"task.json": b"{"}, "task.json is not JSON"),
        ({"task.json": b'{"version": "2.0"}'}, "task.json is not one of CVAT's"),
        ({"task.json": b"[" * 100_000}, "task.json is not JSON"),
        ({"annotations.json": b"{}"}, "is not CVAT's list of annotations"),
        ({"annotations.json": None}, "it has no annotations.json"),
        ({"data/street/00.png": None}, "a lightweight backup"),
        ({"task.json": None}, "not a backup of CVAT's"),
    ],
)
def test_what_is_no_backup(mounter: Mounter, changed: dict[str, bytes | None], expected: str) -> None:
    files = {name: data for name, data in (FILES | changed).items() if data is not None}
    assert expected in refuse(mounter, write_zip(mounter.home / "bad.zip", files))


def test_thousands_of_members_and_any_name_for_the_task(mounter: Mounter) -> None:
    files = {
        "task.json": task(0, name="../..//\x00\ud800.dvc"),
        "annotations.json": FILES["annotations.json"],
    }
    files |= {f"data/{number:05}.txt": b"%d" % (number % 7) for number in range(3000)}
    file = write_zip(mounter.home / "many.zip", files)
    done = mounter.run(
        "restore", "--json", file, mounter.home / "restored", "--cache", mounter.home / "objects"
    )
    assert done.returncode == 0, done.stderr
    metafile = Path(json.loads(done.stdout)["metafile"])
    assert metafile.parent == mounter.home / "restored"
    assert there(mounter.home / "restored") == {metafile.name}


def test_what_is_there_is_kept(mounter: Mounter) -> None:
    file, place = write_zip(mounter.home / "task.zip", FILES), mounter.home / "restored"
    place.mkdir()
    text = f"outs:\n- md5: {'0' * 32}\n  hash: md5\n  path: crossing\n"
    (place / "crossing.dvc").write_text(text)
    done = mounter.run("restore", file, place, "--cache", mounter.home / "objects")
    assert done.returncode == 1
    assert "records something else" in done.stderr
    assert (place / "crossing.dvc").read_text() == text


def test_it_is_proved_and_listed_without_being_restored(mounter: Mounter) -> None:
    file = write_zip(mounter.home / "task.zip", FILES)
    for flag, expected in (("--verify", "proved 6 files"), ("--list", "crossing")):
        done = mounter.run("restore", flag, file)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    stream = io.BytesIO(file.read_bytes())
    data = bytearray(stream.getvalue())
    flip(data)
    file.write_bytes(data)
    done = mounter.run("restore", "--verify", file)
    assert done.returncode == 1
    assert "cannot be unpacked" in done.stderr
