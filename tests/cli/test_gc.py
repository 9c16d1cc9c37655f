"""`fusefs gc`: what is kept is told by work trees and revisions, and nothing goes on a guess."""

from __future__ import annotations

import fcntl
import os
import shutil
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fusefs import collecting
from fusefs.cli.gc_report import Ticker
from store.collecting import cache_side
from store.keeping.cache_locks import keep_away_eviction
from tests.cli.conftest import V1, V2, V3, Command, Done, Project, run_tool
from tests.mount.datasets import md5

NOW = ("--grace", "0")
NAMED = {name: set(map(md5, files.values())) for name, files in (("v1", V1), ("v2", V2), ("v3", V3))}


@dataclass(frozen=True, slots=True)
class Place:
    """A project whose cache has all three versions, and its remote, which may have some."""

    project: Project
    remote: Path
    command: Command

    @property
    def root(self) -> Path:
        return self.project.root

    def gc(self, *words: str | Path, status: int = 0) -> Done:
        done = self.command("gc", *NOW, *words, cwd=self.root)
        assert done.status == status, done.stderr
        return done

    def refused(self, *words: str | Path) -> str:
        """The one line that it says; nothing has changed."""
        before = self.cached(), self.pushed()
        done = self.gc(*words, "--yes", status=1)
        assert (self.cached(), self.pushed()) == before
        [line] = done.stderr.splitlines()
        return line

    def push(self, *targets: str) -> None:
        for target in targets:
            assert self.command("push", target, cwd=self.root).status == 0

    def cached(self) -> set[str]:
        return files_in(self.root / ".dvc/cache")

    def pushed(self) -> set[str]:
        return files_in(self.remote)

    def object(self, oid: str) -> Path:
        return self.root / ".dvc/cache/files/md5" / oid[:2] / oid[2:]


def files_in(root: Path) -> set[str]:
    """The objects of files."""
    places = [path for path in (root / "files").rglob("*") if path.is_file() and path.suffix != ".dir"]
    return {path.parent.name + path.name for path in places}


@pytest.fixture
def place(history: Project, command: Command, tmp_path: Path) -> Place:
    remote = tmp_path / "remote"
    text = f"[core]\nremote = near\n['remote \"near\"']\nurl = {remote}\n"
    (history.root / ".dvc/config").write_text(text)
    (history.root / "data.dvc").touch()
    return Place(history, remote, command)


def test_a_plan_deletes_nothing_and_says_what_it_would(place: Place) -> None:
    place.push("data@v1", "data@v2")
    before = place.cached()
    told = place.gc("--json").json
    lost = (NAMED["v1"] | NAMED["v2"]) - NAMED["v3"]
    assert told["dry_run"] and told["garbage"]["kinds"]["files"]["objects"] == len(lost)
    assert told["garbage"]["kinds"]["manifests"]["objects"] == 2
    assert told["deleted"]["objects"] == 0 and place.cached() == before
    assert "nothing was deleted" in place.gc("--dry-run").stdout
    assert place.command("gc", "--json", cwd=place.root).json["garbage"]["objects"] == 0  # all is young
    assert not (place.root / ".dvc/cache/fusefs/evicting.lock").exists()


