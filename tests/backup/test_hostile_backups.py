"""Backups that are cut, damaged or made to do harm: each is one line, and nothing wrong gets into a cache."""

from __future__ import annotations

import os
import random
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.backup.archives import Backed, Member, back_up, change_header, members_of, there, write_archive
from tests.mount.datasets import md5
from tests.mount.mounts import Mounter

DAMAGES = int(os.environ.get("FUSEFS_DAMAGES", "12"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Backed:
    return back_up(Mounter(tmp_path_factory.mktemp("made"), "fuse"), "data@v1", "data@v2")


@pytest.fixture
def backed(mounter: Mounter, made: Backed) -> Backed:
    """A copy that may be changed."""
    return replace(made, file=Path(shutil.copy(made.file, mounter.home / "backup")))


def refuse(mounter: Mounter, file: Path) -> str:
    """What is said of a bad backup; the cache has right objects only."""
    objects, place = mounter.home / "objects", mounter.home / "restored"
    place.mkdir(exist_ok=True)
    done = mounter.run("restore", file, place, "--cache", objects)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    for name in there(objects):
        parts = name.split("/")
        if parts[0] == "files":
            digest = (parts[-2] + parts[-1]).removesuffix(".dir")
            assert md5((objects / name).read_bytes()) == digest
        else:
            assert parts[0] == "fusefs"
    return done.stderr


@pytest.mark.parametrize("number", range(DAMAGES))
def test_a_flipped_bit_is_noticed(mounter: Mounter, backed: Backed, number: int) -> None:
    """Wherever it is: in the header, in an object, between them, in the trailer."""
    data = bytearray(backed.file.read_bytes())
    # The end is zeros that nobody needs, and so is what pads members.
    members, start = members_of(backed.file), 0
    places = []
    for _, content in members:
        places += [(start, 156), (start + 512, len(content))]
        start += 512 + -(-len(content) // 512) * 512
    order = random.Random(number)
    begin, length = order.choice([place for place in places if place[1]])
    place = order.randrange(begin, begin + length)
    data[place] ^= 1 << order.randrange(8)
    backed.file.write_bytes(data)
    assert refuse(mounter, backed.file), place


def test_a_damaged_object_is_named_and_the_others_come(mounter: Mounter, backed: Backed) -> None:
    members = members_of(backed.file)
    info, content = members[2]
    damaged = [*members[:2], (info, bytes([content[0] ^ 1]) + content[1:]), *members[3:]]
    write_archive(backed.file, damaged)
    oid = "".join(info.name.split("/")[-2:])
    assert f"object {oid} is damaged in the backup" in refuse(mounter, backed.file)
    found = {"".join(name.split("/")[-2:]) for name in there(mounter.home / "objects/files")}
    assert found == {"".join(other.name.split("/")[-2:]) for other, _ in members[1:-1]} - {oid}


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_backup_that_is_cut_short_is_none(mounter: Mounter, backed: Backed, share: float) -> None:
    """What came before the cut is kept."""
    data = backed.file.read_bytes()
    end = int(share * data.rindex(b"fusefs-backup.end"))
    kept = [info.name for info, _ in members_of(backed.file) if info.offset_data + info.size <= end]
    backed.file.write_bytes(data[:end])
    assert "cut short" in refuse(mounter, backed.file)
    assert there(mounter.home / "restored") <= {"data.dvc"} or share > 0.9
    objects = mounter.home / "objects/files"
    found = {f"files/{name}" for name in there(objects)}
    assert found == set(kept[1:])


def member(name: str, data: bytes = b"x", **fields: object) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


WRONG: dict[str, Callable[[list[Member]], list[Member]]] = {
    "an absolute name": lambda members: [*members[:1], member("/etc/x"), *members[1:]],
    "a name that climbs": lambda members: [*members[:1], member("files/md5/../../x"), *members[1:]],
    "a link": lambda members: [
        *members[:1],
        member("files/md5/00/" + "0" * 30, b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        *members[1:],
    ],
    "a hard link": lambda members: [
        *members[:1],
        member("files/md5/00/" + "0" * 30, b"", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        *members[1:],
    ],
    "a device": lambda members: [*members[:1], member("files/md5/00/" + "0" * 30, b"", type=tarfile.CHRTYPE)],
    "a long name": lambda members: [*members[:1], member("a/" * 200 + "x"), *members[1:]],
    "an object twice": lambda members: [*members[:2], members[1], *members[2:]],
    "more than it says": lambda members: [
        *members[:1],
        member("files/md5/" + md5(b"x")[:2] + "/" + md5(b"x")[2:]),
        *members[1:],
    ],
    "less than it says": lambda members: [*members[:1], *members[2:]],
    "another order": lambda members: [members[0], members[2], members[1], *members[3:]],
    "no header": lambda members: members[1:],
    "two headers": lambda members: [members[0], *members],
    "no trailer": lambda members: members[:-1],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_archive_that_is_no_backup(mounter: Mounter, backed: Backed, wrong: str) -> None:
    write_archive(backed.file, WRONG[wrong](members_of(backed.file)))
    assert "backup" in refuse(mounter, backed.file)
    assert not (mounter.home / "x").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "newer fusefs"),
        ({"format": "x" * 1000}, "newer fusefs"),
        ({"objects": -1}, "is no number"),
        ({"objects": 1e9}, "is no number"),
        ({"bytes": 1}, "more than it says"),
        ({"outputs": {}}, "a list is none"),
        ({"outputs": [{}]}, "not a backup"),
        ({"outputs": None}, "a list is none"),
        ({"since": ["md5:xyz"]}, "not an oid"),
    ],
)
def test_a_header_that_lies(mounter: Mounter, backed: Backed, change: dict[str, object], said: str) -> None:
    change_header(backed.file, lambda described: described.update(change))
    assert said in refuse(mounter, backed.file)


@pytest.mark.parametrize("path", ["../escaped", "/etc/escaped", "a/../../escaped", "", "nul\0", "x" * 300])
def test_a_metafile_stays_in_its_directory(mounter: Mounter, backed: Backed, path: str) -> None:
    def change(described: dict[str, object]) -> None:
        described["outputs"][0]["path"] = path  # type: ignore[index]

    change_header(backed.file, change)
    assert "not a backup" in refuse(mounter, backed.file)
    assert there(mounter.home / "restored") == set()


def test_a_metafile_of_something_else_is_made_anew(mounter: Mounter, backed: Backed) -> None:
    """Its text is somebody's; what matters is the output that was backed up."""

    def change(described: dict[str, object]) -> None:
        del described["outputs"][0]  # type: ignore[attr-defined]
        described["outputs"][0]["metafile"] = (  # type: ignore[index]
            f"outs:\n- md5: {'0' * 32}\n  hash: md5\n  path: ../../etc/passwd\n"
        )

    change_header(backed.file, change)
    # The checksum is wrong, too; what was proved by its oid is here all the same.
    assert "checksum" in refuse(mounter, backed.file)
    text = (mounter.home / "restored/data.dvc").read_text()
    assert backed.oids[1] in text
    assert "passwd" not in text
