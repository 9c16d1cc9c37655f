"""What cannot be mounted is refused in one line, and nothing that a repository says runs or leads outside."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.datasets import Cache, md5, tree_of
from tests.mount.mounts import Mounter
from tests.revisions.projects import Project, new_project

pytestmark = pytest.mark.fuse

NOBODY = 65534
ONE = {"a.txt": b"one\n", "sub/b": b"b\n"}


@pytest.fixture
def versions(project: Project) -> Project:
    project.track("data", ONE)
    project.track("more/labels", b"labels")
    project.write("code/x.py", b"1")
    project.commit("release-1.0")
    project.git("tag", "release-1.1")
    return project


def test_an_unknown_revision(mounter: Mounter, versions: Project) -> None:
    line = mounter.refuse("data@release-1.2", cwd=versions.root)
    assert "'release-1.2'" in line and "release-1.0" in line and "release-1.1" in line
    for words in (
        ("data", "--rev", "realese-1.0"),
        (".@realese-1.0",),
        ("data", "--repo", ".", "--rev", "realese-1.0"),
    ):
        line = mounter.refuse(*words, cwd=versions.root)
        assert "'realese-1.0'" in line and "did you mean release-1.0" in line
    mounter.refuse(f"data@{'0' * 40}", cwd=versions.root)
    for rev in ("--all", "a\nb", "HEAD^..HEAD", "HEAD:data.dvc", "x" * 3000, "\udcff"):
        mounter.refuse("data", f"--rev={rev}", cwd=versions.root)
    mounter.refuse("data@-x", cwd=versions.root)


def test_an_ambiguous_revision(mounter: Mounter, versions: Project) -> None:
    versions.git("branch", "twofold")
    versions.commit("twofold")
    line = mounter.refuse("data@twofold", cwd=versions.root)
    assert "heads/twofold" in line and "tags/twofold" in line
    assert tree_of(mounter.mount("data@heads/twofold", cwd=versions.root).path) == ONE


def test_a_path_that_is_not_tracked_there(mounter: Mounter, versions: Project) -> None:
    for words in (
        ("dada@HEAD",),
        ("dada", "--rev", "HEAD"),
        ("nowhere", "--repo", "."),
    ):
        line = mounter.refuse(*words, cwd=versions.root)
        assert "data" in line
    assert "nothing is tracked" in mounter.refuse("dada@HEAD", cwd=versions.root)
    assert "'data'" in mounter.refuse("dada@HEAD", cwd=versions.root)
    mounter.refuse("data/none@HEAD", cwd=versions.root)
    mounter.refuse("data/a.txt/below@HEAD", cwd=versions.root)
    mounter.refuse("code/x.py/below@HEAD", cwd=versions.root)
    mounter.refuse("../outside@HEAD", cwd=versions.root)
    for inner in ("../data", "/data", "data/../.."):
        assert "path from the root" in mounter.refuse(inner, "--repo", versions.root)


def test_options_that_do_not_go_together(mounter: Mounter, versions: Project) -> None:
    assert "--revs" in mounter.refuse("data", "--rev", "HEAD", "--revs", "*", cwd=versions.root)
    outside = mounter.home / "outside"
    outside.mkdir()
    for words in (("x@v1",), (".@v1",), ("x", "--rev", "v1"), (".", "--revs", "*"), ("x", "--repo", outside)):
        mounter.refuse(*words, cwd=outside)


def test_a_repository_without_commits(mounter: Mounter) -> None:
    root = mounter.home / "new"
    root.mkdir()
    project = Project(
        root, Cache(root / "cache"), new_project(mounter.home / "p", mounter.environment).environment
    )
    project.git("init", "--quiet")
    for target in (".", ".@HEAD", ".@main", "x@HEAD"):
        mounter.refuse(target, cwd=root)


def test_manifests_that_are_not_what_was_asked_for(mounter: Mounter, versions: Project) -> None:
    oid = versions.track("other", {"x": b"1"})
    versions.commit("v2")
    place = versions.cache.place(oid)
    place.chmod(0o644)
    place.write_bytes(versions.cache.place(versions.track("data", ONE)).read_bytes())
    line = mounter.refuse("other@v2", cwd=versions.root)
    assert oid in line
    # In a project that is a fault of the whole: what is shown there would be somebody else's data.
    assert oid in mounter.refuse(".@v2", cwd=versions.root)


@pytest.mark.parametrize(
    "entries",
    [
        '[{"md5": "%s", "relpath": "../x"}]',
        '[{"md5": "%s", "relpath": "/etc/x"}]',
        '[{"md5": "%s", "relpath": "a"}, {"md5": "%s", "relpath": "a/b"}]',
        '{"md5": "%s"}',
        '[{"md5": "zz", "relpath": "%s"}]',
    ],
)
def test_hostile_manifests(mounter: Mounter, versions: Project, entries: str) -> None:
    data = entries.replace("%s", md5(b"1")).encode()
    oid = versions.cache.put(data, md5(data) + ".dir")
    versions.write("data.dvc", f"outs:\n- md5: {oid}\n  hash: md5\n  path: data\n".encode())
    versions.commit("hostile")
    mounter.refuse("data@hostile", cwd=versions.root)
    mounter.refuse(".@hostile", cwd=versions.root)
    mount = mounter.mount("data@release-1.0", cwd=versions.root)
    with pytest.raises(OSError, match="Input/output error"):
        os.listdir(mount.path / ".fusefs" / "revs" / "hostile")
    done = mounter.run("switch", mount.path, "hostile")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert tree_of(mount.path) == ONE
    assert "Traceback" not in mount.umount()


@pytest.mark.parametrize(
    "repo",
    [
        "ext::sh -c touch% %CANARY",
        "ext::sh -c 'touch CANARY'",
        "--upload-pack=touch CANARY",
        "-u touch CANARY",
        "ssh://-oProxyCommand=touch CANARY/x",
        "-oProxyCommand=touch CANARY:x",
        "ssh://user@-oProxyCommand=touch%20CANARY/x",
        "file://-CANARY",
        "fd::17",
        "transport::address",
        "ftp://127.0.0.1/x",
        "file://elsewhere/x",
        "",
        " ",
        "a\nb",
        "http://",
    ],
)
def test_repositories_that_would_run_something(mounter: Mounter, versions: Project, repo: str) -> None:
    canary = mounter.home / "canary"
    mounter.refuse("data", f"--repo={repo.replace('CANARY', str(canary))}", "--rev", "HEAD", cwd=mounter.home)
    assert not canary.exists()


@pytest.fixture
def canary(mounter: Mounter) -> Iterator[Path]:
    """A program that leaves a mark; the mark must not be there at the end."""
    mark = mounter.home / "ran"
    program = mounter.home / "canary.sh"
    program.write_text(f'#!/bin/sh\necho "$0 $*" >> {mark}\nexit 1\n')
    program.chmod(0o755)
    subprocess.run([program], timeout=60, check=False)
    mark.unlink()
    yield program
    assert not mark.exists(), mark.read_text()


def test_configurations_and_hooks_run_nothing(mounter: Mounter, versions: Project, canary: Path) -> None:
    """Whatever configuration, attributes and hooks name: mounting, browsing and switching start nothing."""
    root, git_dir = versions.root, versions.root / ".git"
    versions.write(".gitattributes", b"* filter=evil diff=evil merge=evil textconv=evil\n")
    versions.track("data", {"a.txt": b"two\n"})
    versions.commit("v2")
    settings = (
        *("core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass", "core.gitProxy"),
        *("core.alternateRefsCommand", "credential.helper", "diff.external", "sequence.editor", "pager.log"),
        *("filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.evil.textconv"),
        *(
            "diff.evil.command",
            "merge.evil.driver",
            "gpg.program",
            "gpg.ssh.program",
            "interactive.diffFilter",
        ),
        *("uploadpack.packObjectsHook", "remote.origin.uploadpack", "remote.origin.receivepack", "man.x.cmd"),
        *("alias.rev-parse", "alias.cat-file", "alias.for-each-ref", "browser.x.cmd", "core.hooksPathX"),
    )
    for name in settings:
        value = f"!{canary}" if name.startswith(("alias.", "credential.")) else str(canary)
        versions.git("config", name, value)
    versions.git("config", "remote.origin.url", f"ext::{canary} %S")
    versions.git("config", "remote.origin.promisor", "true")
    versions.git("config", "extensions.partialClone", "origin")
    versions.git("config", "core.repositoryformatversion", "1")
    for hook in (
        "post-checkout",
        "reference-transaction",
        "post-index-change",
        "fsmonitor-watchman",
        "pre-auto-gc",
    ):
        shutil.copy(canary, git_dir / "hooks" / hook)
    (git_dir / "info").mkdir(exist_ok=True)
    (git_dir / "info" / "attributes").write_text("* filter=evil\n")
    mount = mounter.mount("data@release-1.0", cwd=root)
    assert tree_of(mount.path) == ONE
    assert tree_of(mount.path / ".fusefs" / "revs" / "v2") == {"a.txt": b"two\n"}
    assert "v2" in os.listdir(mount.path / ".fusefs" / "revs")
    assert mounter.run("switch", mount.path, "v2").returncode == 0
    with pytest.raises(FileNotFoundError):
        (mount.path / ".fusefs" / "revs" / "none").stat()
    whole = mounter.mount(".@v2", cwd=root)
    assert (whole.path / "code" / "x.py").read_bytes() == b"1"
    assert (whole.path / ".gitattributes").read_bytes().startswith(b"* filter")
    side = mounter.mount(".", "--revs", "*", cwd=root)
    assert (side.path / "v2" / "data" / "a.txt").read_bytes() == b"two\n"
    mounter.mount("data", "--repo", root, "--rev", "v2")
    mounter.refuse("data@none", cwd=root)
    mounter.refuse(f"data@{'1' * 40}", cwd=root)


def test_a_missing_blob_is_not_asked_for_elsewhere(mounter: Mounter, versions: Project, canary: Path) -> None:
    """An object that the repository promises to have from somewhere is missing, and nothing is run for it."""
    oid = versions.git("rev-parse", "HEAD:code/x.py").strip()
    loose = versions.root / ".git" / "objects" / oid[:2] / oid[2:]
    versions.git("config", "remote.origin.url", f"ext::{canary} %S")
    versions.git("config", "remote.origin.promisor", "true")
    versions.git("config", "extensions.partialClone", "origin")
    loose.unlink()
    done = mounter.run(
        "mount", "--mode", mounter.mode, ".@HEAD", place := mounter.new_mountpoint(), cwd=versions.root
    )
    if done.returncode == 0:
        with pytest.raises(OSError, match="Input/output error"):
            (place / "code" / "x.py").read_bytes()
        assert tree_of(place / "data") == ONE
        assert mounter.run("umount", place).returncode == 0
    else:
        assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_a_committed_cache_directory_is_not_honoured(mounter: Mounter, versions: Project) -> None:
    """What a revision's own configuration says of the cache's place is not followed; today's is."""
    elsewhere = Cache(mounter.home / "elsewhere")
    versions.write(".dvc/config", f"[cache]\n    dir = {elsewhere.root}\n".encode())
    oid = elsewhere.put_dataset({"secret": b"of somebody else"})
    versions.write("theirs.dvc", f"outs:\n- md5: {oid}\n  hash: md5\n  path: theirs\n".encode())
    versions.commit("points")
    versions.write(".dvc/config", b"")
    versions.commit("back")
    assert oid in mounter.refuse("theirs@points", cwd=versions.root)
    mount = mounter.mount("data@points", cwd=versions.root)
    assert tree_of(mount.path) == ONE
    whole = mounter.mount(".@points", cwd=versions.root)
    assert not (whole.path / "theirs").exists()
    assert tree_of(whole.path / "data") == ONE