def test_the_cache_keeps_what_no_remote_has(place: Place) -> None:
    place.push("data@v1")
    told = place.gc("--yes", "--json").json
    assert place.cached() == NAMED["v3"] | (NAMED["v2"] - NAMED["v1"])
    assert told["stays"]["unpushed"]["objects"] == 1  # the manifest of v2: the files are in v3
    assert told["deleted"]["objects"] == 1 + len(NAMED["v1"] - NAMED["v3"])
    place.gc("--yes", "--unpushed")
    assert place.cached() == NAMED["v3"]
    assert place.command("ls", "data", cwd=place.root).status == 0


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ((), {"v3"}),
        (("--rev", "v1"), {"v1", "v3"}),
        (("--all-tags",), {"v1", "v2", "v3"}),
        (("--all-branches",), {"v2", "v3"}),
        (("--all-commits",), {"v1", "v2", "v3"}),
        (("--all-experiments",), {"v1", "v3"}),
    ],
)
def test_revisions_that_are_kept(place: Place, words: tuple[str, ...], kept: set[str]) -> None:
    place.project.git("branch", "old", "v2")
    place.project.git("update-ref", "refs/exps/ab/" + "c" * 38 + "/lucky", "v1")
    if words == ("--all-commits",):  # nothing but a reference of an unusual kind leads there
        place.project.git("update-ref", "refs/unusual/one", "v1")
        for tag in ("v1", "v2"):
            place.project.git("tag", "--delete", tag)
    place.gc("--yes", "--unpushed", *words)
    assert place.cached() == set().union(*(NAMED[name] for name in kept))


def test_some_commits_of_each_branch_or_since_a_day(place: Place) -> None:
    git = place.project.git
    git("branch", "old", "v2")
    for tag in ("v1", "v2"):
        git("tag", "--delete", tag)

    def kept(*words: str) -> int:
        told = place.gc("--json", "--unpushed", *words).json
        return int(told["garbage"]["kinds"]["manifests"]["objects"])

    # The first of them is two commits before the branch: a note stands between.
    assert [kept("-a", "--num", count) for count in ("1", "2", "3")] == [1, 1, 0]
    assert kept("--rev", "old", "-n", "99") == 0
    assert [kept("--date", "2000-01-01"), kept("--date", "2999-12-31")] == [0, 2]
    done = place.gc("--num", "2", status=2)
    assert "--rev or --all-branches" in done.stderr
    for words in (("--num", "0"), ("--date", "tomorrow"), ("--date", "2024-13-01")):
        with pytest.raises(SystemExit, match="2"):
            place.gc("-a", *words)


def test_a_terminal_is_told_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    ticker = Ticker(Namespace(json=False))
    ticker.clear()
    assert capsys.readouterr().err == ""
    ticker.progress.begin("deleting", 7)
    ticker.progress.done = 3
    ticker()
    ticker()  # too soon
    assert capsys.readouterr().err == "\rdeleting: 3 of 7\x1b[K"
    ticker.clear()
    assert capsys.readouterr().err == "\r\x1b[K"
    silent = Ticker(Namespace(json=True))
    silent()
    assert capsys.readouterr().err == ""


def test_other_work_trees_are_kept_detached_or_gone(place: Place, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shutil.move(place.root / ".dvc/cache", shared)
    config = place.root / ".dvc/config"
    config.write_text(config.read_text() + f"[cache]\ndir = {shared}\n")
    place.project.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "detached"), "v1")
    place.project.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "gone"), "v2")
    shutil.rmtree(tmp_path / "gone")
    done = place.gc("--unpushed", "--yes")
    assert "the work tree" in done.stderr and "is not there" in done.stderr
    assert files_in(shared) == NAMED["v1"] | NAMED["v2"] | NAMED["v3"]
    place.project.git("worktree", "prune")
    # What is in the other work tree and not committed counts as well.
    place.project.git("tag", "--delete", "v2")
    (tmp_path / "detached/other.dvc").write_text((place.root / "data.dvc").read_text())
    (tmp_path / "detached/data.dvc").unlink()
    place.project.git("update-ref", "--no-deref", "refs/heads/unused", "v1")
    place.gc("--unpushed", "--yes")
    assert files_in(shared) == NAMED["v1"] | NAMED["v3"]


def test_what_cannot_be_read_names_anything(place: Place) -> None:
    good = (place.root / "data.dvc").read_text()
    (place.root / "bad.dvc").write_text(f"<<<<<<< ours\n{good}=======\n>>>>>>> theirs\n")
    assert "bad.dvc" in place.refused("--unpushed")
    place.project.commit("A conflict", "bad")
    (place.root / "bad.dvc").unlink()
    place.project.commit("No conflict")
    assert "bad.dvc" in place.refused("--unpushed", "-A")
    place.gc("--unpushed", "--yes")  # that revision is not kept


