"""Frames that were made go along with a version, and are there where it is restored, without being made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.backup.archives import members_of, there, write_archive
from tests.mount.datasets import write_folder
from tests.mount.mounts import Mounter
from tests.store.media.videos import MAKERS

VIEW = "frames:png,scale=64x36"


@dataclass(frozen=True, slots=True)
class Made:
    """A backup with products, and the cache that it is of."""

    file: Path
    cache: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    mounter = Mounter(tmp_path_factory.mktemp("made"), "fuse")
    cache, file = mounter.home / "cache", mounter.home / "backup"
    write_folder(mounter.home / "data", {"a.mp4": MAKERS["b-frames"][1](), "notes.txt": b"no video"})
    for words in (
        ("commit", "--cache", cache, mounter.home / "data"),
        ("materialize", "--cache", cache, mounter.home / "data.dvc", "--view", VIEW),
        ("backup", "--cache", cache, "--derived", mounter.home / "data.dvc", file),
    ):
        done = mounter.run(*words)
        assert done.returncode == 0, done.stderr
    return Made(file, cache)


def derived(cache: Path) -> dict[str, bytes]:
    """The products of a cache."""
    below = cache / "fusefs/derived"
    return {name: (below / name).read_bytes() for name in there(below)} if below.exists() else {}


def restore(mounter: Mounter, file: Path, *flags: str) -> tuple[int, str, Path]:
    place = mounter.home / "restored"
    place.mkdir(exist_ok=True)
    done = mounter.run("restore", file, place, "--cache", mounter.home / "objects", *flags)
    return done.returncode, done.stderr, mounter.home / "objects"


def test_products_come_back_as_they_were(mounter: Mounter, made: Made) -> None:
    status, said, objects = restore(mounter, made.file)
    assert status == 0, said
    came = derived(objects)
    assert len(came) > 1
    assert came.items() <= derived(made.cache).items()
    listed = mounter.run("media", "--json", "--cache", objects, mounter.home / "restored/data.dvc")
    assert VIEW in listed.stdout, listed
    again = mounter.run(
        "materialize", "--json", "--cache", objects, mounter.home / "restored/data.dvc", "--view", VIEW
    )
    told = json.loads(again.stdout)
    assert (told["made"], told["products"]) == (0, told["kept"])


def test_products_can_be_left_out(mounter: Mounter, made: Made) -> None:
    status, said, objects = restore(mounter, made.file, "--no-derived")
    assert status == 0, said
    assert derived(objects) == {}
    assert (mounter.home / "restored/data.dvc").exists()


def test_a_damaged_product_is_named_and_the_others_come(mounter: Mounter, made: Made) -> None:
    members = members_of(made.file)
    number = next(n for n, (info, _) in enumerate(members) if info.name.startswith("fusefs/derived/"))
    info, data = members[number]
    members[number] = (info, bytes([data[0] ^ 1]) + data[1:])
    file = mounter.home / "damaged"
    write_archive(file, members)
    key = "".join(info.name.split("/")[-2:])
    done = mounter.run("restore", "--verify", file)
    assert done.returncode == 1
    assert f"the product {key} is damaged in the backup" in done.stderr
    status, said, objects = restore(mounter, file)
    assert status == 1
    assert f"the product {key} is damaged in the backup" in said
    expected = {
        info.name.removeprefix("fusefs/derived/")
        for info, _ in members
        if info.name.startswith("fusefs/derived/")
    } - {info.name.removeprefix("fusefs/derived/")}
    assert set(derived(objects)) == expected


def test_an_object_behind_a_product_is_refused(mounter: Mounter, made: Made) -> None:
    members = members_of(made.file)
    first = next(n for n, (info, _) in enumerate(members) if info.name.startswith("fusefs/derived/"))
    members[1], members[first] = members[first], members[1]
    file = mounter.home / "mixed"
    write_archive(file, members)
    status, said, _ = restore(mounter, file)
    assert status == 1
    assert "which no backup does there" in said
