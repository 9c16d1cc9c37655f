"""Repositories of every kind opened, and commits found by every name that git and DVC have for them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from store.errors import ObjectCorrupt, RepositoryUnusable, RevisionUnknown
from store.git.commit import parse_commit
from store.git.repository import Repository
from tests.store.git.conftest import Plain, new_repository


@pytest.fixture
def history(plain: Plain) -> dict[str, str]:
    """Three commits: v1 (annotated), a branch `side` at the second, main at the third."""
    oids = {"one": plain.commit("one", a="1\n")}
    plain("tag", "--annotate", "--message", "tagged", "v1")
    plain("tag", "--annotate", "--message", "tag of a tag", "v1-again", "v1")
    oids["two"] = plain.commit("two\n\nbody", time=1_700_000_100, b="2\n")
    plain("branch", "side")
    plain("tag", "v2.0")
    oids["three"] = plain.commit("three", time=1_700_000_200, a="3\n", sub__c="3\n")
    return oids


def test_what_is_opened(plain: Plain, tmp_path: Path, history: dict[str, str]) -> None:
    (plain.path / "sub/deep").mkdir()
    plain("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"), "v1")
    plain("clone", "--quiet", "--bare", str(plain.path), str(tmp_path / "bare.git"))
    plain("clone", "--quiet", "--shared", str(plain.path), str(tmp_path / "shared"))
    for path, work_tree, subject in (
        (plain.path, plain.path, "three"),
        (plain.path / "sub/deep", plain.path, "three"),
        (plain.path / "sub/deep/gone/x.dvc", plain.path, "three"),
        (plain.path / "a", plain.path, "three"),
        (plain.path / ".git", None, "three"),
        (tmp_path / "linked", tmp_path / "linked", "one"),
        (tmp_path / "bare.git", None, "three"),
        (tmp_path / "shared", tmp_path / "shared", "three"),
    ):
        with Repository.open(path) as repository:
            assert repository.work_tree == work_tree, path
            assert repository.resolve("HEAD").subject == subject, path
            assert repository.resolve("v1").oid == history["one"]


def test_a_work_tree_that_is_not_around_the_path(plain: Plain, tmp_path: Path) -> None:
    plain.commit("one", a="A\n")
    plain("config", "core.worktree", "/etc")
    with Repository.open(plain.path) as repository:
        assert repository.work_tree is None
        assert [commit.subject for commit in repository.commits(["a"], 9)] == ["one"]


@pytest.mark.parametrize("bare", [False, True])
def test_a_path_of_several_lines(tmp_path: Path, bare: bool) -> None:
    made = new_repository(tmp_path / "a\nsha256\n", *["--bare"] * bare)
    with Repository.open(made.path) as repository:
        assert repository.work_tree == (None if bare else made.path)
        assert repository.git_dir == (made.path if bare else made.path / ".git")
        oid = made("hash-object", "-w", "--stdin", stdin=b"x").strip()
        assert repository.objects.read(oid) == b"x"


def test_the_directory_that_it_was_opened_from_may_go(plain: Plain) -> None:
    plain.commit("one", sub__a="A\n")
    with Repository.open(plain.path / "sub") as repository:
        shutil.rmtree(plain.path / "sub")
        assert repository.resolve("HEAD").subject == "one"


def test_what_is_not(tmp_path: Path) -> None:
    with pytest.raises(RepositoryUnusable, match="is in no git repository"):
        Repository.open(tmp_path)
    broken = new_repository(tmp_path / "broken")
    (broken.path / ".git/config").write_text("[core\n")
    with pytest.raises(RepositoryUnusable, match=r"git cannot read the repository of .*bad config"):
        Repository.open(broken.path)


def test_without_git(plain: Plain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RepositoryUnusable, match="install git"):
        Repository.open(plain.path)


def test_names_of_commits(plain: Plain, history: dict[str, str]) -> None:
    with Repository.open(plain.path) as repository:
        for rev, name in {
            "main": "three", "HEAD": "three", "@": "three", "HEAD~2": "one", "main^": "two", "side": "two",
            "v1": "one", "v1-again": "one", "v1^{}": "one", "refs/tags/v1": "one", "tags/v2.0": "two",
            "heads/side~1": "one", history["two"]: "two", history["two"][:9]: "two", "main@{1}": "two",
            ":/two": "two", "HEAD^{/one}": "one", "v2.0-0-g" + history["two"][:8]: "two",
        }.items():  # fmt: skip
            assert repository.resolve(rev).oid == history[name], rev


def test_what_a_commit_says(plain: Plain, history: dict[str, str]) -> None:
    with Repository.open(plain.path) as repository:
        commit = repository.resolve("side")
    assert (commit.time, commit.author, commit.subject) == (1_700_000_100, "Ada Author", "two")
    assert commit.tree == plain("rev-parse", "side^{tree}")


@pytest.mark.parametrize(
    ("rev", "message"),
    [
        ("mian", r"no revision 'mian' in .*; did you mean main\?$"),
        ("v2", r"did you mean v2\.0"),
        ("tidy-minx", r"did you mean tidy-mink"),
        ("topic", r"did you mean origin/topic"),
        ("zzzzzzz", r"no revision 'zzzzzzz' in \S+$"),
        ("HEAD~9", "no revision 'HEAD~9'"),
        ("HEAD:sub", "'HEAD:sub' names a tree, not a commit"),
        ("HEAD:a", "'HEAD:a' names a blob, not a commit"),
        ("main^{tree}", "names a tree"),
        ("^main", "is not one revision"),
        ("v1..main", "no revision"),
        ("0" * 40, "no commit 0000.*; git fetch it first"),
    ],
)
def test_names_that_are_none(rev: str, message: str, plain: Plain, history: dict[str, str]) -> None:
    plain("update-ref", "refs/remotes/origin/topic", "HEAD")
    plain("update-ref", f"refs/exps/{history['one'][:2]}/{history['one'][2:]}/tidy-mink", "HEAD")
    with Repository.open(plain.path) as repository, pytest.raises(RevisionUnknown, match=message) as refused:
        repository.resolve(rev)
    assert "\n" not in str(refused.value)


def test_an_empty_repository(plain: Plain) -> None:
    with Repository.open(plain.path) as repository:
        assert repository.names() == []
        with pytest.raises(RevisionUnknown, match="no tags and no branches"):
            repository.resolve("HEAD")


def test_names_that_are_two(plain: Plain, history: dict[str, str]) -> None:
    plain("tag", "both", "v1")
    plain("branch", "same", "v1")
    plain("tag", "same", "v1")
    plain("branch", "both", "side")
    with Repository.open(plain.path) as repository:
        with pytest.raises(RevisionUnknown, match="a tag that differ; say heads/both or tags/both"):
            repository.resolve("both")
        with pytest.raises(RevisionUnknown, match="heads/both or tags/both"):
            repository.resolve("both~0")
        assert repository.resolve("tags/both").oid == history["one"]
        assert repository.resolve("heads/both").oid == history["two"]
        assert repository.resolve("same").oid == history["one"]
        assert repository.names("*bot*") == ["heads/both", "tags/both"]


def test_digits_that_begin_several_names(plain: Plain) -> None:
    plain.commit("one")
    oids = [plain("hash-object", "-w", "--stdin", stdin=b"%d" % number) for number in range(100)]
    prefixes = [oid[:4] for oid in oids]
    # Two of a hundred rarely share four digits: make blobs until two do.
    number = 100
    while len(set(prefixes)) == len(prefixes):
        batch = "".join(f"blob\nmark :{n}\ndata {len(str(n))}\n{n}\n" for n in range(number, number + 900))
        plain("fast-import", "--quiet", stdin=batch.encode())
        listing = plain("cat-file", "--batch-all-objects", "--batch-check=%(objectname)")
        prefixes = [oid[:4] for oid in listing.splitlines()]
        number += 900
    shared = next(prefix for prefix in prefixes if prefixes.count(prefix) > 1)
    with (
        Repository.open(plain.path) as repository,
        pytest.raises(RevisionUnknown, match="more of its"),
    ):
        repository.resolve(shared)


def test_experiments(plain: Plain, history: dict[str, str]) -> None:
    def add(baseline: str, name: str, oid: str) -> None:
        plain("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", oid)

    add(history["one"], "tidy-mink", history["two"])
    add(history["one"], "lean-oryx", history["two"])
    add(history["three"], "lean-oryx", history["one"])
    add(history["one"], "gray-moth", history["two"])
    add(history["two"], "gray-moth", history["one"])
    add(history["one"], "side", history["one"])
    plain("update-ref", "refs/exps/exec/EXEC_HEAD", "HEAD")
    plain("update-ref", "refs/exps/stash", "HEAD")
    with Repository.open(plain.path) as repository:
        assert repository.resolve("tidy-mink").oid == history["two"]
        assert repository.resolve("lean-oryx").oid == history["one"], "the one whose baseline is HEAD"
        assert repository.resolve("side").oid == history["two"], "what git knows comes first"
        with pytest.raises(RevisionUnknown, match=r"2 experiments are .*; give one in full: refs/exps/"):
            repository.resolve("gray-moth")
        for name in ("EXEC_HEAD", "stash", "exec"):
            with pytest.raises(RevisionUnknown):
                repository.resolve(name)


def test_names_by_pattern(plain: Plain, history: dict[str, str]) -> None:
    plain("tag", "release/v3")
    with Repository.open(plain.path) as repository:
        assert repository.names() == ["main", "release/v3", "side", "v1", "v1-again", "v2.0"]
        assert repository.names("v*") == ["v1", "v1-again", "v2.0"]
        assert repository.names("*v?") == ["release/v3", "v1"]
        plain("tag", "v9")
        assert "v9" in repository.names("v*")


def test_history_of_paths(plain: Plain, history: dict[str, str]) -> None:
    with Repository.open(plain.path) as repository:
        assert [commit.subject for commit in repository.commits(["a"], 10)] == ["three", "one"]
        assert [commit.subject for commit in repository.commits(["a", "b"], 2)] == ["three", "two"]
        assert [commit.subject for commit in repository.commits(["a"], 10, "side")] == ["one"]
        assert [commit.subject for commit in repository.commits(["sub"], 10)] == ["three"]
        assert repository.commits(["none"], 10) == []
        assert len(repository.commits([], 10)) == 3


def test_where_it_came_from(plain: Plain) -> None:
    with Repository.open(plain.path) as repository:
        assert repository.remote_url is None
        plain("remote", "add", "origin", "https://example.org/x")
        plain("config", "url.https://elsewhere/.insteadOf", "https://example.org/")
        assert repository.remote_url == "https://example.org/x"


def test_replacements_do_not_count(plain: Plain, history: dict[str, str]) -> None:
    plain("replace", history["three"], history["one"])
    assert plain("log", "-1", "--format=%s") == "one"
    with Repository.open(plain.path) as repository:
        assert repository.resolve("HEAD").subject == "three"


def test_reading_leaves_the_repository_alone(plain: Plain, history: dict[str, str]) -> None:
    """Not even the index is refreshed, and a lock that somebody holds is no obstacle."""
    (plain.path / "a").write_text("dirty\n")
    (plain.path / ".git/index.lock").touch()

    def state() -> list[tuple[str, int, int]]:
        paths = sorted(plain.path.rglob("*"))
        return [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths]

    before = state()
    with Repository.open(plain.path) as repository:
        commit = repository.resolve("HEAD")
        repository.names()
        repository.commits(["a"], 9)
        repository.trees.read(commit.tree)
    assert state() == before


def test_sha256(tmp_path: Path) -> None:
    plain = new_repository(tmp_path / "repo", "--object-format=sha256")
    oid = plain.commit("one", a="A\n")
    with Repository.open(plain.path) as repository:
        assert repository.resolve("main").oid == oid
        assert repository.resolve(oid[:10]).subject == "one"
        assert [commit.oid for commit in repository.commits(["a"], 1)] == [oid]
        with pytest.raises(RepositoryUnusable, match="is not the name of a git object"):
            repository.objects.read("0" * 40)


def test_reftable(tmp_path: Path) -> None:
    known = subprocess.run(
        ["git", "init", "--quiet", "--ref-format=reftable", str(tmp_path / "probe")],
        capture_output=True,
        check=False,
    )
    if known.returncode != 0:
        pytest.skip("this git has no reftable (it came with 2.45)")
    plain = new_repository(tmp_path / "repo", "--ref-format=reftable")
    oid = plain.commit("one", a="A\n")
    plain("tag", "v1")
    with Repository.open(plain.path) as repository:
        assert repository.resolve("v1").oid == oid
        assert repository.names() == ["main", "v1"]


def test_a_repository_that_goes_away(plain: Plain, history: dict[str, str]) -> None:
    with Repository.open(plain.path) as repository:
        shutil.rmtree(plain.path)
        with pytest.raises(RepositoryUnusable):
            repository.resolve("main")


TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def commit_text(author: bytes = b"A <a> 1 +0000", rest: bytes = b"", message: bytes = b"m\n") -> bytes:
    return b"tree %s\nauthor %s\ncommitter C <c> 7 +0000\n%s\n%s" % (TREE.encode(), author, rest, message)


@pytest.mark.parametrize(
    ("data", "author", "subject"),
    [
        (commit_text(), "A", "m"),
        (commit_text(b"<only@mail> 1 +0000"), "only@mail", "m"),
        (commit_text(b"no brackets"), "no brackets", "m"),
        (commit_text(message=b"\n\nfirst\nsecond\n\nbody"), "A", "first second"),
        (commit_text(message=b"\x1b[31mred\x07"), "A", "?[31mred?"),
        (commit_text(message=b"\xff"), "A", "\N{REPLACEMENT CHARACTER}"),
        (commit_text(b"\xe9 <a> 1 +0000", b"encoding latin1\n", b"\xe4"), "é", "ä"),
        (commit_text(rest=b"encoding zip\n"), "A", "m"),
        (commit_text(rest=b"encoding \xff\n"), "A", "m"),
        (commit_text(rest=b"gpgsig x\n tree nothing\n author nobody\n"), "A", "m"),
        (commit_text(message=b""), "A", ""),
        (commit_text(message=b"x" * 5000), "A", "x" * 999 + "…"),
    ],
)
def test_commits_as_they_come(data: bytes, author: str, subject: str) -> None:
    commit = parse_commit(data, "0" * 40)
    assert (commit.author, commit.subject, commit.time, commit.tree) == (author, subject, 7, TREE)


def test_a_commit_with_times_that_make_no_sense() -> None:
    for time in (b"9" * 30, b"", b"x"):
        data = commit_text().replace(b"> 7 ", b"> " + time + b" ")
        assert parse_commit(data, "0" * 40).time == 0


@pytest.mark.parametrize("data", [b"", b"tree x\n\nm", b"author A <a> 1 +0000\n\nm", b"tree " + b"0" * 64])
def test_commits_that_are_none(data: bytes) -> None:
    with pytest.raises(ObjectCorrupt, match="names no tree"):
        parse_commit(data, "0" * 40)