def test_a_symlinked_configuration(mounter: Mounter, versions: Project) -> None:
    outside = mounter.home / "config"
    outside.write_text("[core]\n    no_scm = true\n")
    config = versions.root / ".dvc" / "config"
    config.unlink()
    config.symlink_to(outside)
    assert "symlink" in mounter.refuse("data@HEAD", cwd=versions.root)
    versions.commit("linked")
    config.unlink()
    versions.write(".dvc/config", b"")
    assert tree_of(mounter.mount("data@linked", cwd=versions.root).path) == ONE


def test_objects_that_are_links(mounter: Mounter, versions: Project) -> None:
    secret = mounter.home / "secret"
    secret.write_bytes(ONE["a.txt"])
    place = versions.cache.place(md5(ONE["a.txt"]))
    place.unlink()
    place.symlink_to(secret)
    mount = mounter.mount(".@HEAD", cwd=versions.root)
    with pytest.raises(OSError, match="Input/output error"):
        (mount.path / "data" / "a.txt").read_bytes()
    assert (mount.path / "data" / "sub" / "b").read_bytes() == ONE["sub/b"]


def run_git(*arguments: str | bytes | Path, cwd: Path, stdin: bytes = b"") -> str:
    command = ["git", *arguments]
    return (
        subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, timeout=60, check=True)
        .stdout.decode()
        .strip()
    )


