"""`fusefs push` puts a version where the real `dvc pull` finds it."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.lazy.conftest import FILES, MORE, Pushed
from tests.mount.mounts import COMMAND, Mounter
from tests.revisions.projects import Project, run_tool
from tests.servers.nginx import nginx
from tests.servers.proxy import Proxy

SECONDS = 60.0


@pytest.fixture
def filled(pushed: Pushed, project: Project, mounter: Mounter) -> Pushed:
    """A project whose cache has everything, and whose remote has nothing."""
    pushed.cache.mkdir(parents=True, exist_ok=True)
    shutil.move(pushed.remote / "files", pushed.cache / "files")
    pushed.remote.rmdir()
    return pushed


def push(mounter: Mounter, root: Path, *words: str | Path, status: int = 0) -> dict[str, Any]:
    done = mounter.run("push", "--json", *words, cwd=root)
    assert done.returncode == status, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def pull(pushed: Pushed, project: Project, *targets: str) -> None:
    """As on another machine: what is here is forgotten, and `dvc pull` brings it."""
    shutil.rmtree(pushed.cache)
    shutil.rmtree(pushed.root / ".dvc/tmp", ignore_errors=True)
    run_tool("dvc", "pull", "--quiet", *targets, cwd=pushed.root, environment=project.environment)


def test_dvc_pulls_what_was_pushed(filled: Pushed, project: Project, mounter: Mounter) -> None:
    told = push(mounter, filled.root, "data")
    assert (told["pushed"], told["there"], told["failed"]) == (len(FILES) + 1, 0, 0)
    assert told["remotes"] == ["near"] and told["oid"] == filled.oid
    assert push(mounter, filled.root, "single.bin")["pushed"] == 1
    again = push(mounter, filled.root, "data.dvc")
    assert (again["pushed"], again["there"]) == (0, len(FILES) + 1)
    pull(filled, project, "data.dvc", "single.bin.dvc")
    assert {path: (filled.root / "data" / path).read_bytes() for path in FILES} == FILES
    assert (filled.root / "single.bin").read_bytes() == b"a file of its own"
    object_ = filled.object(filled.remote)
    assert object_.stat().st_mode & 0o777 == 0o444


def test_dvc_pulls_by_http_what_was_pushed_there(
    filled: Pushed, project: Project, mounter: Mounter, tmp_path: Path
) -> None:
    (tmp_path / "served").mkdir()
    with nginx(tmp_path / "nginx", tmp_path / "served", webdav=True) as server:
        filled.configure(f"['remote \"web\"']\nurl = {server.url}/base\nmethod = PUT\n[core]\nremote = web\n")
        assert push(mounter, filled.root, "data", "--jobs", "2")["pushed"] == len(FILES) + 1
        pull(filled, project, "data.dvc")
    assert {path: (filled.root / "data" / path).read_bytes() for path in FILES} == FILES


def test_a_whole_project_and_old_versions_are_pushed(
    filled: Pushed, project: Project, mounter: Mounter, tmp_path: Path
) -> None:
    told = push(mounter, filled.root, ".@HEAD", "--remote", str(tmp_path / "other"))
    assert told["pushed"] == len(FILES) + 1 + 1 + 2 * len(MORE)
    assert filled.object(tmp_path / "other").exists()
    told = push(mounter, filled.root, "data", "--rev", "HEAD")
    assert told["pushed"] == len(FILES) + 1 and told["rev"]


def test_a_cache_that_is_damaged_is_not_pushed(filled: Pushed, project: Project, mounter: Mounter) -> None:
    digest = hashlib.md5(FILES["sub/b.bin"], usedforsecurity=False).hexdigest()
    victim = filled.object(filled.cache, digest)
    victim.chmod(0o644)
    victim.write_bytes(b"\0" * len(FILES["sub/b.bin"]))
    done = mounter.run("push", "data", cwd=filled.root)
    assert done.returncode == 1
    assert "corrupt: 1 object" in done.stderr and "missing: 1 object" in done.stderr
    assert digest in done.stderr and "Traceback" not in done.stderr
    assert not filled.object(filled.remote, digest).exists()
    assert not filled.object(filled.remote).exists()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("nowhere",), "nowhere"),
        (("data", "--remote", "unknown"), "there is no remote"),
        (("data", "--remote", "gdrive://x"), "not supported"),
        (("README",), "README"),
    ],
)
def test_what_cannot_be_pushed_is_said_in_a_line(
    filled: Pushed, mounter: Mounter, words: tuple[str, ...], match: str
) -> None:
    done = mounter.run("push", *words, cwd=filled.root)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and match in done.stderr


def test_a_default_remote_or_a_name_is_needed(filled: Pushed, mounter: Mounter) -> None:
    filled.configure(f"['remote \"near\"']\nurl = {filled.remote}\n")
    done = mounter.run("push", "data", cwd=filled.root)
    assert done.returncode == 1 and "--remote" in done.stderr
    assert push(mounter, filled.root, "data", "--remote", "near")["pushed"] == len(FILES) + 1
    text = (filled.root / "single.bin.dvc").read_text()
    (filled.root / "single.bin.dvc").write_text(text.replace("path:", "remote: near\n  path:"))
    assert push(mounter, filled.root, "single.bin")["remotes"] == ["near"]
    (filled.root / "single.bin.dvc").write_text(text.replace("path:", "push: false\n  path:"))
    done = mounter.run("push", "single.bin", cwd=filled.root)
    assert done.returncode == 1 and "push: false" in done.stderr


def test_a_push_that_was_interrupted_goes_on(
    filled: Pushed, project: Project, mounter: Mounter, tmp_path: Path
) -> None:
    (tmp_path / "served").mkdir()
    with (
        nginx(tmp_path / "nginx", tmp_path / "served", webdav=True) as server,
        Proxy(("127.0.0.1", server.port)) as proxy,
    ):
        filled.configure(f"['remote \"web\"']\nurl = {proxy.url}/base\nmethod = PUT\n[core]\nremote = web\n")
        proxy.fail(stall_after=600)
        process = subprocess.Popen(
            [*COMMAND, "push", "--json", "data", "--jobs", "1"],
            cwd=filled.root,
            env=mounter.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        proxy.wait(lambda counts: counts.stalled > 0)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 128 + signal.SIGINT, err
        told = json.loads(out)
        assert told["interrupted"] and told["pushed"] < len(FILES) + 1
        proxy.fail()
        told = push(mounter, filled.root, "data")
        assert told["there"] + told["pushed"] == len(FILES) + 1
        assert filled.object(tmp_path / "served/base").exists()


def test_a_remote_that_denies_is_said_without_secrets(
    filled: Pushed, mounter: Mounter, tmp_path: Path
) -> None:
    (tmp_path / "served").mkdir()
    with nginx(tmp_path / "nginx", tmp_path / "served", webdav=True, login=("user", "right")) as server:
        filled.configure(
            f"['remote \"web\"']\nurl = {server.url}/base\nmethod = PUT\nauth = basic\nuser = user\n"
            "password = canary-secret\n[core]\nremote = web\n"
        )
        done = mounter.run("push", "data", cwd=filled.root)
        assert done.returncode == 1
        assert "remote web does not let us" in done.stderr
        assert "canary" not in done.stderr + done.stdout and "Traceback" not in done.stderr
