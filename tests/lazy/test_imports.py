"""What was imported comes from the remotes of the repository that it was imported from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.lazy.conftest import FILES, Pushed
from tests.mount.mounts import Mounter
from tests.revisions.projects import Project, new_project


@pytest.fixture
def importer(mounter: Mounter, pushed: Pushed, project: Project) -> Project:
    """A project that has `data` of the other one, whose remote is an ordinary directory, as `imported`."""
    commit = project.commit("v2")
    other = new_project(mounter.home / "importer", mounter.environment)
    other.write(
        "imported.dvc",
        f"deps:\n- path: data\n  repo:\n    url: {pushed.root}\n    rev_lock: {commit}\n"
        f"outs:\n- md5: {pushed.oid}\n  nfiles: {len(FILES)}\n  hash: md5\n  path: imported\n".encode(),
    )
    other.commit("v1")
    return other


@pytest.mark.parametrize("target", ["imported", "imported@v1", ".@v1"])
def test_an_import_is_listed_and_read(
    mounter: Mounter, pushed: Pushed, importer: Project, target: str
) -> None:
    mount = mounter.mount(target, cwd=importer.root)
    try:
        root = mount.path / "imported" if target.startswith(".") else mount.path
        for path, data in FILES.items():
            assert (root / path).read_bytes() == data
    finally:
        mount.umount()
    assert pushed.object(importer.cache.root).exists()
    assert not pushed.object(pushed.cache).exists()


def test_one_that_no_remote_has_is_told_with_its_origin(
    mounter: Mounter, pushed: Pushed, importer: Project
) -> None:
    shutil.rmtree(pushed.remote)
    done = mounter.run("ls", "imported", cwd=importer.root)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert f"imported from {pushed.root}" in done.stderr and "near" in done.stderr


def test_a_cache_that_cannot_be_written_is_done_without(mounter: Mounter, importer: Project) -> None:
    for target in ("imported", ".@v1"):
        done = mounter.run("ls", "--json", "-R", "--cache", "/proc/self/none", target, cwd=importer.root)
        assert done.returncode == 0, done.stderr
        names = {Path(one["path"]).name for one in json.loads(done.stdout)}
        assert names >= {"a.txt", "b.bin"}