@pytest.mark.parametrize("name", [b"..", b".git", b".", b"a/b", b".GIT"])
def test_trees_with_hostile_names(mounter: Mounter, versions: Project, name: bytes) -> None:
    root = versions.root
    blob = run_git("hash-object", "-w", "--stdin", cwd=root, stdin=b"hostile")
    raw = b"100644 " + name + b"\0" + bytes.fromhex(blob)
    tree = run_git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", cwd=root, stdin=raw)
    outer = b"40000 inner\0" + bytes.fromhex(tree)
    top = run_git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", cwd=root, stdin=outer)
    commit = versions.git("commit-tree", top, "-m", "hostile").strip()
    line = mounter.refuse(f".@{commit}", cwd=root)
    assert "no file may be called" in line
    mounter.refuse(f"inner@{commit}", cwd=root)


@pytest.mark.root
def test_a_repository_of_somebody_else(mounter: Mounter, versions: Project) -> None:
    """git's own rule: it is refused with the remedy, and the remedy helps."""
    with tempfile.TemporaryDirectory(prefix="fusefs-test-") as name:
        theirs = Path(name).resolve() / "theirs"
        shutil.copytree(versions.root, theirs, symlinks=True)
        for path in [theirs, *theirs.rglob("*")]:
            os.lchown(path, NOBODY, NOBODY)
        for words in (("data@HEAD",), (".@HEAD",), ("data", "--repo", theirs), (".", "--revs", "*")):
            line = mounter.refuse(*words, cwd=theirs)
            assert "safe.directory" in line and str(theirs) in line
        config = mounter.home / ".gitconfig"
        config.write_text(f"[safe]\n\tdirectory = {theirs}\n")
        assert tree_of(mounter.mount("data@HEAD", cwd=theirs).path) == ONE
        config.unlink()


@pytest.mark.root
def test_where_somebody_else_says_the_cache_is(mounter: Mounter, versions: Project) -> None:
    """Root goes nowhere because a repository of another user names it."""
    elsewhere = Cache(mounter.home / "elsewhere")
    elsewhere.put_dataset(ONE)
    versions.write(".dvc/config", f"[cache]\n    dir = {elsewhere.root}\n".encode())
    versions.commit("points")
    shutil.rmtree(versions.root / ".dvc" / "cache")
    assert tree_of(mounter.mount("data@HEAD", cwd=versions.root).path) == ONE  # one's own may name any
    (mounter.home / ".gitconfig").write_text(f"[safe]\n\tdirectory = {versions.root}\n")
    for path in [versions.root, *versions.root.rglob("*")]:
        os.lchown(path, NOBODY, NOBODY)
    for words in (("data@HEAD",), (".@HEAD",), ("data.dvc",), ("data", "--repo", versions.root)):
        assert "--cache" in mounter.refuse(*words, cwd=versions.root)
    chosen = mounter.mount("data@HEAD", "--cache", elsewhere.root, cwd=versions.root)
    assert tree_of(chosen.path) == ONE
