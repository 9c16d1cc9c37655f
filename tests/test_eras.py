"""The repositories in `fixtures/eras` are what they say they are."""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store.dvc.metafile import parse_dvc_file
from tests.eras import ERAS, Era, FileFact, unpack

Unpack = Callable[[str], Era]

METAFILES = {".dvcignore", "dvc.lock", "dvc.yaml", "photos.dvc"}
EVERY_ERA = pytest.mark.parametrize("name", ERAS)


@pytest.fixture
def fixture(tmp_path: Path) -> Unpack:
    return lambda name: unpack(name, tmp_path / name)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """The output of a program that must succeed, away from this machine's configuration."""
    home = tmp_path / "home"
    env = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "XDG_CONFIG_DIRS": str(home),
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "LC_ALL": "C.UTF-8",
    }

    def run(directory: Path, *command: str) -> str:
        assert shutil.which(command[0], path=env["PATH"]), (
            f"{command[0]} is missing; scripts/setup installs it"
        )
        done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@EVERY_ERA
def test_the_repository_is_whole_and_has_all_tags(
    name: str, fixture: Unpack, run: Callable[..., str]
) -> None:
    era = fixture(name)
    run(era.repository, "git", "fsck", "--strict", "--no-dangling")
    assert set(run(era.repository, "git", "tag").split()) == set(era.tags)
    references = run(era.repository, "git", "for-each-ref", "--format=%(refname)", "refs/exps/").split()
    assert {name for name in references if not name.startswith("refs/exps/exec/")} == set(era.experiments)
    assert run(era.repository, "git", "status", "--porcelain", "--untracked-files=no") == ""


@EVERY_ERA
def test_nothing_tells_who_made_it_or_where(name: str, fixture: Unpack, run: Callable[..., str]) -> None:
    era = fixture(name)
    people = run(era.repository, "git", "log", "--all", "--format=%an %ae %cn %ce%n").split("\n")
    assert {line for line in people if line} == {"Ada Example ada@example.org Ada Example ada@example.org"}
    for path in files_below(era.directory):
        if ".git" not in path.parts:
            data = path.read_bytes()
            assert not [word for word in (b"/root/", b"/home/", b"/tmp/", b"/work/") if word in data], path


@EVERY_ERA
def test_git_files_of_a_listing_are_those_of_the_revision(
    name: str, fixture: Unpack, run: Callable[..., str]
) -> None:
    era = fixture(name)
    for revision in (*era.tags, *era.experiments):
        tree = run(era.repository, "git", "ls-tree", "-r", "-z", revision).rstrip("\0").split("\0")
        modes = {entry.partition("\t")[2]: entry.split()[0] for entry in tree}
        listing = {path: fact for path, fact in era.listing(revision).items() if fact.git}
        assert {path: mode_of(fact) for path, fact in listing.items()} == modes


@EVERY_ERA
def test_the_work_tree_is_the_listing_of_the_last_tag(name: str, fixture: Unpack) -> None:
    era = fixture(name)
    listing = era.listing(era.tags[-1])
    for path, fact in listing.items():
        assert fact_of(era.repository / path, fact.git) == fact, path
    found = {path.relative_to(era.repository) for path in files_below(era.repository)}
    files = {Path(path) for path, fact in listing.items() if fact.md5}
    assert {path for path in found if not {".git", ".dvc"} & set(path.parts)} <= files


@EVERY_ERA
def test_all_data_of_all_revisions_are_in_a_cache(name: str, fixture: Unpack) -> None:
    era = fixture(name)
    stored = set()
    for path in files_below(era.directory):
        if {"cache", "remote"} & set(path.parts):
            stored.add(hashlib.md5(path.read_bytes()).hexdigest())
            assert stat.S_IMODE(path.stat().st_mode) in (0o444, 0o644)
    for snapshot in era.snapshots:
        data = {path: fact for path, fact in snapshot.files.items() if fact.md5 and not fact.git}
        lost = {path for path, fact in data.items() if fact.md5 not in stored}
        # Without git, nothing but their names tells metafiles from data.
        assert lost <= (set() if snapshot.revision else METAFILES), snapshot.revision


@EVERY_ERA
def test_metafiles_of_every_revision_can_be_read(name: str, fixture: Unpack, run: Callable[..., str]) -> None:
    era = fixture(name)
    read = 0
    for tag in era.tags:
        listing = era.listing(tag)
        for path in (path for path, fact in listing.items() if path.endswith(".dvc") and fact.git):
            if path.startswith("hidden/"):
                continue  # broken, which .dvcignore keeps from being seen
            data = run(era.repository, "git", "show", f"{tag}:{path}").encode()
            for output in parse_dvc_file(data, path):
                where = posixpath.normpath(posixpath.join(posixpath.dirname(path), output.path))
                if output.oid and output.cached and not output.is_dir:
                    assert where in listing
                    assert output.size in (None, listing[where].size)
                read += 1
    assert read


def test_the_newest_release_finds_nothing_changed(fixture: Unpack, run: Callable[..., str]) -> None:
    era = fixture("3")
    run(era.repository, "dvc", "checkout", "--force")
    assert "up to date" in run(era.repository, "dvc", "status")
    run(era.no_scm, "dvc", "checkout", "--force")
    assert "up to date" in run(era.no_scm, "dvc", "status")


def test_each_era_is_of_its_releases(fixture: Unpack) -> None:
    made_by = {name: [snapshot.dvc for snapshot in fixture(name).snapshots] for name in ERAS}
    assert {name: sorted(set(releases)) for name, releases in made_by.items()} == {
        "0.94": ["0.94.1"],
        "1.11": ["1.11.16"],
        "2.58": ["2.58.2"],
        "3": ["3.67.1"],
        "cloud": ["3.67.1"],
        "upgraded": ["0.94.1", "1.11.16", "2.58.2", "3.67.1"],
    }


def files_below(directory: Path) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())


def mode_of(fact: FileFact) -> str:
    """The mode that git writes for it."""
    if fact.link:
        return "120000"
    if fact.is_directory:
        return "160000"
    return "100755" if fact.executable else "100644"


def fact_of(path: Path, git: bool) -> FileFact:
    if path.is_symlink():
        return FileFact("", 0, False, str(path.readlink()), False, git)
    if path.is_dir():
        return FileFact("", 0, False, "", True, git)
    data = path.read_bytes()
    executable = bool(path.stat().st_mode & stat.S_IXUSR)
    return FileFact(hashlib.md5(data).hexdigest(), len(data), executable, "", False, git)
