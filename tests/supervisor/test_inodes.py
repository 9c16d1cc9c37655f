"""Under an inode it is always the same file, whichever daemon answers: versions, revisions and views go on.

Random steps (open, switch, kill) against what each thing was when it was first opened.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fusefs.control_socket import ask
from fusefs.native.mount_api import forget_unused
from tests.mount.datasets import filler, tree_of
from tests.mount.mounts import Mount, Mounter
from tests.revisions.projects import Project
from tests.supervisor.conftest import kill

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.modes("fuse", "native")]

VERSIONS = {
    "v1": {
        "same": b"same\n",
        "changed": b"one\n",
        "big": filler(200_000, 1),
        "sub/a": b"a1",
        "sub/only1": b"1",
    },
    "v2": {
        "same": b"same\n",
        "changed": b"two 2\n",
        "big": filler(150_000, 2),
        "sub/a": b"a22",
        "new/2": b"2",
    },
    "v3": {"three": b"3", "sub/a": b"a333", "sub/deep/b": filler(9000, 3)},
}
KILLS = 3
STEPS = 14


@pytest.fixture
def mount(mounter: Mounter, project: Project) -> Mount:
    for tag, files in VERSIONS.items():
        project.track("data", files)
        project.commit(tag)
    return mounter.mount("data@v1", cwd=project.root)


@dataclass
class Model:
    """A mount, and what was seen in it."""

    mount: Mount
    order: random.Random
    shown: str = "v1"
    files: dict[int, tuple[str, bytes, int]] = field(default_factory=dict)
    """Open files by descriptor: how they were named, what they have, and their inode."""
    directories: dict[int, tuple[str, set[str], int]] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    """Of every inode of a file that was ever seen."""
    shards: dict[str, bytes] = field(default_factory=dict)

    def root(self, version: str) -> Path:
        """Where a version stands, at this moment."""
        if version == self.shown and self.order.random() < 0.5:
            return self.mount.path
        return self.mount.path / ".fusefs/revs" / version

    def open(self) -> None:
        """Hold a file and its directory open."""
        version = self.order.choice(sorted(VERSIONS))
        path = self.order.choice(sorted(VERSIONS[version]))
        place = self.root(version) / path
        self.hold(place, VERSIONS[version][path])
        descriptor = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
        above = f"{path.rpartition('/')[0]}/".removeprefix("/")
        names = {
            name.removeprefix(above).partition("/")[0] for name in VERSIONS[version] if name.startswith(above)
        }
        self.directories[descriptor] = (str(place.parent), names, os.fstat(descriptor).st_ino)

    def open_shard(self) -> None:
        """A view of what is shown; its bytes follow from the version."""
        place = self.mount.path / ".fusefs/shards/2/000000.tar"
        data = place.read_bytes()
        assert self.shards.setdefault(self.shown, data) == data
        self.hold(place, data)

    def hold(self, place: Path, data: bytes) -> None:
        descriptor = os.open(place, os.O_RDONLY)
        self.files[descriptor] = (str(place), data, os.fstat(descriptor).st_ino)

    def switch(self) -> None:
        version = self.order.choice(sorted(VERSIONS))
        answer = ask(self.mount.status()["control"], {"switch": version})
        assert "error" not in answer, answer
        self.shown = version

    def kill(self) -> None:
        revision = self.mount.status()["rev"]
        assert kill(self.mount)["rev"] == revision

    def check(self) -> None:
        """All that is open, and all that can be looked up anew."""
        for descriptor, (name, data, inode) in self.files.items():
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(descriptor, len(data) + 1, 0) == data, name
            assert (os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size) == (inode, len(data)), name
        for descriptor, (name, names, inode) in self.directories.items():
            os.lseek(descriptor, 0, os.SEEK_SET)
            with os.scandir(descriptor) as entries:
                assert {entry.name for entry in entries} == names, name
            if name != str(self.mount.path):  # the root is said to be the directory that is shown there now
                assert os.fstat(descriptor).st_ino == inode, name
        forget_unused(str(self.mount.path))  # of this mount alone: others rely on what the kernel remembers
        assert tree_of(self.mount.path) == VERSIONS[self.shown]
        for version, files in VERSIONS.items():
            for path, data in files.items():
                inode = (self.root(version) / path).stat().st_ino
                assert self.contents.setdefault(inode, data) == data, f"{version} {path}"

    def close(self) -> None:
        for descriptor in (*self.files, *self.directories):
            os.close(descriptor)


def test_an_inode_is_always_the_same_file(mount: Mount, mode: str) -> None:
    model = Model(mount, random.Random(mode))
    steps = [model.open, model.open, model.open_shard, model.switch]
    planned = [model.order.choice(steps) for _ in range(STEPS)]
    for _ in range(KILLS):
        planned.insert(model.order.randrange(2, STEPS), model.kill)
    try:
        for step in planned:
            step()
            if step == model.kill or model.order.random() < 0.2:
                model.check()
        model.check()
    finally:
        model.close()
    assert "Traceback" not in mount.umount()
