"""What a repository's own files could make git run: plain git runs it, and this does not.

Each case is a repository that names a program, and a git command of everyday use that is shown to run
it. So no case can pass because it was set up wrongly.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from store.errors import ObjectMissing, RepositoryUnusable, RevisionUnknown
from store.git.files import GitFiles
from store.git.repository import Repository
from store.git.work_tree import list_files
from tests.store.git.conftest import Plain, Server

MISSING = "1234567890123456789012345678901234567890"
FETCH = ("cat-file", "-p", MISSING)


@dataclass(frozen=True, slots=True)
class Canary:
    """A program that leaves a trace when it runs."""

    program: Path
    trace: Path

    def sang(self) -> bool:
        found = self.trace.exists()
        self.trace.unlink(missing_ok=True)
        return found


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    program, trace = tmp_path / "canary", tmp_path / "trace"
    program.write_text(f"#!/bin/sh\n: > '{trace}'\nexit 1\n")
    program.chmod(0o755)
    return Canary(program, trace)


def read_everything(path: Path) -> None:
    """All that the package does with a repository of somebody's."""
    list_files(path, "*.dvc")
    with Repository.open(path) as repository:
        for rev in ("HEAD", "main", "v1", "HEAD~1", "@{0}", "HEAD^{/one}", ":/one", ":a", "nothing", MISSING):
            with suppress(RevisionUnknown, ObjectMissing):
                repository.resolve(rev)
        commit = repository.resolve("HEAD")
        assert repository.names() == ["main", "v1"]
        assert repository.commits(["a"], 10)
        _ = repository.remote_url
        files = GitFiles(repository, commit)
        assert files.read("a", 100) == b"two\n"
        assert files.exists(".gitattributes")
        assert len(list(files.entries())) == len(files.list(""))
        assert repository.objects.sizes([MISSING]) == [None]
        with pytest.raises(ObjectMissing):
            repository.objects.read(MISSING)
        repository.objects.prefetch([MISSING])


Make = Callable[[Plain, Canary], Sequence[str]]


def fsmonitor(plain: Plain, canary: Canary) -> Sequence[str]:
    plain("config", "core.fsmonitor", str(canary.program))
    return ("status",)


def included(plain: Plain, canary: Canary) -> Sequence[str]:
    (plain.path / ".git/more").write_text(f"[core]\n\tfsmonitor = {canary.program}\n")
    plain("config", "include.path", "more")
    return ("status",)


def of_the_work_tree(plain: Plain, canary: Canary) -> Sequence[str]:
    plain("config", "extensions.worktreeConfig", "true")
    (plain.path / ".git/config.worktree").write_text(f"[core]\n\tfsmonitor = {canary.program}\n")
    return ("status",)


def hooks(plain: Plain, canary: Canary) -> Sequence[str]:
    (plain.path / ".git/hooks").mkdir(exist_ok=True)
    for name in ("reference-transaction", "post-index-change", "pre-auto-gc", "post-checkout"):
        (plain.path / ".git/hooks" / name).symlink_to(canary.program)
    return ("update-ref", "refs/heads/other", "HEAD")


def hooks_elsewhere(plain: Plain, canary: Canary) -> Sequence[str]:
    directory = plain.path.parent / "hooks"
    directory.mkdir()
    (directory / "reference-transaction").symlink_to(canary.program)
    plain("config", "core.hooksPath", str(directory))
    return ("update-ref", "refs/heads/other", "HEAD")


def signatures(plain: Plain, canary: Canary) -> Sequence[str]:
    signed = plain("cat-file", "commit", "HEAD").replace(
        "\n\n", "\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\n", 1
    )
    oid = plain("hash-object", "-t", "commit", "-w", "--stdin", stdin=f"{signed}\n".encode())
    plain("update-ref", "HEAD", oid)
    plain("config", "log.showSignature", "true")
    plain("config", "gpg.program", str(canary.program))
    return ("log", "-1")


def text_conversion(plain: Plain, canary: Canary) -> Sequence[str]:
    for key in ("diff.x.textconv", "diff.x.command", "diff.external", "filter.x.smudge", "filter.x.clean"):
        plain("config", key, str(canary.program))
    return ("show", "HEAD")


def filters(plain: Plain, canary: Canary) -> Sequence[str]:
    plain("config", "filter.x.smudge", str(canary.program))
    return ("cat-file", "--filters", "HEAD:a")


def promisor(plain: Plain, url: str, **settings: str) -> Sequence[str]:
    plain("config", "core.repositoryFormatVersion", "1")
    plain("config", "extensions.partialClone", "origin")
    plain("config", "remote.origin.promisor", "true")
    plain("config", "remote.origin.url", url)
    for protocol in ("ext", "file", "ssh", "git", "http"):
        plain("config", f"protocol.{protocol}.allow", "always")
    plain("config", "protocol.allow", "always")
    for key, value in settings.items():
        plain("config", key.replace("__", "."), value)
    return FETCH


def upload_pack(plain: Plain, canary: Canary) -> Sequence[str]:
    return promisor(plain, str(plain.path), remote__origin__uploadpack=str(canary.program))


def command_transport(plain: Plain, canary: Canary) -> Sequence[str]:
    return promisor(plain, f"ext::{canary.program}")