def test_a_manifest_that_cannot_be_had_is_not_an_empty_one(place: Place) -> None:
    oid = place.command("log", "data", "--json", cwd=place.root).json[-1]["oid"]
    place.object(oid).unlink()
    place.remote.mkdir()
    line = place.refused("--unpushed", "-T")
    assert oid in line and "data.dvc in commit" in line and f"--without {oid}" in line
    place.gc("--unpushed", "-T", "--without", oid, "--yes")
    assert place.cached() == NAMED["v2"] | NAMED["v3"]


def test_manifests_are_brought_from_remotes(place: Place) -> None:
    place.push("data@v1")
    oid = place.command("log", "data", "--json", cwd=place.root).json[-1]["oid"]
    place.object(oid).unlink()
    place.gc("--unpushed", "-T", "--yes")
    assert place.cached() == NAMED["v1"] | NAMED["v2"] | NAMED["v3"]


def test_a_shallow_clone_does_not_know_enough(place: Place, tmp_path: Path) -> None:
    place.push("data@v1", "data@v3")
    clone = tmp_path / "clone"
    place.project.git("clone", "--quiet", "--depth=1", f"file://{place.root}", str(clone))
    shutil.copytree(place.root / ".dvc/cache", clone / ".dvc/cache")
    (clone / ".dvc/config").write_text((place.root / ".dvc/config").read_text())
    shallow = Place(Project(clone), place.remote, place.command)
    assert "shallow clone" in shallow.refused("-T")
    assert "shallow clone" in shallow.refused("-w", "--remote", "near")
    shallow.gc("--yes")


