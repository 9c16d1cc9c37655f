"""A dataset is opened on a machine that has nothing of it: the manifest comes from a remote, once."""

from __future__ import annotations

import json
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lazy.conftest import FILES, MORE, Pushed
from tests.mount.datasets import Cache, md5
from tests.mount.mounts import ROOT, Mounter
from tests.servers.nginx import nginx

LISTED = sorted(FILES)


def listed(mounter: Mounter, *words: str | Path, cwd: Path | None = None) -> list[str]:
    """The paths of a version's files."""
    done = mounter.run("ls", "--json", "-R", *words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return sorted(one["path"] for one in json.loads(done.stdout) if one["type"] == "file")


def refused(mounter: Mounter, *words: str | Path, cwd: Path) -> str:
    """The one line with which a listing is refused."""
    done = mounter.run("ls", *words, cwd=cwd)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    return done.stderr


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Where nobody listens, for as long as the test takes."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize("target", ["data", "data.dvc", "data@v1", "data@HEAD"])
def test_from_a_directory_into_the_cache(mounter: Mounter, pushed: Pushed, target: str) -> None:
    assert listed(mounter, target, cwd=pushed.root) == LISTED
    kept = pushed.object(pushed.cache)
    assert kept.read_bytes() == pushed.object(pushed.remote).read_bytes()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o444
    assert [path for path in pushed.cache.rglob("*") if path.is_file()] == [kept]


def test_a_file_needs_none(mounter: Mounter, pushed: Pushed) -> None:
    assert listed(mounter, "single.bin", cwd=pushed.root) == ["single.bin"]
    assert not list(pushed.cache.rglob("files/*"))


def test_from_a_server(mounter: Mounter, pushed: Pushed) -> None:
    with nginx(mounter.home / "nginx", pushed.remote) as server:
        pushed.configure(f"['remote \"web\"']\nurl = {server.url}\n")
        assert listed(mounter, "data", cwd=pushed.root) == LISTED
    assert pushed.object(pushed.cache).exists()
    # What is kept needs no server.
    assert listed(mounter, "data@v1", cwd=pushed.root) == LISTED


def test_every_output_of_a_project_has_its_manifest_brought(mounter: Mounter, pushed: Pushed) -> None:
    found = listed(mounter, ".@v1", cwd=pushed.root)
    expected = {f"data/{path}" for path in FILES} | {f"more/{path}" for path in MORE} | {"single.bin"}
    assert expected <= set(found)


def test_one_that_cannot_be_had_is_left_out(mounter: Mounter, pushed: Pushed) -> None:
    pushed.object(pushed.remote).unlink()
    done = mounter.run("ls", "-R", "--remote", pushed.remote, ".@v1", cwd=pushed.root)
    assert done.returncode == 0 and "more/0:" in done.stdout
    assert "data:" not in done.stdout.splitlines()
    [line] = done.stderr.splitlines()
    assert "'data' is left out" in line and str(pushed.remote) in line and "dvc push" in line


def test_without_the_network(mounter: Mounter, pushed: Pushed) -> None:
    with nginx(mounter.home / "nginx", pushed.remote) as server:
        pushed.configure(f"['remote \"web\"']\nurl = {server.url}\n")
        line = refused(mounter, "--offline", "data", cwd=pushed.root)
        assert pushed.oid in line and "--offline forbids to ask web" in line
        line = refused(mounter, "--offline", "--remote", server.url, "data", cwd=pushed.root)
        assert f"forbids to ask {server.url}" in line
    # A directory is no network.
    assert listed(mounter, "--offline", "--remote", pushed.remote, "data", cwd=pushed.root) == LISTED
    assert listed(mounter, "--offline", "data", cwd=pushed.root) == LISTED


@pytest.mark.parametrize("legacy", [False, True])
def test_an_oid_needs_no_repository(mounter: Mounter, legacy: bool) -> None:
    remote, cache = Cache(mounter.home / "r", legacy=legacy), mounter.home / "c"
    oid = remote.put_dataset(FILES)
    assert listed(mounter, "--cache", cache, "--remote", remote.root, oid) == LISTED
    assert Cache(cache, legacy=legacy).place(oid).exists()
    single = md5(FILES["a.txt"])
    assert listed(mounter, "--cache", cache, "--remote", remote.root, single) == [single]
    line = refused(mounter, "--cache", cache, "--remote", remote.root, "0" * 32 + ".dir", cwd=mounter.home)
    assert "0000.dir" in line and "dvc push" in line


def test_a_cache_that_cannot_be_written_is_done_without(mounter: Mounter, pushed: Pushed) -> None:
    cache = "/proc/self/none"
    for target in ("data", "data@v1", ".@v1"):
        shutil.rmtree(mounter.home / "cache", ignore_errors=True)
        found = listed(mounter, "--cache", cache, target, cwd=pushed.root)
        assert {path.removeprefix("data/") for path in found} >= set(LISTED)


def test_what_is_not_the_manifest_is_not_taken(mounter: Mounter, pushed: Pushed) -> None:
    good = pushed.root.parent / "good"
    shutil.copytree(pushed.remote, good)
    wrong = pushed.object(pushed.remote)
    wrong.chmod(0o644)
    wrong.write_bytes(b'[{"md5": "d41d8cd98f00b204e9800998ecf8427e", "relpath": "evil"}]')
    line = refused(mounter, "data", cwd=pushed.root)
    assert "near" in line and "something else" in line
    assert not pushed.object(pushed.cache).exists()
    remotes = ("--remote", "near", "--remote", good)
    assert listed(mounter, *remotes, "data", cwd=pushed.root) == LISTED


def test_one_that_does_not_answer_is_passed_over(mounter: Mounter, pushed: Pushed, closed_port: int) -> None:
    dead = f"http://127.0.0.1:{closed_port}"
    line = refused(mounter, "--remote", dead, "data", cwd=pushed.root)
    assert dead in line
    found = listed(mounter, "--remote", dead, "--remote", "near", ".@v1", cwd=pushed.root)
    assert {f"data/{path}" for path in FILES} <= set(found)


def test_a_mount_and_its_switch_bring_what_they_show(mounter: Mounter, pushed: Pushed) -> None:
    mount = mounter.mount("more/0@v1", cwd=pushed.root)
    try:
        assert sorted(path.name for path in mount.path.iterdir()) == ["x"]
        # A child of the daemon's brings it, from the same remote.
        assert sorted(path.name for path in (mount.path / ".fusefs/revs/HEAD").iterdir()) == ["x"]
    finally:
        log = mount.umount()
    assert "ERROR" not in log


def test_the_remotes_are_settled_anew(mounter: Mounter, pushed: Pushed) -> None:
    request = {
        "target": "data",
        "cache": "",
        "rev": "",
        "repo": "",
        "remotes": [],
        "trust": False,
        "offline": False,
        "directory": str(pushed.root),
    }

    def ask() -> list[dict[str, object]]:
        done = subprocess.run(
            [sys.executable, "-m", "fusefs.resolve"],
            input=json.dumps({"request": request}) + "\n",
            env={**mounter.environment, "PYTHONPATH": str(ROOT)},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found: list[dict[str, object]] = json.loads(done.stdout)["remotes"]
        return found

    [spec] = ask()
    assert (spec["name"], spec["url"], spec["ambient"]) == ("near", str(pushed.remote), True)
    pushed.configure("['remote \"near\"']\nuser = me\npassword = new\n", "config.local")
    [spec] = ask()
    assert spec["options"] == {"user": "me", "password": "new"}
