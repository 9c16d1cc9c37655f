"""Walking long and forked histories, and finding what a target is at their commits."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from store.git.repository import Repository
from store.git.walk import Step, walk_history
from store.history import Followed, LoggedVersion, read_history
from store.local_cache import LocalCache
from store.tracker import open_tracker
from store.tree_cache import TreeCache


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("GIT_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)


def git(root: Path, *words: str, stdin: bytes = b"") -> str:
    done = subprocess.run(["git", *words], cwd=root, input=stdin, capture_output=True, timeout=60, check=True)
    return done.stdout.decode().strip()


class Script:
    """Commits for `git fast-import`, a minute apart."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._mark = 0

    def commit(self, files: dict[str, str], *, parents: tuple[int, ...] = (), branch: str = "main") -> int:
        """Add a commit on top of `parents` (marks); its mark."""
        self._mark += 1
        when = 1_700_000_000 + 60 * self._mark
        self._lines += [
            f"commit refs/heads/{branch}\nmark :{self._mark}\n".encode(),
            f"committer A <a@example.org> {when} +0000\ndata 0\n".encode(),
        ]
        for place, parent in enumerate(parents):
            self._lines.append(f"{'merge' if place else 'from'} :{parent}\n".encode())
        for path, text in files.items():
            data = text.encode()
            self._lines.append(f"M 100644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n")
        return self._mark

    def run(self, root: Path) -> None:
        root.mkdir()
        git(root, "init", "--quiet", "--initial-branch=main")
        git(root, "fast-import", "--quiet", stdin=b"".join(self._lines))


def metafile(number: int) -> str:
    """A `.dvc` file whose manifest is nowhere."""
    return f"outs:\n- md5: {number:032x}.dir\n  size: {number}\n  nfiles: 1\n  hash: md5\n  path: data\n"


def read(root: Path, path: str, tmp_path: Path, rev: str = "main") -> list[LoggedVersion]:
    with Repository.open(root) as repository:
        commit = repository.resolve(rev)
        tracker = open_tracker(repository, commit, path, path)
        caches = LocalCache(tmp_path / "cache"), TreeCache(tmp_path / "trees")
        return list(read_history(Followed(repository, tracker, commit, *caches, path)))


def test_a_long_history_is_walked_in_parts(tmp_path: Path) -> None:
    script = Script()
    last: tuple[int, ...] = ()
    for number in range(900):
        last = (
            script.commit({"a": f"{number}\n"} if number % 3 == 0 else {"b": f"{number}\n"}, parents=last),
        )
    script.run(tmp_path / "repo")
    with Repository.open(tmp_path / "repo") as repository:
        head = repository.resolve("main").oid
        every = list(walk_history(repository, head, ()))
        some = list(walk_history(repository, head, ["a"]))
    listed = git(tmp_path / "repo", "rev-list", "main").split()
    assert [step.oid for step in every] == listed
    assert [step.parents for step in every] == [(oid,) for oid in listed[1:]] + [()]
    assert len(some) == 300
    # What a step followed is the one before it that touched the path.
    assert [step.parents for step in some] == [(step.oid,) for step in some[1:]] + [()]


def test_paths_are_literal(tmp_path: Path) -> None:
    script = Script()
    first = script.commit({"*": "1", "a": "1"})
    script.commit({"a": "2"}, parents=(first,))
    script.run(tmp_path / "repo")
    with Repository.open(tmp_path / "repo") as repository:
        steps: list[Step] = list(walk_history(repository, repository.resolve("main").oid, ["*"]))
    assert len(steps) == 1


