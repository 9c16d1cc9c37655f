"""The files of a commit: read lazily, listed whole, and refused where a tree is hostile."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from store.dvc.files import Files, Item, WorkingFiles
from store.errors import RepositoryUnusable
from store.git import files as git_files
from store.git.files import GitEntry, GitFiles
from store.git.repository import Repository
from store.git.trees import Mode, parse_tree
from tests.store.git.conftest import Plain, new_repository


@pytest.fixture
def repository(plain: Plain) -> Iterator[Repository]:
    with Repository.open(plain.path) as found:
        yield found


def at(repository: Repository, rev: str = "HEAD") -> GitFiles:
    return GitFiles(repository, repository.resolve(rev))


def raw_tree(*entries: tuple[bytes, bytes, str]) -> bytes:
    """The bytes of a tree of (mode, name, oid)."""
    return b"".join(b"%s %s\0%s" % (mode, name, bytes.fromhex(oid)) for mode, name, oid in entries)


def commit_tree(plain: Plain, *entries: tuple[bytes, bytes, str]) -> str:
    """Commit a tree as no git would make it; HEAD is on it then."""
    data = raw_tree(*entries)
    tree = plain("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=data)
    plain("update-ref", "HEAD", plain("commit-tree", "-m", "crafted", tree))
    return tree


def test_the_same_as_the_working_tree(plain: Plain, repository: Repository) -> None:
    (plain.path / "link").symlink_to("a")
    (plain.path / os.fsdecode(b"odd \xff\n name")).write_text("odd\n")
    plain.commit("one", a="A\n", run="#!/bin/sh\n", deep__er__b="B\n", deep__c="C\n", empty="")
    here = WorkingFiles(plain.path)
    there: Files = at(repository)
    for path in ("", "deep", "deep/er"):
        assert there.list(path) == [item for item in here.list(path) if item.name != ".git"], path
    for path in ("a", "run", "deep/er/b", "empty", os.fsdecode(b"odd \xff\n name")):
        assert there.read(path, 100) == here.read(path, 100), path
        assert there.exists(path)
    for path in ("b", "deep/b", "deep/er/b/c", "a/b", "deep/", "/a", "deep//c", "../a"):
        assert there.read(path, 100) is None, path
        assert not there.exists(path), path
    assert there.exists("")
    assert there.exists("link")
    for path in ("", "deep", "link"):
        with pytest.raises(OSError):
            there.read(path, 100)
    for path in ("a", "none", "link"):
        with pytest.raises(OSError):
            there.list(path)


def test_more_than_the_limit(plain: Plain, repository: Repository) -> None:
    plain.commit("one", a="x" * 500_000)
    files = at(repository)
    assert files.read("a", 10) == b"x" * 11
    assert files.read("a", 499_999) == b"x" * 500_000
    assert files.read("a", 500_000) == b"x" * 500_000


def test_everything(plain: Plain, repository: Repository) -> None:
    inner = new_repository(plain.path / "module")
    module = inner.commit("inside", x="X\n")
    (plain.path / "link").symlink_to("../outside")
    (plain.path / "run").write_text("#!/bin/sh\n")
    (plain.path / "run").chmod(0o755)
    (plain.path / os.fsdecode(b"\xff")).write_text("odd\n")
    plain.commit("one", a="A\n", sub__b="BB\n", sub__deep__c="", sub_deep="D\n")
    files = at(repository)
    oids = {path: plain("rev-parse", f"HEAD:{path}") for path in ("a", "link", "run", "sub/b")}
    entries = list(files.entries())
    assert {entry.path: entry.mode for entry in entries} == {
        b"a": Mode.FILE, b"link": Mode.SYMLINK, b"module": Mode.SUBMODULE, b"run": Mode.EXECUTABLE,
        b"sub/b": Mode.FILE, b"sub/deep/c": Mode.FILE, b"sub_deep": Mode.FILE, b"\xff": Mode.FILE,
    }  # fmt: skip
    assert GitEntry(b"sub/b", Mode.FILE, oids["sub/b"], 3) in entries
    assert GitEntry(b"link", Mode.SYMLINK, oids["link"], len("../outside")) in entries
    assert GitEntry(b"module", Mode.SUBMODULE, module, None) in entries
    listed = plain("ls-tree", "-r", "-z", "--name-only", "HEAD").split("\0")[:-1]
    assert [os.fsdecode(entry.path) for entry in entries] == listed
    assert [entry.path for entry in files.entries("sub")] == [b"sub/b", b"sub/deep/c"]
    assert [entry.path for entry in files.entries("sub/b")] == [b"sub/b"]
    assert list(files.entries("none")) == []
    assert Item("module", is_dir=True) in files.list("")
    assert files.list("module") == []
    with pytest.raises(OSError, match="submodule"):
        files.read("module", 10)
    with pytest.raises(OSError, match="symlink"):
        files.read("link", 10)
    assert files.read("module/x", 10) is None


def test_a_random_project_is_what_ls_tree_says(plain: Plain, repository: Repository) -> None:
    dice = random.Random(3)
    for number in range(400):
        path = plain.path / "/".join(
            dice.choice("abc") * dice.randint(1, 3) for _ in range(dice.randint(1, 5))
        )
        if not any(parent.is_file() for parent in path.parents) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(dice.randbytes(dice.randint(0, 50)) + b"%d" % number)
    plain.commit("random")
    ours = [f"{e.mode:o} blob {e.oid} {e.size:>7}\t{os.fsdecode(e.path)}" for e in at(repository).entries()]
    assert len(ours) > 20
    assert ours == plain("ls-tree", "-r", "-l", "-z", "HEAD").split("\0")[:-1]


def test_one_file_costs_only_the_trees_on_its_way(plain: Plain, repository: Repository) -> None:
    plain.commit("one", **{f"d{i}__d{j}__f": f"{i} {j}\n" for i in range(20) for j in range(5)})
    read: list[str] = []
    inner = repository.objects.read

    def counting(oid: str, kind: str = "blob", limit: int = 1 << 20) -> bytes:
        read.append(kind)
        return inner(oid, kind, limit)

    files = at(repository)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repository.objects, "read", counting)
        for _ in range(3):
            assert files.read("d7/d3/f", 100) == b"7 3\n"
    assert read.count("tree") == 3


def test_trees_that_many_revisions_share_are_read_once(plain: Plain, repository: Repository) -> None:
    plain.commit("one", same__x="X\n", a="1\n")
    plain.commit("two", a="2\n")
    first, second = at(repository, "HEAD~1"), at(repository)
    trees = [files.find("same") for files in (first, second)]
    assert trees[0] == trees[1]
    assert trees[0] is not None
    assert repository.trees.read(trees[0].oid) is repository.trees.read(trees[0].oid)


BLOB = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
HOSTILE: Sequence[tuple[bytes, bytes, str]] = (
    (b"100644", b".git", "no file may be called"),
    (b"40000", b".GIT", "no file may be called"),
    (b"100644", b"..", "no file may be called"),
    (b"120000", b".", "no file may be called"),
    (b"100644", b"", "no file may be called"),
    (b"100644", b"a/b", "no file may be called"),
    (b"100644", b"../../etc/x", "no file may be called"),
    (b"100644", b"x" * 256, "no file may be called"),
    (b"100644", b"same", "twice"),
    (b"60000", b"device", "unknown mode"),
    (b"0", b"none", "unknown mode"),
    (b"888", b"none", "unknown mode"),
)


@pytest.mark.parametrize(("mode", "name", "message"), HOSTILE, ids=lambda value: repr(value)[:20])
def test_hostile_trees(mode: bytes, name: bytes, message: str, plain: Plain, repository: Repository) -> None:
    plain("hash-object", "-w", "--stdin")
    sub = plain("mktree", stdin=b"")
    oid = sub if mode == b"40000" else BLOB
    tree = commit_tree(plain, (mode, name, oid), (b"100644", b"same", BLOB))
    files = at(repository)
    with pytest.raises(RepositoryUnusable, match=message) as refused:
        list(files.entries())
    assert tree in str(refused.value)
    assert str(refused.value).isprintable()
    for ask in (files.list, lambda path: files.read(path + "same", 10)):
        with pytest.raises(OSError, match=message):
            ask("")
    assert not files.exists("same")


def test_a_hostile_directory_does_not_take_its_neighbours_down(plain: Plain, repository: Repository) -> None:
    plain("hash-object", "-w", "--stdin")
    data = raw_tree((b"100644", b"..", BLOB))
    bad = plain("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=data)
    commit_tree(plain, (b"40000", b"bad", bad), (b"100644", b"good", BLOB))
    files = at(repository)
    assert [item.name for item in files.list("")] == ["bad", "good"]
    assert files.read("good", 10) == b""
    with pytest.raises(OSError, match="no file may be called"):
        files.list("bad")


@pytest.mark.parametrize(
    "data", [b"x", b"100644", b"100644 a", b"100644 a\0", b"100644 a\0" + bytes(19), b"\0" * 30]
)
def test_malformed_trees(data: bytes) -> None:
    with pytest.raises(RepositoryUnusable, match="is malformed"):
        parse_tree(data, "0" * 40)


def test_modes_of_other_times() -> None:
    entries = [(b"100664", b"group"), (b"100600", b"mine"), (b"100775", b"run"), (b"040000", b"tree")]
    tree = parse_tree(raw_tree(*((mode, name, BLOB) for mode, name in entries)), "0" * 40)
    assert [entry.mode for entry in tree.values()] == [Mode.FILE, Mode.FILE, Mode.EXECUTABLE, Mode.TREE]


def test_a_tree_that_unfolds_without_end(
    plain: Plain, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten trees of ten times the same: ten thousand million files in a few hundred bytes."""
    plain("hash-object", "-w", "--stdin")
    oid, mode = BLOB, b"100644"
    for _ in range(10):
        data = raw_tree(*((mode, b"%d" % number, oid) for number in range(10)))
        oid, mode = plain("hash-object", "-t", "tree", "-w", "--stdin", stdin=data), b"40000"
    plain("update-ref", "HEAD", plain("commit-tree", "-m", "bomb", oid))
    monkeypatch.setattr(git_files, "ENTRIES_LIMIT", 5000)
    with pytest.raises(RepositoryUnusable, match="unfolds to more than 5000 files"):
        list(at(repository).entries())
    assert at(repository).read("0/1/2/3/4/5/6/7/8/9", 10) == b""


