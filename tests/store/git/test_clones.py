"""Clones from real servers on the loopback: partial, refreshed, offline, interrupted, with passwords."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from store.errors import LockTimeout, ObjectMissing, RepositoryUnusable, RevisionUnknown, StoreTimeout
from store.git import command
from store.git.clones import Clone, clones_directory
from store.git.file_lock import lock_file
from store.git.files import GitFiles
from store.git.urls import Location, parse_location
from tests.store.git.conftest import PASSWORD, USER, Plain, Server, new_repository

NOW = 0.0
LATER = 1e9


@pytest.fixture
def clones(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "clones"


def locate(url: str) -> Location:
    return parse_location(url, Path("/"))


def blobs(clone: Clone) -> set[str]:
    """The blobs that are here, by git's own count."""
    env = os.environ | {"GIT_NO_LAZY_FETCH": "1"}
    listing = ["git", "cat-file", "--batch-all-objects", "--batch-check=%(objecttype) %(objectname)"]
    done = subprocess.run(listing, cwd=clone.directory, env=env, capture_output=True, text=True, check=True)
    return {line.split()[1] for line in done.stdout.splitlines() if line.startswith("blob ")}


@pytest.fixture(params=["daemon", "web"])
def server(request: pytest.FixtureRequest) -> Server:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Server)
    return found


def test_contents_come_when_they_are_read(plain: Plain, server: Server, clones: Path) -> None:
    head = plain.commit("one", a="A\n", b="B\n", sub__c="C\n")
    plain("tag", "--annotate", "--message", "first", "v1")
    with Clone.open(locate(server.add(plain)), clones) as clone:
        commit, notice = clone.resolve("v1")
        assert (commit.oid, notice) == (head, None)
        assert clone.resolve("HEAD")[0].oid == clone.resolve("main")[0].oid == head
        files = GitFiles(clone.repository, commit)
        assert [item.name for item in files.list("")] == ["a", "b", "sub"]
        assert [entry.size for entry in files.entries()] == [None, None, None]
        assert blobs(clone) == set()
        assert files.read("a", 100) == b"A\n"
        assert blobs(clone) == {plain("rev-parse", "HEAD:a")}
        files.prefetch(lambda path: path != "a")
        assert blobs(clone) == {plain("rev-parse", f"HEAD:{path}") for path in ("a", "b", "sub/c")}
        assert [entry.size for entry in files.entries()] == [2, 2, 2]


def test_blobs_are_fetched_in_one_go(plain: Plain, web: Server, clones: Path) -> None:
    plain.commit("many", **{f"f{i}": f"{i}\n" for i in range(120)})
    with Clone.open(locate(web.add(plain)), clones) as clone:
        files = GitFiles(clone.repository, clone.resolve()[0])
        before = len(web.requests)
        files.prefetch(lambda path: True)
        assert len(web.requests) - before <= 4
        assert len(blobs(clone)) == 120
        before = len(web.requests)
        files.prefetch(lambda path: True)
        assert [files.read(f"f{i}", 10) for i in range(120)] == [f"{i}\n".encode() for i in range(120)]
        assert len(web.requests) == before


def test_a_server_without_filters_sends_everything(plain: Plain, daemon: Server, clones: Path) -> None:
    plain.commit("one", a="A\n")
    with Clone.open(locate(daemon.add(plain, filters=False)), clones) as clone:
        assert blobs(clone) == {plain("rev-parse", "HEAD:a")}
        assert GitFiles(clone.repository, clone.resolve()[0]).read("a", 10) == b"A\n"


