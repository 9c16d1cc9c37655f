"""How versions are named: `TARGET@REV`, `--rev`, `--repo`, and what of a project a target may be."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest

from tests.mount.datasets import tree_of, write_folder
from tests.mount.mounts import Mounter
from tests.revisions.projects import Project, look, new_project, run_tool, state_of

pytestmark = pytest.mark.fuse

ONE = {"a.txt": b"one\n", "sub/b.txt": b"one b\n"}
TWO = {"a.txt": b"two\n", "sub/b.txt": b"one b\n", "sub/new": b""}
CODE = {"code/train.py": b"print(1)\n", "code/lib/deep.py": b"pass\n"}
REV = "user.fusefs.rev"


@pytest.fixture(scope="module")
def versions(shared_mounter: Mounter) -> Project:
    """`v1`, `annotated` and a branch on the first version; `v2`, `main` and HEAD on the second."""
    project = new_project(shared_mounter.home / "project", shared_mounter.environment)
    project.track("data", ONE)
    project.track("in/models/weights", b"weights 1", executable=True)
    for path, data in CODE.items():
        project.write(path, data, executable=path.endswith("train.py"))
    project.write("pipeline/dvc.yaml", b"stages:\n  gen:\n    cmd: make\n    outs:\n    - made\n")
    oid = project.cache.put_dataset({"x": b"made 1"})
    lock = "schema: '2.0'\nstages:\n  gen:\n    cmd: make\n    outs:\n    - path: made\n      hash: md5\n"
    project.write("pipeline/dvc.lock", f"{lock}      md5: {oid}\n".encode())
    project.write("pipeline/.gitignore", b"/made\n")
    project.commit("v1")
    project.git("tag", "--annotate", "--message", "first", "annotated")
    project.git("tag", "--annotate", "--message", "of a tag", "twice", "annotated")
    project.git("branch", "feature/old")
    project.track("data", TWO)
    project.track("in/models/weights", b"weights 2")
    project.write("code/train.py", b"print(2)\n", executable=True)
    project.commit("v2")
    experiment = project.git("commit-tree", "-p", "HEAD", "-m", "exp", "v1^{tree}").strip()
    baseline = project.head
    project.git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/brave-newt", experiment)
    return project


def mounted(mounter: Mounter, target: str | Path, *flags: str | Path, cwd: Path) -> dict[str, bytes]:
    mount = mounter.mount(target, *flags, cwd=cwd)
    found = tree_of(mount.path)
    mount.umount()
    return found


@pytest.mark.parametrize(
    ("rev", "files"),
    [
        ("annotated", ONE),
        ("feature/old", ONE),
        ("HEAD~1", ONE),
        ("brave-newt", ONE),
        ("main", TWO),
        ("v2^{commit}", TWO),
        ("HEAD@{1}", ONE),
    ],
)
def test_every_name_that_git_takes(
    mounter: Mounter, versions: Project, rev: str, files: dict[str, bytes]
) -> None:
    assert mounted(mounter, f"data@{rev}", cwd=versions.root) == files


def test_every_name_in_one_mount(mounter: Mounter, versions: Project) -> None:
    revs = mounter.mount("data.dvc", cwd=versions.root).path / ".fusefs" / "revs"
    for rev in (
        "v1",
        "annotated",
        "twice",
        "feature%2Fold",
        "refs%2Ftags%2Fv1",
        "tags%2Fv1",
        "HEAD^",
        ":%2Fv1",
    ):
        assert tree_of(revs / rev) == ONE, rev
    for rev in ("v2", "main", "heads%2Fmain", "HEAD", "@", "v2^0", "@{0}", "main@{0}", "v2~0"):
        assert tree_of(revs / rev) == TWO, rev


def test_commits_by_digits(mounter: Mounter, versions: Project) -> None:
    commit = versions.git("rev-parse", "v1").strip()
    assert mounted(mounter, f"data@{commit}", cwd=versions.root) == ONE
    mount = mounter.mount(f"data@{commit[:9]}", cwd=versions.root)
    assert tree_of(mount.path) == ONE
    assert mount.status()["rev"] == commit
    for path in ("", "a.txt", "sub", "sub/b.txt"):
        assert os.getxattr(mount.path / path, REV) == commit.encode()
        assert REV in os.listxattr(mount.path / path)


def test_the_upstream_of_a_branch(mounter: Mounter, versions: Project) -> None:
    clone = mounter.home / "clone"
    versions.git("clone", "--quiet", versions.root, clone)
    found = mounted(mounter, "data@@{upstream}", "--cache", versions.cache.root, cwd=clone)
    assert found == TWO
    assert mounted(mounter, "data@origin/feature/old", "--cache", versions.cache.root, cwd=clone) == ONE


@pytest.mark.parametrize(
    ("target", "files"),
    [
        ("data", ONE),
        ("data/", ONE),
        ("data.dvc", ONE),
        ("./code/../data", ONE),
        ("data/sub", {"b.txt": ONE["sub/b.txt"]}),
        ("data/sub/b.txt", {"b.txt": ONE["sub/b.txt"]}),
        ("in/models/weights", {"weights": b"weights 1"}),
        ("in/models/weights.dvc", {"weights": b"weights 1"}),
        ("pipeline/made", {"x": b"made 1"}),
        ("code/train.py", {"train.py": b"print(1)\n"}),
        ("code", {"train.py": b"print(1)\n", "lib/deep.py": b"pass\n"}),
        ("code/lib", {"deep.py": b"pass\n"}),
        ("in/models", {"weights": b"weights 1", "weights.dvc": b"", ".gitignore": b"/weights\n"}),
    ],
)
def test_what_of_a_project_a_target_may_be(
    mounter: Mounter, versions: Project, target: str, files: dict[str, bytes]
) -> None:
    expected = dict(files)
    if "weights.dvc" in expected:
        expected["weights.dvc"] = versions.git("show", "v1:in/models/weights.dvc").encode()
    assert mounted(mounter, f"{target}@v1", cwd=versions.root) == expected


def test_a_revision_as_an_option(mounter: Mounter, versions: Project) -> None:
    for words in (("--rev", "v1"), ("-o", "rev=v1"), ("-o", f"repo={versions.root},rev=v1")):
        assert mounted(mounter, "data", *words, cwd=versions.root) == ONE
        assert mounted(mounter, "code/lib", *words, cwd=versions.root) == {
            "deep.py": CODE["code/lib/deep.py"]
        }


def test_from_within_a_directory(mounter: Mounter, versions: Project) -> None:
    below = versions.root / "code" / "lib"
    assert mounted(mounter, "../../data@v1", cwd=below) == ONE
    assert mounted(mounter, "deep.py@v1", cwd=below) == {"deep.py": CODE["code/lib/deep.py"]}
    assert mounted(mounter, "@v1", cwd=below) == {"deep.py": CODE["code/lib/deep.py"]}
    assert mounted(mounter, ".@v1", cwd=below) == {"deep.py": CODE["code/lib/deep.py"]}
    assert mounted(mounter, versions.root / "data@v1", cwd=mounter.home) == ONE


def test_modes_of_single_files(mounter: Mounter, versions: Project) -> None:
    mount = mounter.mount("in/models/weights@v1", cwd=versions.root)
    assert look(mount.path)["weights"].executable
    mount = mounter.mount("in/models/weights@v2", cwd=versions.root)
    assert not look(mount.path)["weights"].executable
    mount = mounter.mount("code/train.py@v2", cwd=versions.root)
    assert look(mount.path)["train.py"].executable


def test_what_the_working_tree_no_longer_has(mounter: Mounter, project: Project) -> None:
    project.track("away/data", ONE)
    project.write("away/code.py", b"gone")
    project.commit("v1")
    project.git("rm", "-r", "--quiet", "away")
    project.commit("v2")
    assert not (project.root / "away").exists()
    assert mounted(mounter, "away/data@v1", cwd=project.root) == ONE
    assert mounted(mounter, "away/data/sub@v1", cwd=project.root) == {"b.txt": ONE["sub/b.txt"]}
    assert mounted(mounter, "away/code.py@v1", cwd=project.root) == {"code.py": b"gone"}


def test_names_that_hold_the_sign(mounter: Mounter, project: Project) -> None:
    """The text is split at the first sign whose left side is tracked."""
    project.track("a@b", {"f": b"a@b"})
    project.track("mail@home@work", {"f": b"mail"})
    project.track("data", ONE)
    project.commit("v1")
    project.git("tag", "x@y")
    project.track("a@b", {"f": b"a@b 2"})
    project.track("data", TWO)
    project.commit("v2")
    root = project.root
    assert mounted(mounter, "a@b", cwd=root) == {"f": b"a@b 2"}
    assert mounted(mounter, "a@b@v1", cwd=root) == {"f": b"a@b"}
    assert mounted(mounter, "a@b.dvc@v1", cwd=root) == {"f": b"a@b"}
    assert mounted(mounter, "a@b@x@y", cwd=root) == {"f": b"a@b"}
    assert mounted(mounter, "a@b@main@{0}", cwd=root) == {"f": b"a@b 2"}
    assert mounted(mounter, "data@x@y", cwd=root) == ONE
    assert mounted(mounter, "mail@home@work@v1", cwd=root) == {"f": b"mail"}
    assert mounted(mounter, "mail@home@work", cwd=root) == {"f": b"mail"}
    assert mounted(mounter, "a@b", "--rev", "x@y", cwd=root) == {"f": b"a@b"}
    assert mounted(mounter, "a@b@v1", "--repo", root, cwd=mounter.home) == {"f": b"a@b"}


def test_a_name_in_the_way_that_nobody_tracks(mounter: Mounter, project: Project) -> None:
    """A stray file that is called like a version does not hide it."""
    project.track("data", ONE)
    project.commit("v1")
    project.track("data", TWO)
    project.commit("v2")
    (project.root / "data@v1").write_bytes(b"stray")
    assert mounted(mounter, "data@v1", cwd=project.root) == ONE


def test_the_flag_settles_doubt(mounter: Mounter, project: Project) -> None:
    """`data@v1` may be a directory of that name, or a version."""
    project.track("data", ONE)
    project.track("data@v1", {"f": b"the other"})
    project.commit("v1")
    assert mounted(mounter, "data@v1", cwd=project.root) == ONE
    assert mounted(mounter, "data@v1", "--rev", "v1", cwd=project.root) == {"f": b"the other"}
    assert mounted(mounter, "data", "--rev", "v1", cwd=project.root) == ONE


def test_a_repository_by_its_place(mounter: Mounter, versions: Project) -> None:
    """A work tree, its git directory, a bare copy, a linked work tree, and URLs of them."""
    home = mounter.home
    bare, linked, below = home / "bare.git", home / "linked", versions.root / "code"
    versions.git("clone", "--quiet", "--bare", versions.root, bare)
    versions.git("worktree", "add", "--quiet", "--detach", linked, "v1")
    cache = ("--cache", versions.cache.root)
    try:
        for repo, more in (
            (versions.root, ()),
            (below, ()),
            (f"file://{versions.root}", ()),
            (versions.root / ".git", cache),
            (bare, cache),
            (f"file://{bare}", cache),
            (linked, cache),
            ("bare.git", cache),
        ):
            assert mounted(mounter, "data@v1", "--repo", repo, *more, cwd=home) == ONE
            assert mounted(mounter, "data", "--rev", "v2", "--repo", repo, *more, cwd=home) == TWO
        assert mounted(mounter, "data", "--repo", bare, *cache, cwd=home) == TWO
        assert mounted(mounter, "data", "--repo", linked, *cache, cwd=home) == ONE  # its HEAD
        assert mounted(mounter, "data@v2", *cache, cwd=linked) == TWO
        assert mounted(mounter, "code", "--repo", bare, *cache, cwd=home)["train.py"] == b"print(2)\n"
    finally:
        versions.git("worktree", "remove", "--force", linked)


@pytest.mark.root
def test_revisions_through_mount(mounter: Mounter, versions: Project) -> None:
    """`mount.fusefs` takes them as mount(8) hands them on."""
    place = mounter.new_mountpoint()
    helper = [*("-m", "fusefs.cli.mount_helper"), f"{versions.root}/data", place, "-o", "rw,rev=v1"]
    program = [*helper[:2], *map(str, helper[2:])]
    python = sys.executable
    environment = mounter.environment
    run_tool(python, *program, cwd=Path("/"), environment=environment)
    try:
        assert tree_of(place) == ONE
    finally:
        assert mounter.run("umount", place).returncode == 0
    run_tool(
        *(python, "-m", "fusefs.cli.mount_helper", f"{versions.root}/data@v2", str(place)),
        cwd=Path("/"),
        environment=environment,
    )
    try:
        assert tree_of(place) == TWO
    finally:
        assert mounter.run("umount", place).returncode == 0


def test_reading_touches_nothing(mounter: Mounter, project: Project) -> None:
    """Not the working tree, nor the index, nor what DVC keeps; not even while DVC is at work."""
    project.track("data", ONE)
    write_folder(project.root / "data", ONE)
    project.write("code.py", b"1")
    project.commit("v1")
    project.write("code.py", b"not committed")
    project.git("rm", "--quiet", "--cached", "data.dvc")  # nor is what is staged of interest
    lock = project.root / ".dvc" / "tmp" / "lock"
    lock.parent.mkdir()
    lock.write_bytes(b" 1\n")
    (lock.parent / "rwlock").write_bytes(b"{}")
    with open(lock) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        before = state_of(project.root)
        # Pins are in the cache, and links are counted where the objects are.
        mount = mounter.mount("data@v1", "--no-pin", cwd=project.root)
        whole = mounter.mount(".@v1", "--no-pin", cwd=project.root)
        assert tree_of(mount.path) == ONE
        assert tree_of(whole.path)["code.py"] == b"1"
        assert tree_of(mount.path / ".fusefs" / "revs" / "v1") == ONE
        assert os.listdir(mount.path / ".fusefs" / "revs") == ["main", "v1"]
        done = mounter.run("switch", mount.path, "HEAD")
        assert done.returncode == 0, done.stderr
        assert tree_of(mount.path) == ONE
        assert state_of(project.root) == before
