"""Somebody else's configuration gets nothing of the user's: no command, file, credential or directory."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lazy.conftest import Pushed
from tests.lazy.faulty import read
from tests.mount.datasets import Cache
from tests.mount.mounts import Mounter
from tests.revisions.projects import Project
from tests.servers.raw_answers import RawServer, raw_server, say
from tests.store.git.conftest import Server, daemon

__all__ = ["daemon"]

STRANGER = 54321
CANARY = "c4nary-hunter-2"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to somebody else")


@pytest.fixture
def server() -> Iterator[RawServer]:
    """Has nothing, and remembers what it was asked."""
    with raw_server(say("404 Not Found")) as running:
        yield running


@pytest.fixture
def surroundings(mounter: Mounter, server: RawServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Credentials wherever programs look for them; returns the user's configuration file."""
    netrc = mounter.home / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login me password {CANARY}\n")
    netrc.chmod(0o600)
    (mounter.home / ".aws").mkdir()
    keys = f"aws_access_key_id = AK{CANARY}\naws_secret_access_key = {CANARY}\n"
    (mounter.home / ".aws/credentials").write_text(f"[default]\n{keys}[prod]\n{keys}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"AK{CANARY}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    config = mounter.home / "config/dvc/config"
    config.parent.mkdir(parents=True)
    config.write_text(
        f"['remote \"mine\"']\nurl = https://mine.invalid/x\nuser = me\npassword = {CANARY}\nauth = basic\n"
    )
    return config


def give_away(root: Path) -> None:
    """Make everything in a repository somebody else's, but let git read it."""
    for path in (root, *root.rglob("*")):
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def hostile(server: RawServer, touched: Path) -> str:
    """Everything that a repository could try."""
    return (
        "[core]\nremote = plain\n"
        f"['remote \"plain\"']\nurl = {server.url}/plain\n"
        f"['remote \"mine\"']\nurl = {server.url}/mine\n"
        f"['remote \"derived\"']\nurl = remote://mine/x\n"
        f"['remote \"s3\"']\nurl = s3://bucket/x\nendpointurl = {server.url}\nprofile = prod\n"
        f"['remote \"dav\"']\nurl = webdav://127.0.0.1:{server.port}/dav\n"
        f"bearer_token_command = touch {touched}; echo {CANARY}\n"
    )


@pytest.mark.parametrize("target", ["data", "data@v2", ".@v2"])
def test_no_host_of_theirs_gets_anything(
    mounter: Mounter,
    pushed: Pushed,
    project: Project,
    server: RawServer,
    surroundings: Path,
    target: str,
) -> None:
    touched = mounter.home / "touched"
    pushed.configure(hostile(server, touched))
    project.commit("v2")
    project.git("config", "--file", mounter.home / ".gitconfig", "--add", "safe.directory", "*")
    give_away(pushed.root)
    done = mounter.run("ls", target, cwd=pushed.root)
    assert "Traceback" not in done.stderr and CANARY not in done.stdout + done.stderr
    asked = [head.partition("\r\n")[0] for head in server.requests]
    assert any("/plain/" in line for line in asked) and any("/mine/" in line for line in asked)
    assert any("/bucket/" in line for line in asked)
    for head in server.requests:
        assert "authorization" not in head.lower() and "amz-security" not in head.lower()
        assert CANARY not in head
    assert not touched.exists()
    assert "not followed" in done.stderr


@pytest.mark.parametrize("is_cloned", [False, True], ids=["a stranger's", "cloned"])
def test_a_mount_of_theirs_that_is_denied_shows_no_more(
    mounter: Mounter,
    pushed: Pushed,
    project: Project,
    server: RawServer,
    surroundings: Path,
    daemon: Server,
    is_cloned: bool,
) -> None:
    """A denial has the configuration read again: whose it is must not be forgotten then."""
    server.script = say("401 Unauthorized", b"", 'WWW-Authenticate: Basic realm="here"\r\n')
    touched, cache = mounter.home / "touched", Cache(mounter.home / "held")
    pushed.configure(hostile(server, touched))
    project.commit("v2")
    cache.put(pushed.object(pushed.remote).read_bytes(), pushed.oid)
    places = {"plain": "plain", "mine": "mine", "s3": "bucket", "dav": "dav"}
    flags = ["--cache", cache.root, *(word for name in places for word in ("--remote", name))]
    if is_cloned:
        (daemon.root / "theirs").symlink_to(pushed.root)
        mount = mounter.mount("data@v2", "--repo", f"{daemon.url}/theirs", *flags)
    else:
        project.git("config", "--file", mounter.home / ".gitconfig", "--add", "safe.directory", "*")
        give_away(pushed.root)
        mount = mounter.mount("data@v2", *flags, cwd=pushed.root)
    assert read(mount.path / "a.txt") == errno.EACCES
    log = mount.umount()
    asked = [head.partition("\r\n")[0] for head in server.requests]
    assert all(any(f"/{place}/" in line for line in asked) for place in places.values())
    for head in server.requests:
        assert "authorization" not in head.lower() and CANARY not in head
    assert not touched.exists() and CANARY not in log


def test_trust_lets_it_have_what_ones_own_has(
    mounter: Mounter, pushed: Pushed, server: RawServer, surroundings: Path
) -> None:
    """That the canaries sing at all, and what --trust does not allow either."""
    touched = mounter.home / "touched"
    pushed.configure(hostile(server, touched))
    give_away(pushed.root)
    mounter.run("ls", "--trust", "data", cwd=pushed.root)
    mine = [head for head in server.requests if "GET /mine/" in head]
    assert mine and all("\r\nauthorization: basic" in head.lower() for head in mine)
    signed = [head for head in server.requests if "/bucket/" in head]
    assert signed and all(f"credential=ak{CANARY}" in head.lower() for head in signed)
    assert not touched.exists()


def test_a_command_of_the_users_own_counts(mounter: Mounter, pushed: Pushed, server: RawServer) -> None:
    config = mounter.home / "config/dvc/config"
    config.parent.mkdir(parents=True)
    url = f"webdav://127.0.0.1:{server.port}/dav"
    config.write_text(f"['remote \"dav\"']\nurl = {url}\nbearer_token_command = echo {CANARY}\n")
    mounter.run("ls", "--remote", "dav", "data", cwd=pushed.root)
    assert server.requests
    assert all(f"authorization: bearer {CANARY}" in head.lower() for head in server.requests)


def test_no_command_that_came_with_ones_own_repository_is_run(
    mounter: Mounter, pushed: Pushed, project: Project, server: RawServer
) -> None:
    """What was cloned belongs to who cloned it, whoever wrote what is in it."""
    touched = mounter.home / "touched"
    (pushed.root / "aws").write_text(f"[default]\ncredential_process = touch {touched}\n")
    url = f"url = s3://bucket/x\nendpointurl = {server.url}\n"
    pushed.configure(f"[core]\nremote = far\n['remote \"far\"']\n{url}configpath = ../aws\n")
    assert mounter.run("ls", "data", cwd=pushed.root).returncode == 1
    assert server.requests and not touched.exists()
    dav = f"['remote \"dav\"']\nurl = webdav://127.0.0.1:{server.port}/dav\n"
    local = f"['remote \"far\"']\nconfigpath = ../aws\n{dav}bearer_token_command = touch {touched}\n"
    pushed.configure(local, "config.local")
    project.git("add", "--force", ".dvc/config.local")
    done = mounter.run("ls", "data", cwd=pushed.root)
    assert "bearer_token_command of the remote 'dav' is not followed" in done.stderr
    assert not touched.exists(), "git has it: somebody else may have written it"
    project.git("rm", "--quiet", "--cached", ".dvc/config.local")
    mounter.run("ls", "data", cwd=pushed.root)
    assert touched.exists(), "what the user wrote himself counts"


def test_directories_of_the_users_are_not_searched(mounter: Mounter, pushed: Pushed) -> None:
    pushed.configure(f"['remote \"disk\"']\nurl = {pushed.remote}\n['remote \"in\"']\nurl = ../inside\n")
    give_away(pushed.root)
    done = mounter.run("ls", "data", cwd=pushed.root)
    assert done.returncode == 1
    assert "'disk': it is a directory outside" in done.stderr or "in: " in done.stderr
    shutil.copytree(pushed.remote, pushed.root / "inside")
    done = mounter.run("ls", "data", cwd=pushed.root)
    assert done.returncode == 0
    assert "'disk': it is a directory outside" in done.stderr
    shutil.rmtree(pushed.cache)
    shutil.rmtree(pushed.root / "inside")
    shutil.rmtree(mounter.home / "cache")
    assert mounter.run("ls", "--trust", "data", cwd=pushed.root).returncode == 0