def test_what_is_open_or_has_other_names_stays(place: Place, tmp_path: Path) -> None:
    [opened, linked, *_] = sorted(NAMED["v1"] - NAMED["v3"] | {md5(b"333\n")})
    os.link(place.object(linked), tmp_path / "link")
    with open(place.object(opened), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        told = place.gc("--unpushed", "--yes", "--json").json
    assert told["stays"]["open"]["objects"] == told["stays"]["pinned"]["objects"] == 1
    assert place.cached() == NAMED["v3"] | {opened, linked}


def test_commits_keep_it_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(cache_side, "LOCK_SECONDS", 0.1)
    lock = place.root / ".dvc/tmp/lock"
    lock.parent.mkdir(exist_ok=True)
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "lock" in place.refused("--unpushed")
    with keep_away_eviction(place.root / ".dvc/cache", 1.0) as held:
        assert held
        assert "a commit" in place.refused("--unpushed")


def test_a_directory_of_no_project_is_refused(command: Command, tmp_path: Path) -> None:
    done = command("gc", "--yes", cwd=tmp_path)
    assert (done.status, "no project" in done.stderr) == (1, True)


@pytest.mark.parametrize("words", [("--grace", "soon"), ("--without", "x"), ("--yes", "--dry-run")])
def test_wrong_usage(command: Command, tmp_path: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        command("gc", *words, cwd=tmp_path)
    assert ended.value.code == 2


def test_a_remote_is_collected_and_its_logs_know(place: Place) -> None:
    place.push("data@v1", "data@v2", "data")
    place.gc("--remote", "near", "--yes", status=2)  # what is it to keep?
    told = place.gc("--remote", "near", "--rev", "v1", "--yes", "--json").json
    assert told["deleted"]["kinds"]["manifests"]["objects"] == 1
    assert place.pushed() == NAMED["v1"] | NAMED["v3"]
    place.gc("--remote", "near", "-w", "--yes")
    assert place.pushed() == NAMED["v3"]
    gone = md5(b"1\n" if md5(b"1\n") not in NAMED["v3"] else b"333\n")
    assert place.command("remote", "where", gone, "--json", cwd=place.root).json["places"] == [
        {"remote": "cache", "oid": gone, "algorithm": "md5", "size": len(b"333\n")}
    ]
    assert place.command("remote", "fsck", "near", cwd=place.root).status == 0
    place.push("data@v1")
    assert place.pushed() == NAMED["v1"] | NAMED["v3"]


def test_other_projects_on_a_remote_have_to_be_given(place: Place, tmp_path: Path) -> None:
    place.push("data@v1", "data")
    other = Project.make(tmp_path / "other")
    (other.root / ".dvc/config").write_text((place.root / ".dvc/config").read_text())
    theirs = {"x": b"theirs", "y": b"1\n"}
    other.commit_data(theirs, "Theirs")
    assert place.command("push", "data", cwd=other.root).status == 0
    line = place.refused("--remote", "near", "-w")
    assert "uses it, too" in line and "--project" in line
    place.gc("--remote", "near", "-w", "--project", other.root, "--yes")
    assert place.pushed() == NAMED["v3"] | set(map(md5, theirs.values()))
    identity = line.partition("--without ")[2].split()[0]
    place.gc("--remote", "near", "-w", "--without", identity, "--yes")  # they are no more
    assert place.pushed() == NAMED["v3"]


def test_remotes_that_keep_files_by_their_paths_are_refused(place: Place) -> None:
    config = place.root / ".dvc/config"
    text = "['remote \"cloud\"']\nurl = s3://bucket/path\nversion_aware = true\n"
    config.write_text(config.read_text() + text)
    assert "files by their paths" in place.refused("--remote", "cloud", "-w")


def test_a_remote_that_is_the_cache_is_refused(place: Place) -> None:
    assert "leads to the cache" in place.refused("--remote", str(place.root / ".dvc/cache"), "-w")


def test_what_others_have_committed_to_a_cache_of_all_stays(place: Place, tmp_path: Path) -> None:
    """Projects without DVC share one."""
    for name in ("one", "two"):
        root = tmp_path / name
        root.mkdir()
        (root / "file").write_text(name)
        place.command("commit", "file", cwd=root)
        run_tool(root, "git", "init", "--quiet")
    place.command("commit", "file", cwd=tmp_path / "one")
    done = place.command("gc", *NOW, "--unpushed", "--yes", cwd=tmp_path / "one")
    assert (done.status, "may be anybody's" in done.stderr) == (1, True)
    told = place.command("gc", *NOW, "--yes", "--json", cwd=tmp_path / "one").json
    assert (told["deleted"]["objects"], told["stays"]["unpushed"]["objects"]) == (0, 1)
    assert "may be anybody's" in place.refused("--unpushed", "--cache", tmp_path / "elsewhere")


def test_a_cache_that_is_not_there_has_no_garbage(place: Place) -> None:
    place.push("data")
    shutil.rmtree(place.root / ".dvc/cache")
    told = place.gc("--unpushed", "--yes", "--json").json
    assert (told["there"]["objects"], told["deleted"]["objects"]) == (1, 0)  # the manifest was brought


def test_interrupted_deletions_are_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that was deleted is deleted, and the next run does the rest."""
    monkeypatch.setattr(cache_side, "BATCH", 1)
    real: Callable[..., object] = cache_side.delete_file
    count = 0

    def fail(*arguments: object) -> object:
        nonlocal count
        count += 1
        if count > 2:
            raise OSError(5, "Input/output error")
        return real(*arguments)

    monkeypatch.setattr(cache_side, "delete_file", fail)
    done = place.gc("--unpushed", "--yes", "--json", status=1)
    assert done.json["deleted"]["kinds"]["manifests"]["objects"] == 2
    assert "Input/output error" in done.stderr
    monkeypatch.undo()