def test_a_tree_that_is_too_deep(plain: Plain, repository: Repository) -> None:
    plain("hash-object", "-w", "--stdin")
    oid, mode = BLOB, b"100644"
    for _ in range(20):
        oid = plain("hash-object", "-t", "tree", "-w", "--stdin", stdin=raw_tree((mode, b"d" * 250, oid)))
        mode = b"40000"
    plain("update-ref", "HEAD", plain("commit-tree", "-m", "deep", oid))
    with pytest.raises(RepositoryUnusable, match="a path of more than 4096 bytes"):
        list(at(repository).entries())


def test_a_partial_clone_of_the_users_own(plain: Plain, tmp_path: Path) -> None:
    """It is read as far as it goes; nothing is fetched by its configuration."""
    plain.commit("one", a="A\n", sub__b="B\n")
    plain("config", "uploadpack.allowFilter", "true")
    target = tmp_path / "partial"
    plain("clone", "--quiet", "--no-checkout", "--filter=blob:none", f"file://{plain.path}", str(target))
    with Repository.open(target) as repository:
        files = at(repository)
        assert [(entry.path, entry.size) for entry in files.entries()] == [(b"a", None), (b"sub/b", None)]
        with pytest.raises(OSError, match=r"is not in .*; if that is a partial or shallow clone"):
            files.read("a", 10)
        Plain(target)("cat-file", "-p", "HEAD:a")
        assert files.read("a", 10) == b"A\n"
