"""What is not on this machine is told: of a mount, of a version that is not mounted, of a million files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.lazy.conftest import FILES, Pushed
from tests.mount.datasets import Cache, entries_of, filler, md5
from tests.mount.mounts import Mounter
from tests.patience import until
from tests.revisions.projects import Project

MANY = {f"{number % 7}/{number:03d}": filler(number + 1, number) for number in range(100)}


def missing(mounter: Mounter, *words: str | Path, cwd: Path | None = None) -> dict[str, Any]:
    done = mounter.run("status", "--missing", "--json", "--all", *words, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["complete"] and len(found["paths"]) == found["missing_files"]
    return found


def paths_of(found: dict[str, Any]) -> dict[str, int | None]:
    return {one["path"]: one["bytes"] for one in found["paths"]}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.mark.parametrize("sizes", [True, False])
def test_a_mount_tells_what_it_lacks(mounter: Mounter, cache: Cache, sizes: bool) -> None:
    here, gone = dict(list(MANY.items())[:30]), dict(list(MANY.items())[30:])
    for data in here.values():
        cache.put(data)
    mount = mounter.mount(cache.put_manifest(entries_of(MANY, sizes=sizes)), "--cache", cache.root)
    found = missing(mounter, mount.path)
    assert paths_of(found) == {path: len(data) if sizes else None for path, data in gone.items()}
    assert (found["files"], found["missing_files"]) == (100, 70)
    assert found["missing_bytes"] == (sum(map(len, gone.values())) if sizes else 0)
    assert found["unknown_sizes"] == (0 if sizes else 70)
    assert found["name"] == str(mount.path)
    done = mounter.run("status", "--missing", mount.path / "3")
    assert done.returncode == 0 and "70 of 100 files are missing" in done.stdout
    assert "and 50 more, with --all" in done.stdout and len(done.stdout.splitlines()) == 23
    for data in gone.values():
        cache.put(data)
    assert missing(mounter, mount.path)["paths"] == []
    assert "all 100 files are here" in mounter.run("status", "--missing", mount.path).stdout
    mount.umount()


def test_what_is_pinned_is_here_and_what_is_cut_short_is_not(mounter: Mounter, cache: Cache) -> None:
    for data in MANY.values():
        cache.put(data)
    oid = cache.put_manifest(entries_of(MANY, sizes=True))
    mount = mounter.mount(oid, "--cache", cache.root)
    until(lambda: mount.status()["pins"]["state"] == "complete")
    first, second = list(MANY)[:2]
    cache.remove(md5(MANY[first]))
    assert missing(mounter, mount.path)["paths"] == []
    mount.umount()
    cache.remove(md5(MANY[second]))
    cache.put(b"", md5(MANY[second]))
    mount = mounter.mount(oid, "--cache", cache.root, "--no-pin")
    assert set(paths_of(missing(mounter, mount.path))) == {first, second}
    mount.umount()


def test_sizes_that_a_remote_has_told_are_known(mounter: Mounter, pushed: Pushed) -> None:
    mount = mounter.mount("data", cwd=pushed.root)
    for path, data in FILES.items():
        assert (mount.path / path).stat().st_size == len(data)
    mount.umount()
    found = missing(mounter, "data", cwd=pushed.root)
    assert paths_of(found) == {path: len(data) for path, data in FILES.items()}
    assert found["name"] == "data"


def test_a_version_need_not_be_mounted(mounter: Mounter, pushed: Pushed, project: Project) -> None:
    mount = mounter.mount("data@v1", cwd=pushed.root)
    assert (mount.path / "a.txt").read_bytes() == FILES["a.txt"]
    mount.umount()
    found = missing(mounter, "data@v1", cwd=pushed.root)
    assert set(paths_of(found)) == set(FILES) - {"a.txt"}
    assert found["rev"] == project.git("rev-parse", "v1").strip()


def test_after_a_switch_it_is_about_what_is_shown(mounter: Mounter, pushed: Pushed, project: Project) -> None:
    project.track("data", {"other": b"other"})
    project.commit("v2")
    mount = mounter.mount("data@v1", cwd=pushed.root)
    assert set(paths_of(missing(mounter, mount.path))) == set(FILES)
    assert mounter.run("switch", mount.path, "v2").returncode == 0
    assert missing(mounter, mount.path)["paths"] == []
    mount.umount()


def test_what_cannot_be_told_is_one_line(mounter: Mounter, pushed: Pushed, project: Project) -> None:
    for words in (("none",), (), ("--watch", "data")):
        done = mounter.run("status", "--missing", *words, cwd=pushed.root)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    mount = mounter.mount("data", "--revs", "v*", cwd=pushed.root)
    done = mounter.run("status", "--missing", mount.path)
    assert done.returncode == 1 and "side by side" in done.stderr
    mount.umount()
