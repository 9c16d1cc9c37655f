"""Backups and restores that are killed at any point: what was readable is, and a second one completes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.backup.archives import there
from tests.backup.cvat_zips import task_files, write_zip
from tests.backup.killing import Killer, new_killer
from tests.mount.datasets import Cache, filler, md5
from tests.mount.mounts import Mounter

pytestmark = pytest.mark.timeout(600)  # hundreds of commands, one after another

FILES = {
    "large": filler((4 << 20) + 1, 2),
    "same": b"content of 1",
    **{f"{number}": b"content of %d" % number for number in range(5)},
}
OURS, OTHER = b"content of 3", b"of another version"
"""Objects that the cache has before: one that the backup has, too, and one that it has not."""


@dataclass(frozen=True, slots=True)
class Case:
    """Where commands are killed."""

    home: Path
    killer: Killer
    cache: Cache

    def begin(self) -> None:
        """The cache and the directory as they were before."""
        for place in ("there", "objects"):
            shutil.rmtree(self.home / place, ignore_errors=True)
        for data in (OURS, OTHER):
            self.cache.put(data)

    def check(self, *, may_lack: bool = False) -> None:
        """Every object is what its name says, and what a manifest names is there, unless it `may_lack`."""
        assert self.cache.place(md5(OTHER)).read_bytes() == OTHER
        assert self.cache.place(md5(OURS)).read_bytes() == OURS
        for name in there(self.cache.objects):
            place = self.cache.objects / name
            data = place.read_bytes()
            assert md5(data) == name.replace("/", "").removesuffix(".dir")
            assert place.stat().st_mode & 0o777 == 0o444
            for entry in json.loads(data) if name.endswith(".dir") and not may_lack else ():
                assert self.cache.place(entry["md5"]).exists()

    def settled(self) -> set[str]:
        """What the cache and the directory hold in the end; nothing of a killed run."""
        self.check()
        assert not there(self.cache.root / "fusefs/tmp")
        files = {name for name in there(self.home / "there") if not name.startswith(".")}
        return there(self.cache.objects) | files


@pytest.fixture
def case(mounter: Mounter) -> Iterator[Case]:
    with new_killer(mounter.environment, mounter.home) as killer:
        yield Case(mounter.home, killer, Cache(mounter.home / "objects"))


def back_up(case: Case) -> tuple[Path, tuple[object, ...]]:
    """The backup of a version, and the command that makes it, less the file's name."""
    folder, file, source = case.home / "many", case.home / "backup", case.home / "source"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    assert case.killer.run("commit", folder, "--cache", source) == 0
    command = ("backup", "--cache", source, case.home / "many.dvc")
    assert case.killer.run(*command, file) == 0
    return file, command


def check_killed(case: Case, file: Path) -> None:
    restore = ("restore", file, case.home / "there", "--cache", case.cache.root)
    case.begin()
    assert case.killer.run(*restore) == 0
    whole, metafiles = case.settled(), {path.name: path.read_bytes() for path in case.home.glob("there/*")}
    assert len(metafiles) == 1
    case.begin()
    for _ in case.killer.each(*restore):
        case.check()
        for path in case.home.glob("there/*.dvc"):
            assert path.read_bytes() == metafiles[path.name]
        assert case.killer.run(*restore) == 0
        assert case.settled() == whole
        case.begin()


def test_a_restore(case: Case) -> None:
    file, _ = back_up(case)
    check_killed(case, file)


def test_a_restore_of_what_cvat_wrote(case: Case) -> None:
    check_killed(case, write_zip(case.home / "task.zip", task_files(4)))


def test_a_backup(case: Case) -> None:
    """It is there whole, or not at all; and nothing else is."""
    file, command = back_up(case)
    data, before = file.read_bytes(), there(case.home / "source")
    again = case.home / "to" / "again"
    again.parent.mkdir()
    for _ in case.killer.each(*command, again):
        assert there(again.parent) <= {again.name}
        if again.exists():
            assert again.read_bytes() == data
            again.unlink()
    assert again.read_bytes() == data
    assert there(case.home / "source") == before


def test_a_backup_for_cvat(case: Case) -> None:
    """Likewise."""
    task = write_zip(case.home / "task.zip", task_files(4))
    assert case.killer.run("restore", task, case.home / "there", "--cache", case.cache.root) == 0
    (metafile,) = case.home.glob("there/*.dvc")
    command = ("backup", "--format", "cvat", "--cache", case.cache.root, metafile)
    file, again = case.home / "backup.zip", case.home / "to" / "again.zip"
    assert case.killer.run(*command, file) == 0
    again.parent.mkdir()
    for _ in case.killer.each(*command, again):
        assert there(again.parent) <= {again.name}
        if again.exists():
            assert again.read_bytes() == file.read_bytes()
            again.unlink()
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("layout", ["dvc", "content"])
def test_a_backup_of_what_lies_on_a_remote(case: Case, layout: str) -> None:
    """What has come into the cache is whole, and the next run fetches the rest."""
    file, _ = back_up(case)
    remote = case.home / "remote"
    push = ("push", case.home / "many.dvc", "--cache", case.home / "source", "--remote", remote)
    assert case.killer.run(*push, "--layout", layout) == 0
    assert (remote / "contents").exists() == (layout == "content")
    shutil.rmtree(case.home / "source")
    put = there(remote)
    again = case.home / "to" / "again"
    again.parent.mkdir()
    command = ("backup", "--cache", case.cache.root, "--remote", remote, case.home / "many.dvc", again)
    case.begin()
    for _ in case.killer.each(*command, step=11):
        case.check(may_lack=True)  # a manifest comes when the version is opened
        assert there(again.parent) <= {again.name}
        if again.exists():
            assert again.read_bytes() == file.read_bytes()
            again.unlink()
        assert case.killer.run(*command) == 0
        assert again.read_bytes() == file.read_bytes()
        again.unlink()
        case.begin()
    assert again.read_bytes() == file.read_bytes()
    assert there(remote) == put