def test_names_that_move(plain: Plain, server: Server, clones: Path) -> None:
    first = plain.commit("one", a="A\n")
    location = locate(server.add(plain))
    with Clone.open(location, clones) as clone:
        second = plain.commit("two", a="B\n")
        assert clone.resolve("main", LATER)[0].oid == first
        assert clone.resolve("main", NOW)[0].oid == second
        assert clone.resolve(first, NOW)[0].subject == "one"
        plain("tag", "new")
        assert clone.resolve("new", LATER)[0].oid == second
        third = plain.commit("three", a="C\n")
        assert clone.resolve(third, LATER)[0].subject == "three"
        plain("update-ref", "refs/exps/aa/" + "b" * 38 + "/tidy-mink", first)
        assert clone.resolve("tidy-mink", LATER)[0].oid == first
        plain("tag", "--delete", "new")
        plain("checkout", "--quiet", "-b", "other")
        fourth = plain.commit("four", a="D\n")
        assert clone.resolve("HEAD", NOW)[0].oid == fourth
        with pytest.raises(RevisionUnknown, match="no revision 'new'"):
            clone.resolve("new", LATER)
        plain("checkout", "--quiet", "--detach")
        fifth = plain.commit("on no branch", a="E\n")
        assert clone.resolve("HEAD", NOW)[0].oid == fifth
        assert clone.repository.names() == ["main", "other"]


def test_a_commit_that_no_name_leads_to(plain: Plain, server: Server, clones: Path) -> None:
    plain.commit("one", a="A\n")
    lost = plain.commit("lost", a="B\n")
    plain("reset", "--quiet", "--hard", "HEAD~1")
    with Clone.open(locate(server.add(plain)), clones) as clone:
        commit, _ = clone.resolve(lost)
        assert commit.subject == "lost"
        assert GitFiles(clone.repository, commit).read("a", 10) == b"B\n"
        with pytest.raises(RevisionUnknown, match=r"no commit 0{40} in"):
            clone.resolve("0" * 40)


def test_offline(plain: Plain, daemon: Server, clones: Path) -> None:
    head = plain.commit("one", a="A\n", b="B\n")
    location = locate(daemon.add(plain))
    with pytest.raises(RepositoryUnusable, match=r"no clone of git://.* here yet"):
        Clone.open(location, clones, offline=True)
    with Clone.open(location, clones) as clone:
        assert GitFiles(clone.repository, clone.resolve()[0]).read("a", 10) == b"A\n"
    with Clone.open(location, clones, offline=True) as clone:
        assert clone.resolve("main", LATER)[1] is None
        commit, notice = clone.resolve("main", NOW)
        assert commit.oid == head
        assert notice is not None
        assert notice.startswith("offline: git://")
        files = GitFiles(clone.repository, commit)
        assert files.read("a", 10) == b"A\n"
        with pytest.raises(OSError, match="is not in"):
            files.read("b", 10)
        with pytest.raises(ObjectMissing):
            clone.repository.objects.read(plain("rev-parse", "HEAD:b"))
        with pytest.raises(RevisionUnknown, match="go online"):
            clone.resolve("nothing")


def test_a_server_that_is_gone(plain: Plain, daemon: Server, clones: Path) -> None:
    head = plain.commit("one", a="A\n")
    location = locate(daemon.add(plain))
    Clone.open(location, clones).close()
    (daemon.root / "project.git").unlink()
    with Clone.open(location, clones) as clone:
        commit, notice = clone.resolve("main", NOW)
        assert commit.oid == head
        assert notice is not None
        assert "cannot be read" in notice
        assert "going on with what was there" in notice
        with pytest.raises(RepositoryUnusable, match="cannot be read"):
            clone.resolve("other")
        with pytest.raises(RepositoryUnusable, match="cannot be read"):
            clone.fetch_blobs([plain("rev-parse", "HEAD:a")])


def test_what_is_no_repository_leaves_nothing(daemon: Server, clones: Path) -> None:
    with pytest.raises(RepositoryUnusable, match=r"^git://.*/none.git cannot be read: "):
        Clone.open(locate(f"{daemon.url}/none.git"), clones)
    empty = new_repository(daemon.root.parent / "empty")
    with pytest.raises(RepositoryUnusable, match="has no commits yet"):
        Clone.open(locate(daemon.add(empty)), clones)
    assert [path.suffix for path in clones.iterdir()] == [".lock", ".lock"]