def test_many_versions_without_manifests(tmp_path: Path) -> None:
    script = Script()
    last: tuple[int, ...] = ()
    for number in range(400):
        last = (script.commit({"data.dvc": metafile(number // 2)}, parents=last),)
    script.run(tmp_path / "repo")
    versions = read(tmp_path / "repo", "data", tmp_path)
    assert [version.total for version in versions] == [(1, number) for number in reversed(range(200))]
    assert {version.delta for version in versions[:-1]} == {None}
    # Of the first nothing need be compared.
    assert versions[-1].delta is not None
    assert versions[-1].delta.added == (1, 0)


def test_a_merge_is_a_version_if_it_is_like_neither_side(tmp_path: Path) -> None:
    script = Script()
    base = script.commit({"data.dvc": metafile(1)})
    left = script.commit({"data.dvc": metafile(2)}, parents=(base,))
    right = script.commit({"data.dvc": metafile(3)}, parents=(base,), branch="side")
    merged = script.commit({"data.dvc": metafile(4)}, parents=(left, right))
    script.commit({"other": "x"}, parents=(merged,))
    script.run(tmp_path / "repo")
    assert [v.total.size for v in read(tmp_path / "repo", "data", tmp_path)] == [4, 3, 2, 1]


def test_a_merge_that_takes_a_side_is_none(tmp_path: Path) -> None:
    script = Script()
    base = script.commit({"data.dvc": metafile(1)})
    left = script.commit({"other": "x"}, parents=(base,))
    right = script.commit({"data.dvc": metafile(2)}, parents=(base,), branch="side")
    script.commit({"data.dvc": metafile(2)}, parents=(left, right))
    script.run(tmp_path / "repo")
    for path, sizes in (("data", [2, 1]), ("data.dvc", [2, 1])):
        assert [v.total.size for v in read(tmp_path / "repo", path, tmp_path)] == sizes


def test_moving_to_another_algorithm_is_no_version(tmp_path: Path) -> None:
    script = Script()
    old = "outs:\n- md5: 0123456789abcdef0123456789abcdef\n  path: one\n"
    first = script.commit({"one.dvc": old})
    script.commit({"one.dvc": old + "  hash: md5\n  size: 5\n"}, parents=(first,))
    script.run(tmp_path / "repo")
    [version] = read(tmp_path / "repo", "one", tmp_path)
    assert version.commit.oid == git(tmp_path / "repo", "rev-parse", "main~1")
    assert version.total == (1, None)


def test_an_output_of_a_locked_stage(tmp_path: Path) -> None:
    yaml = "stages:\n  make:\n    cmd: make\n    outs:\n    - out\n    - other\n"

    def lock(out: int, other: int) -> str:
        outs = "".join(
            f"    - path: {path}\n      hash: md5\n      md5: {number:032x}\n      size: {number}\n"
            for path, number in (("out", out), ("other", other))
        )
        return f"schema: '2.0'\nstages:\n  make:\n    cmd: make\n    outs:\n{outs}"

    script = Script()
    last: tuple[int, ...] = ()
    for out, other in ((1, 1), (1, 2), (2, 2)):
        last = (script.commit({"p/dvc.yaml": yaml, "p/dvc.lock": lock(out, other)}, parents=last),)
    script.run(tmp_path / "repo")
    assert [v.total.size for v in read(tmp_path / "repo", "p/out", tmp_path)] == [2, 1]
    assert [v.total.size for v in read(tmp_path / "repo", "p/other", tmp_path)] == [2, 1]


def test_an_output_that_a_metafile_elsewhere_puts_into_a_directory(tmp_path: Path) -> None:
    script = Script()
    outs = "outs:\n- md5: {:032x}\n  size: 1\n  hash: md5\n  path: x\nwdir: d\n"
    first = script.commit({"x.dvc": outs.format(1), "d/here": "1"})
    second = script.commit({"x.dvc": outs.format(2)}, parents=(first,))
    script.commit({"unrelated": "1"}, parents=(second,))
    script.run(tmp_path / "repo")
    versions = read(tmp_path / "repo", "d", tmp_path)
    assert len(versions) == 2
    assert versions[0].delta is not None
    assert (versions[0].delta.changed.files, versions[0].delta.added.files) == (1, 0)
