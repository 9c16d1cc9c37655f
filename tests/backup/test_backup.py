"""Backups of real projects: what is written is what is read back, on a machine that has nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.backup.archives import FIRST, SECOND, Backed, back_up, members_of, new_versions, there
from tests.mount.datasets import md5, write_folder
from tests.mount.mounts import COMMAND, Mounter
from tests.revisions.projects import run_tool

pytestmark = pytest.mark.fuse


@pytest.fixture
def backed(mounter: Mounter) -> Backed:
    return back_up(mounter, "data@v1", "data@v2", "single@v2")


def restore(mounter: Mounter, file: Path, *flags: str) -> Path:
    """Where the backup was restored to, with a cache of its own."""
    place = mounter.home / "restored"
    place.mkdir(exist_ok=True)
    done = mounter.run("restore", file, place, "--cache", mounter.home / "objects", *flags)
    assert done.returncode == 0, done.stderr
    return place


def compare(mounter: Mounter, metafile: Path, files: dict[str, bytes]) -> None:
    mount = mounter.mount(metafile, "--cache", mounter.home / "objects")
    assert there(mount.path) == set(files)
    for path, data in files.items():
        assert (mount.path / path).read_bytes() == data
    mount.umount()


def test_versions_come_back_where_nothing_is(mounter: Mounter, backed: Backed) -> None:
    shutil.rmtree(backed.project.root)
    place = restore(mounter, backed.file)
    found = sorted(there(place))
    assert [name.partition("/")[2] for name in found] == ["data.dvc", "data.dvc", "single.dvc"]
    contents = set(backed.oids)
    for name in found:
        text = (place / name).read_text()
        for oid, files in zip(backed.oids, (FIRST, SECOND), strict=True):
            if oid in text:
                compare(mounter, place / name, files)
                contents.remove(oid)
    assert not contents


def test_a_project_comes_back_as_dvc_wants_it(mounter: Mounter) -> None:
    project, _ = new_versions(mounter)
    file = mounter.home / "backup"
    done = mounter.run("backup", ".", file, cwd=project.root)
    assert done.returncode == 0, done.stderr
    other = mounter.home / "other"
    run_tool(
        "git", "clone", "--quiet", project.root, other, cwd=mounter.home, environment=project.environment
    )
    done = mounter.run("restore", file, other)
    assert done.returncode == 0, done.stderr
    assert run_tool("git", "status", "--short", cwd=other, environment=project.environment) == ""
    run_tool("dvc", "checkout", "--quiet", cwd=other, environment=project.environment)
    assert {path: (other / "data" / path).read_bytes() for path in SECOND} == SECOND
    assert os.access(other / "single", os.X_OK)
    status = run_tool("dvc", "status", cwd=other, environment=project.environment)
    assert "up to date" in status


def test_tar_lists_it_and_makes_a_cache_of_it(mounter: Mounter, backed: Backed) -> None:
    listed = subprocess.run(
        ["tar", "-tf", backed.file], capture_output=True, text=True, check=True
    ).stdout.split()
    assert (listed[0], listed[-1]) == ("fusefs-backup.json", "fusefs-backup.end")
    cache = mounter.home / "unpacked"
    cache.mkdir()
    subprocess.run(["tar", "-xf", backed.file, "-C", cache, "files"], check=True)
    mount = mounter.mount(backed.oids[1], "--cache", cache)
    assert (mount.path / "a.txt").read_bytes() == SECOND["a.txt"]
    mount.umount()


def test_equal_versions_have_equal_backups(mounter: Mounter, backed: Backed) -> None:
    again = mounter.home / "again"
    done = mounter.run("backup", "data@v1", "data@v2", "single@v2", again, cwd=backed.project.root)
    assert done.returncode == 0, done.stderr
    assert again.read_bytes() == backed.file.read_bytes()
    assert again.stat().st_mode & 0o777 == 0o600


def test_it_goes_through_pipes(mounter: Mounter, backed: Backed) -> None:
    place = mounter.home / "piped"
    place.mkdir()
    write = subprocess.Popen(
        [*COMMAND, "backup", "data@v2", "-"],
        cwd=backed.project.root,
        env=mounter.environment,
        stdout=subprocess.PIPE,
    )
    read = subprocess.run(
        [*COMMAND, "restore", "-", place, "--cache", mounter.home / "objects"],
        env=mounter.environment,
        stdin=write.stdout,
        check=False,
    )
    assert write.stdout is not None
    write.stdout.close()
    assert (read.returncode, write.wait(60)) == (0, 0)
    compare(mounter, place / "data.dvc", SECOND)


def test_what_is_new_since_a_version(mounter: Mounter) -> None:
    base = back_up(mounter, "data@v1")
    more = mounter.home / "more"
    done = mounter.run("backup", "data@v2", "--since", "v1", more, cwd=base.project.root)
    assert done.returncode == 0, done.stderr
    new = {md5(SECOND["a.txt"]), md5(SECOND["new\u00e9"]), base.oids[1]}
    assert {"".join(info.name.split("/")[-2:]) for info, _ in members_of(more)[1:-1]} == new
    place = mounter.home / "restored"
    place.mkdir()
    done = mounter.run("restore", more, place, "--cache", mounter.home / "objects")
    assert done.returncode == 1
    assert f"restore the backup of {base.oids[0]} first" in done.stderr
    assert there(place) == set()
    (mounter.home / "first").mkdir()
    done = mounter.run("restore", base.file, mounter.home / "first", "--cache", mounter.home / "objects")
    assert done.returncode == 0, done.stderr
    place = restore(mounter, more)
    compare(mounter, place / "data.dvc", SECOND)


@pytest.mark.parametrize("layout", ["dvc", "content"])
def test_what_is_missing_is_fetched_first(mounter: Mounter, layout: str) -> None:
    """Manifests, too, which a version that was opened before does without. No folder is there any more."""
    project, oids = new_versions(mounter)
    assert not (project.root / "data").exists()
    remote = mounter.home / "remote"
    for name in ("data@v1", "data@v2"):
        push = ("push", name, "--remote", str(remote), "--layout", layout)
        assert mounter.run(*push, cwd=project.root).returncode == 0
    shutil.rmtree(project.root / ".dvc/cache")
    file = mounter.home / "backup"
    done = mounter.run("backup", "data@v2", file, cwd=project.root)
    assert done.returncode == 1
    assert not file.exists()
    since = ("backup", "data@v2", "--since", "v1", mounter.home / "since", "--remote", str(remote))
    assert mounter.run(*since, cwd=project.root).returncode == 0
    assert project.cache.place(oids[0]).exists() and not project.cache.place(md5(FIRST["a.txt"])).exists()
    shutil.rmtree(project.root / ".dvc/cache")
    done = mounter.run("backup", "data@v2", file, "--remote", str(remote), cwd=project.root)
    assert done.returncode == 0, done.stderr
    compare(mounter, restore(mounter, file) / "data.dvc", SECOND)


def test_a_damaged_object_is_found_out_before_it_is_needed(mounter: Mounter) -> None:
    project, _ = new_versions(mounter)
    for path in ("a.txt", "deep/large"):
        place = project.cache.place(md5(SECOND[path]))
        sound = place.read_bytes()
        place.chmod(0o644)
        place.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
        done = mounter.run("backup", "data@v2", mounter.home / "backup", cwd=project.root)
        assert done.returncode == 1
        assert f"object {md5(SECOND[path])} in the cache is damaged" in done.stderr
        assert done.stderr.count("\n") == 1
        assert there(mounter.home) & {"backup"} == set()
        assert not [name for name in os.listdir(mounter.home) if name.endswith(".tmp")]  # noqa: PTH208
        place.write_bytes(sound)


def test_a_file_that_is_there_is_kept(mounter: Mounter, backed: Backed) -> None:
    before = backed.file.read_bytes()
    done = mounter.run("backup", "data@v1", backed.file, cwd=backed.project.root)
    assert done.returncode == 1
    assert "is there already" in done.stderr
    assert backed.file.read_bytes() == before


def test_a_metafile_that_says_something_else_is_kept(mounter: Mounter) -> None:
    backed = back_up(mounter, "data@v2")
    place = mounter.home / "restored"
    place.mkdir()
    other = place / "data.dvc"
    text = f"outs:\n- md5: {'0' * 32}\n  hash: md5\n  path: data\n"
    other.write_text(text)
    done = mounter.run("restore", backed.file, place, "--cache", mounter.home / "objects")
    assert done.returncode == 1
    assert "records something else" in done.stderr
    assert other.read_text() == text
    other.unlink()
    compare(mounter, restore(mounter, backed.file) / "data.dvc", SECOND)


def test_it_is_proved_without_being_restored(mounter: Mounter, backed: Backed) -> None:
    before = there(mounter.home)
    verify = ("restore", "--verify", backed.file, "--cache", mounter.home / "objects")
    done = mounter.run(*verify)
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0)
    members = members_of(backed.file)
    info, data = members[2]
    at = backed.file.read_bytes().index(data, 512)
    with backed.file.open("r+b") as file:
        file.seek(at)
        file.write(bytes([data[0] ^ 1]))
    done = mounter.run(*verify)
    assert done.returncode == 1 and "".join(info.name.split("/")[-2:]) in done.stderr
    assert there(mounter.home) == before


def test_it_lists_its_versions(mounter: Mounter, backed: Backed) -> None:
    done = mounter.run("restore", "--list", backed.file)
    lines = done.stdout.splitlines()
    assert [line.split()[:3] for line in lines[:2]] == [
        [backed.oids[0], "data", "v1"],
        [backed.oids[1], "data", "v2"],
    ]
    assert len(lines) == 3


def test_an_interrupted_restore_is_run_again(mounter: Mounter) -> None:
    """Killed in the middle, because its input stops there."""
    files = {f"{number}": b"content of %d" % number for number in range(3000)}
    write_folder(mounter.home / "many", files)
    mounter.run("commit", mounter.home / "many")
    file = mounter.home / "backup"
    done = mounter.run("backup", mounter.home / "many.dvc", file)
    assert done.returncode == 0, done.stderr
    data, objects = file.read_bytes(), mounter.home / "objects"
    reading = subprocess.Popen(
        [*COMMAND, "restore", "-", mounter.home, "--cache", objects],
        env=mounter.environment,
        stdin=subprocess.PIPE,
    )
    assert reading.stdin is not None
    reading.stdin.write(data[: len(data) // 2])
    reading.stdin.flush()
    reading.send_signal(signal.SIGKILL)
    assert reading.wait(60) == -signal.SIGKILL
    reading.stdin.close()
    for place in (objects / "files").rglob("*"):
        if place.is_file():
            assert md5(place.read_bytes()) == place.parent.name + place.name
    place = restore(mounter, file)
    compare(mounter, place / "many.dvc", files)