def test_a_head_that_leads_nowhere(plain: Plain, daemon: Server, clones: Path) -> None:
    head = plain.commit("one", a="A\n")
    plain("symbolic-ref", "HEAD", "refs/heads/gone")
    with Clone.open(locate(daemon.add(plain)), clones) as clone:
        assert clone.resolve("main")[0].oid == head
        with pytest.raises(RevisionUnknown):
            clone.resolve("HEAD")


def test_sha256(tmp_path: Path, daemon: Server, clones: Path) -> None:
    plain = new_repository(tmp_path / "repo", "--object-format=sha256")
    head = plain.commit("one", a="A\n")
    with Clone.open(locate(daemon.add(plain)), clones) as clone:
        commit, _ = clone.resolve("main")
        assert commit.oid == head
        assert len(head) == 64
        assert GitFiles(clone.repository, commit).read("a", 10) == b"A\n"


def test_the_rest_of_an_interrupted_clone_is_swept(plain: Plain, daemon: Server, clones: Path) -> None:
    plain.commit("one", a="A\n")
    location = locate(daemon.add(plain))
    with Clone.open(location, clones) as clone:
        name = clone.directory.name
    whole = clones / name
    half = clones / f".{name}.half"
    whole.rename(half)
    (half / "HEAD").unlink()
    with Clone.open(location, clones) as clone:
        assert clone.resolve()[0].subject == "one"
    assert sorted(path.name for path in clones.iterdir()) == [name, f"{name}.lock"]


_OPEN = """\
import sys
from pathlib import Path
from store.git.clones import Clone
from store.git.urls import parse_location
with Clone.open(parse_location(sys.argv[1], Path("/")), Path(sys.argv[2])) as clone:
    print(clone.resolve("main", 0.0)[0].oid)
"""


def test_processes_that_clone_at_once(plain: Plain, daemon: Server, clones: Path) -> None:
    head = plain.commit("one", a="A\n")
    url = daemon.add(plain)
    command = [sys.executable, "-c", _OPEN, url, str(clones)]
    root = Path(__file__).resolve().parents[3]
    processes = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate(timeout=60) for process in processes] == [(f"{head}\n", "")] * 4
    assert len(list(clones.iterdir())) == 2


def test_the_lock_has_a_deadline(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with lock_file(path, 5), pytest.raises(LockTimeout, match=r"x\.lock"), lock_file(path, 0.01):
        pass
    with lock_file(path, 5):
        assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RepositoryUnusable, match="cannot be locked"), lock_file(path, 5):
        pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("web", [True], indirect=True)
def test_a_password_is_used_and_never_kept(plain: Plain, web: Server, clones: Path) -> None:
    plain.commit("one", a="A\n")
    clean = web.add(plain)
    site = urlsplit(clean).netloc
    secret = quote(PASSWORD, safe="")
    url = clean.replace(site, f"{USER}:{secret}@{site}")
    with Clone.open(locate(url), clones) as clone:
        assert GitFiles(clone.repository, clone.resolve()[0]).read("a", 10) == b"A\n"
        assert clone.repository.remote_url == clean
        assert PASSWORD not in repr(clone)
        assert secret not in repr(clone)
    for path in clones.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert PASSWORD.encode() not in data
            assert secret.encode() not in data
    with pytest.raises(RepositoryUnusable) as refused:
        Clone.open(locate(f"{url}/none"), clones)
    assert PASSWORD not in str(refused.value)
    assert secret not in str(refused.value)
    wrong = clean.replace(site, f"{USER}:wrong@{site}").replace("project", "other")
    with pytest.raises(RepositoryUnusable, match="cannot be read") as refused:
        Clone.open(locate(wrong), clones)
    assert "wrong" not in str(refused.value)


