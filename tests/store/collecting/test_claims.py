"""What metafiles name, over whole histories: as much as DVC sees at each commit, and more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from store.cache_chain import CacheChain
from store.collecting.claims import Claims, HistoryClaims
from store.collecting.kept import Manifests, keep
from store.dvc.files import WorkingFiles
from store.dvc.index import find_dvc_roots, read_index
from store.dvc.project import find_project
from store.git.files import GitFiles
from store.git.reach import all_commits
from store.git.repository import Repository
from store.local_cache import LocalCache
from store.oid import MD5_DOS2UNIX, Oid
from tests.mount.datasets import md5
from tests.revisions.projects import Project, new_project

ONE, TWO, THREE, FOUR = (md5(bytes([number])) for number in range(4))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path / "project", {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})


def read_history(root: Path) -> Claims:
    """Of all commits, the newest first."""
    claims = Claims()
    with Repository.open(root) as repository:
        history = HistoryClaims(repository, claims)
        for oid in all_commits(repository, ()):
            history.read(repository.commit(oid))
    return claims


def read_tree(root: Path) -> Claims:
    claims = Claims()
    claims.read(WorkingFiles(root), find_project(root, {}).metafiles(), "here")
    return claims


def metafile(oid: str, more: str = "  hash: md5\n", path: str = "x") -> bytes:
    return f"outs:\n- md5: '{oid}'\n{more}  path: {path}\n".encode()


def needed(claims: Claims) -> set[str]:
    return {str(oid) for oid, claim in claims.found.items() if claim.needed}


def test_every_way_to_name_an_object(project: Project) -> None:
    project.write("a.dvc", metafile(ONE))
    project.write("old/b.dvc", metafile(TWO, ""))  # of DVC 2
    project.write("git.dvc", metafile(THREE, "  hash: md5\n  cache: false\n"))
    imported = b"deps:\n- path: d\n  repo:\n    url: /elsewhere\n    rev_lock: " + b"1" * 40 + b"\n"
    project.write("i.dvc", imported + metafile(FOUR))
    claims = read_tree(project.root)
    assert claims.found.keys() == {Oid(ONE), Oid(TWO, algorithm=MD5_DOS2UNIX), Oid(FOUR)}
    assert needed(claims) == {ONE, TWO} and not claims.unreadable
    project.commit()
    assert read_history(project.root).found.keys() == claims.found.keys()


def test_files_of_remotes_with_versions(project: Project) -> None:
    text = f"outs:\n- hash: md5\n  path: d\n  files:\n  - relpath: a\n    md5: {ONE}\n    size: 1\n"
    project.write("d.dvc", text.encode())
    claims = read_tree(project.root)
    assert Oid(ONE) in claims.found and len(claims.found) == 2
    assert [claim.told for claim in claims.found.values() if claim.oid.is_tree] == [True]
    nothing = Manifests(CacheChain(LocalCache(project.root / "none")), lambda oids: {})
    kept, unknown = keep(claims.found.values(), nothing, frozenset())
    assert not unknown and Oid(ONE) in kept  # the metafile tells what the manifest would


def lock(**outs: str) -> bytes:
    stages = "".join(
        f"  {stage}:\n    cmd: make\n    outs:\n"
        f"    - path: {stage}.bin\n      hash: md5\n      md5: '{oid}'\n"
        for stage, oid in outs.items()
    )
    return f"schema: '2.0'\nstages:\n{stages}".encode()


def test_a_lock_names_more_than_its_pipeline(project: Project) -> None:
    project.write("dvc.yaml", b"stages:\n  one:\n    cmd: make\n    outs: [one.bin]\n")
    project.write("dvc.lock", lock(one=ONE, gone=TWO))
    claims = read_tree(project.root)
    assert {str(oid) for oid in claims.found} == {ONE, TWO} and needed(claims) == {ONE}
    project.write("dvc.yaml", b"stages:\n  one:\n    cmd: make\n    outs: ['${nobody.knows}']\n")
    assert needed(read_tree(project.root)) == {ONE, TWO}  # what is not understood counts as DVC's view
    project.write("dvc.yaml", b"stages: [\n")
    claims = read_tree(project.root)
    assert needed(claims) == {ONE, TWO} and not claims.unreadable
    project.write("dvc.lock", b"schema: '3.0'\nstages: {}\n")
    assert "newer DVC" in read_tree(project.root).unreadable[0]
    project.commit()
    assert "dvc.lock" in read_history(project.root).unreadable[0]


def test_parameters_elsewhere_may_change_the_meaning_of_a_pipeline(project: Project) -> None:
    """The metafiles are those that were read before, and yet both outputs are named."""
    text = b"vars: [../names.yaml]\nstages:\n  one:\n    cmd: make\n    outs: ['${name}.bin']\n"
    project.write("sub/dvc.yaml", text)
    project.write("sub/dvc.lock", lock(one=ONE))
    project.write("names.yaml", b"name: one\n")
    project.commit()
    project.write("names.yaml", b"name: other\n")
    project.commit()
    assert {str(oid) for oid in read_history(project.root).found} == {ONE}


@pytest.mark.parametrize("ignored_first", [True, False])
def test_ignored_metafiles_count_where_they_are_not_ignored(project: Project, ignored_first: bool) -> None:
    project.write("sub/a.dvc", metafile(ONE))
    project.write("sub/broken.dvc", b"[")
    project.write(".dvcignore", b"sub\n")
    project.commit()
    claims = read_history(project.root)
    assert not claims.found and not claims.unreadable
    rules = [b"sub\n", b"broken.dvc\n"]
    for text in rules if ignored_first else rules[::-1]:
        project.write(".dvcignore", text)
        project.commit()
    claims = read_history(project.root)
    assert needed(claims) == {ONE} and not claims.unreadable


@pytest.mark.parametrize("enclosed_first", [True, False])
def test_metafiles_in_an_output_count_where_it_is_none(project: Project, enclosed_first: bool) -> None:
    project.write("sub/below/a.dvc", metafile(ONE))
    texts = [metafile(TWO, path="sub"), metafile(TWO, path="other")]
    for text in texts if enclosed_first else texts[::-1]:
        project.write("sub.dvc", text)
        project.commit()
    assert needed(read_history(project.root)) == {ONE, TWO}


def test_projects_within_and_links(project: Project) -> None:
    project.write("inner/.dvc/config", b"")
    project.write("inner/a.dvc", metafile(ONE))
    project.commit()
    assert needed(read_history(project.root)) == {ONE}
    (project.root / "link.dvc").symlink_to("inner/a.dvc")
    project.commit()
    assert "symlink" in read_history(project.root).unreadable[0]


@pytest.mark.parametrize("seed", range(3))
def test_a_history_names_what_each_of_its_commits_does(project: Project, seed: int) -> None:
    chance = random.Random(seed)
    places = ["a.dvc", "s/b.dvc", "s/t/c.dvc", "u/b.dvc", "s/dvc.lock", "s/dvc.yaml", ".dvcignore"]
    for number in range(14):
        if number == 7:
            project.git("checkout", "--quiet", "-b", "side", "HEAD~3")
        place = chance.choice(places)
        if chance.random() < 0.2:
            (project.root / place).unlink(missing_ok=True)
        elif place.endswith(".lock"):
            project.write(place, lock(one=md5(b"%d" % number)))
        elif place.endswith(".yaml"):
            project.write(place, b"stages:\n  one:\n    cmd: make %d\n    outs: [one.bin]\n" % number)
        elif place == ".dvcignore":
            project.write(place, chance.choice([b"s\n", b"t\n", b""]))
        else:
            project.write(place, metafile(md5(b"%d" % chance.randrange(number + 1)), path=f"x{number % 3}"))
        project.commit()
    expected: set[Oid] = set()
    with Repository.open(project.root) as repository:
        for oid in all_commits(repository, ()):
            files = GitFiles(repository, repository.commit(oid))
            for root in find_dvc_roots(files):
                index = read_index(files, root=root)
                expected |= {one.output.oid for one in index.outputs if one.output.oid is not None}
    claims = read_history(project.root)
    assert claims.found.keys() >= expected and expected
    assert not claims.unreadable