def command_transport_by_vcs(plain: Plain, canary: Canary) -> Sequence[str]:
    return promisor(plain, str(canary.program), remote__origin__vcs="ext")


def command_transport_instead(plain: Plain, canary: Canary) -> Sequence[str]:
    plain("config", f"url.ext::{canary.program} .insteadOf", "https://example.org/")
    return promisor(plain, "https://example.org/x")


def ssh(plain: Plain, canary: Canary) -> Sequence[str]:
    return promisor(plain, "ssh://example.invalid/x", core__sshCommand=str(canary.program))


def proxy(plain: Plain, canary: Canary) -> Sequence[str]:
    return promisor(plain, "git://example.invalid/x", core__gitProxy=str(canary.program))


CASES: Sequence[Make] = (
    fsmonitor,
    included,
    of_the_work_tree,
    hooks,
    hooks_elsewhere,
    signatures,
    text_conversion,
    filters,
    upload_pack,
    command_transport,
    command_transport_by_vcs,
    command_transport_instead,
    ssh,
    proxy,
)


@pytest.mark.parametrize("make", CASES, ids=[make.__name__ for make in CASES])
def test_a_repository_runs_nothing(make: Make, plain: Plain, canary: Canary) -> None:
    plain.commit("one", a="one\n", _dot_gitattributes="* diff=x filter=x\n")
    plain.commit("two", a="two\n")
    plain("tag", "v1")
    command = make(plain, canary)
    # The index is younger than the file system's clock can tell from it: then git looks again.
    plain(*command, status=None)
    assert canary.sang(), "git itself would not have run it: the case shows nothing"
    (plain.path / ".git/refs/heads/other").unlink(missing_ok=True)
    read_everything(plain.path)
    assert not canary.sang()


@pytest.mark.parametrize("web", [True], indirect=True)
@pytest.mark.parametrize("key", ["credential__helper", "core__askPass"])
def test_nobody_is_asked_for_passwords(key: str, plain: Plain, canary: Canary, web: Server) -> None:
    plain.commit("one", a="one\n", _dot_gitattributes="")
    plain.commit("two", a="two\n")
    plain("tag", "v1")
    command = promisor(plain, f"{web.url}/x.git", **{key: str(canary.program)})
    plain(*command, status=None)
    assert canary.sang(), "git itself would not have run it: the case shows nothing"
    read_everything(plain.path)
    assert not canary.sang()


def test_a_repository_that_is_bare_and_in_a_work_tree_runs_nothing(plain: Plain, canary: Canary) -> None:
    """A directory of a checkout may look like a bare repository, with a configuration of its own."""
    plain.commit("one", a="one\n")
    plain.commit("two", a="two\n", _dot_gitattributes="")
    plain("tag", "v1")
    bare = plain.path / "sub"
    plain("clone", "--quiet", "--bare", str(plain.path), str(bare))
    Plain(bare)("config", "core.fsmonitor", str(canary.program))
    Plain(bare)("config", "core.worktree", str(plain.path))
    Plain(bare)("config", "core.bare", "false")
    Plain(bare)("status", status=None)
    assert canary.sang(), "git itself would not have run it: the case shows nothing"
    read_everything(bare)
    assert not canary.sang()


def test_git_is_not_taken_from_the_repository(
    plain: Plain, canary: Canary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain.commit("one", a="one\n")
    (plain.path / "git").symlink_to(canary.program)
    (plain.path / ".git/git").symlink_to(canary.program)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.environ['PATH']}")
    with Repository.open(plain.path) as repository:
        assert repository.resolve("HEAD").subject == "one"
    assert not canary.sang()


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"])
def test_the_environment_speaks_of_another_repository(
    name: str, plain: Plain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a hook, where git sets these for its own repository."""
    plain.commit("one", a="one\n")
    monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    with Repository.open(plain.path) as repository:
        assert repository.work_tree == plain.path
        assert repository.resolve("HEAD").subject == "one"


@pytest.mark.parametrize(
    "rev",
    ["-h", "--help", "--exec-path=/x", "--git-dir=/x", "", " ", "a\nb", "a\0b", "x" * 2000, "HEAD --all"],
)
def test_revisions_that_would_be_options(rev: str, plain: Plain) -> None:
    plain.commit("one", a="one\n")
    with Repository.open(plain.path) as repository, pytest.raises(RevisionUnknown) as refused:
        repository.resolve(rev)
    assert "\n" not in str(refused.value)


def test_paths_that_would_be_options_or_patterns(plain: Plain) -> None:
    plain.commit("one", **{"--all": "x", "*": "x", ":!a": "x"})
    plain.commit("two", a="x")
    with Repository.open(plain.path) as repository:
        for path in ("--all", "*", ":!a"):
            assert [commit.subject for commit in repository.commits([path], 9)] == ["one"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_repository_of_somebody_else(plain: Plain, home: Path) -> None:
    plain.commit("one", a="one\n")
    for path in (plain.path, plain.path / ".git"):
        os.chown(path, 65534, 65534)
    with pytest.raises(RepositoryUnusable) as refused:
        Repository.open(plain.path)
    message = str(refused.value)
    assert "belongs to somebody else" in message
    remedy = f"git config --global --add safe.directory {plain.path}"
    assert message.endswith(remedy)
    plain(*remedy.split()[1:])
    with Repository.open(plain.path) as repository:
        assert repository.resolve("HEAD").subject == "one"
