"""Mounts that others get copies of: containers with `rslave`, units with `MountFlags=slave`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.datasets import tree_of
from tests.mount.mounts import Mounter, unmount
from tests.patience import until
from tests.process.conftest import list_daemons
from tests.revisions.projects import Project, new_project

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.modes("fuse", "native")]

SECONDS = 60.0
ROUNDS = 10


@pytest.fixture
def versions(mounter: Mounter) -> Project:
    project = new_project(mounter.home / "project", mounter.environment)
    for tag in ("v1", "v2"):
        project.track("data", {"a": tag.encode()})
        project.commit(tag)
    return project


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Path]:
    """A directory whose mounts others get."""
    place = tmp_path / "shared"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "shared", place], check=True, timeout=SECONDS)
    subprocess.run(["mount", "--make-shared", place], check=True, timeout=SECONDS)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True, timeout=SECONDS)


READER = """
import os, sys, time
path, seen = sys.argv[1], []
print("started", flush=True)
while True:
    try:
        with open(path) as file:
            found = file.read()
    except FileNotFoundError:
        found = ""
    if seen[-1:] != [found]:
        seen.append(found)
        print(found, flush=True)
    if not found:
        break
    time.sleep(0.0005)  # or whoever unmounts would always find it busy
lines = open("/proc/self/mountinfo").read().splitlines()
print(sum(f" {os.path.dirname(path)} " in line for line in lines))
"""
"""Says each time when a file has other content than before; when it is gone, how many mounts are left."""


def test_who_has_a_copy_sees_every_version_and_nothing_between(
    mounter: Mounter, versions: Project, parent: Path, run: Callable[..., None]
) -> None:
    place = parent / "mnt"
    place.mkdir()
    run("mount", "--mode", mounter.mode, "data@v1", place, cwd=versions.root)
    slave = ["unshare", "--mount", "--propagation=slave", sys.executable, "-c", READER, place / "a"]
    with subprocess.Popen(slave, stdout=subprocess.PIPE, text=True) as reader:
        try:
            assert reader.stdout is not None
            assert [reader.stdout.readline() for _ in range(2)] == ["started\n", "v1\n"]
            for number in range(ROUNDS):
                tag = ("v2", "v1")[number % 2]
                run("switch", place, tag)
                assert tree_of(place) == {"a": tag.encode()}
                assert reader.stdout.readline() == f"{tag}\n"
            unmount(place)
            assert reader.stdout.read() == "\n0\n"
        finally:
            reader.kill()
    until(lambda: list_daemons(place) == [])


@pytest.fixture
def run(mounter: Mounter) -> Callable[..., None]:
    """Runs the command, which must succeed."""

    def run(*words: str | Path, cwd: Path | None = None) -> None:
        done = mounter.run(*words, cwd=cwd)
        assert done.returncode == 0, done.stderr

    return run
