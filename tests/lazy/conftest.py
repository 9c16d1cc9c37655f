"""A repository that the real `dvc` made and pushed, and copies of it whose cache is gone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.conftest import mounter, pytest_runtest_protocol
from tests.mount.datasets import Cache
from tests.mount.mounts import Mounter
from tests.revisions.projects import IDENTITY, Project, new_project, run_tool

__all__ = ["mounter", "pytest_runtest_protocol"]

FILES = {"a.txt": b"first\n", "sub/b.bin": bytes(range(256)) * 40, "sub/empty": b""}
MORE = {f"{number}/x": f"more {number}\n".encode() for number in range(3)}


@dataclass(frozen=True, slots=True)
class Pushed:
    """A work tree without a cache, and the remote that has everything."""

    root: Path
    remote: Path
    """Laid out as DVC pushed it."""
    oid: str
    """Of the directory `data`."""
    files: dict[str, bytes]
    """What is in `data`."""

    @property
    def cache(self) -> Path:
        return self.root / ".dvc/cache"

    def configure(self, text: str, name: str = "config") -> None:
        (self.root / ".dvc" / name).write_text(text)

    def object(self, root: Path, oid: str = "") -> Path:
        """Where an object lies below the root of a cache or remote."""
        oid = oid or self.oid
        return root / "files/md5" / oid[:2] / oid[2:]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pushed:
    """Made once, by the real tools; not to be changed."""
    home = tmp_path_factory.mktemp("made")
    root, remote = home / "project", home / "remote"
    project = new_project(root, Mounter(home, "fuse").environment)
    for path, data in FILES.items():
        project.write(f"data/{path}", data)
    project.write("single.bin", b"a file of its own")
    for path, data in MORE.items():
        project.write(f"more/{path}", data)
    for words in (
        ("add", "--quiet", "data", "single.bin", "more/0", "more/1", "more/2"),
        ("remote", "add", "--quiet", "--default", "near", str(remote)),
        ("push", "--quiet"),
    ):
        run_tool("dvc", *words, cwd=root, environment=project.environment)
    project.commit("v1")
    text = (root / "data.dvc").read_text()
    oid = text.partition("md5: ")[2].split()[0]
    for gone in ("data", "more/0", "more/1", "more/2", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(root / gone, ignore_errors=True)
    (root / "single.bin").unlink()
    return Pushed(root, remote, oid, FILES)


@pytest.fixture
def pushed(made: Pushed, mounter: Mounter) -> Pushed:
    """A copy of one's own; the remote is a copy, too, and the configuration names it."""
    root, remote = mounter.home / "project", mounter.home / "remote"
    shutil.copytree(made.root, root, symlinks=True)
    shutil.copytree(made.remote, remote)
    copy = Pushed(root, remote, made.oid, made.files)
    copy.configure(f"[core]\nremote = near\n['remote \"near\"']\nurl = {remote}\n")
    return copy


@pytest.fixture
def project(pushed: Pushed, mounter: Mounter) -> Project:
    """The same as something that commits can be made in."""
    return Project(pushed.root, Cache(pushed.cache), {**mounter.environment, **IDENTITY})