@pytest.mark.parametrize("web", [True], indirect=True)
def test_the_users_own_helper_is_asked(plain: Plain, web: Server, clones: Path, home: Path) -> None:
    plain.commit("one", a="A\n")
    site = web.url.replace("http://", f"http://{USER}:{quote(PASSWORD, safe='')}@")
    (home / "credentials").write_text(f"{site}\n")
    (home / ".gitconfig").write_text(f"[credential]\n\thelper = store --file {home}/credentials\n")
    with Clone.open(locate(web.add(plain)), clones) as clone:
        assert clone.resolve()[0].subject == "one"


@pytest.mark.parametrize("web", [True], indirect=True)
def test_nobody_is_asked_for_a_password(plain: Plain, web: Server, clones: Path) -> None:
    plain.commit("one", a="A\n")
    with pytest.raises(RepositoryUnusable, match="cannot be read: could not read Username"):
        Clone.open(locate(web.add(plain)), clones)


def test_a_clone_is_closed_to_others(plain: Plain, daemon: Server, tmp_path: Path) -> None:
    plain.commit("one", a="A\n")
    location = locate(daemon.add(plain))
    clones = tmp_path / "c"
    with Clone.open(location, clones) as clone:
        assert clones.stat().st_mode & 0o777 == 0o700
        assert clone.directory.stat().st_mode & 0o777 == 0o700
        assert not (clone.directory / "hooks").exists()
    clones.chmod(0o777)
    with pytest.raises(RepositoryUnusable, match="others can write there; set XDG_CACHE_HOME"):
        Clone.open(location, clones)


def test_where_clones_are() -> None:
    assert clones_directory({"XDG_CACHE_HOME": "/c", "HOME": "/h"}) == Path("/c/fusefs/clones")
    assert clones_directory({"XDG_CACHE_HOME": "c", "HOME": "/h"}) == Path("/h/.cache/fusefs/clones")


def test_the_users_own_ssh_is_used(
    plain: Plain, clones: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for ssh that drops the host and runs the rest here."""
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nwhile [ "$1" != example.invalid ]; do shift; done; shift; exec sh -c "$*"\n')
    ssh.chmod(0o755)
    plain.commit("one", a="A\n")
    (home / ".gitconfig").write_text(f"[core]\n\tsshCommand = {ssh}\n[ssh]\n\tvariant = ssh\n")
    with Clone.open(locate(f"ssh://example.invalid{plain.path}"), clones) as clone:
        assert clone.resolve("main")[0].subject == "one"
    (home / ".gitconfig").unlink()
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    with Clone.open(locate(f"example.invalid:{plain.path}"), clones) as clone:
        assert clone.resolve("main")[0].subject == "one"


def test_a_server_that_says_nothing(clones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.git.transfer._ASK_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"git://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(StoreTimeout, match=rf"{url} did not send everything within 0\.2 s"):
            Clone.open(locate(url), clones)
    assert [path.suffix for path in clones.iterdir()] == [".lock"]


@pytest.mark.parametrize("url", ["file:///x", "ext::touch x", "/x"])
def test_git_itself_is_let_use_no_other_transport(url: str, plain: Plain) -> None:
    done = command.run(["ls-remote"], directory=plain.path, operands=[url], network=True)
    assert done.status != 0
    assert "not allowed" in done.complaint


def test_submodules_are_not_followed(plain: Plain, daemon: Server, clones: Path, tmp_path: Path) -> None:
    inner = new_repository(plain.path / "module")
    inner.commit("inside", x="X\n")
    plain.commit("one", _dot_gitmodules='[submodule "m"]\n\tpath = module\n\turl = ext::touch x\n')
    with Clone.open(locate(daemon.add(plain)), clones) as clone:
        files = GitFiles(clone.repository, clone.resolve()[0])
        assert files.list("module") == []
        assert not (clone.directory / "modules").exists()
