"""A whole project is what `git checkout` and `dvc checkout` make of it, in one tree, without either."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.mount.datasets import BROKEN_NAMES, STRANGE_NAMES, Cache, filler, md5, tree_of
from tests.mount.mounts import Mounter
from tests.revisions.projects import Project, Seen, look, new_project, run_tool

pytestmark = pytest.mark.fuse

DATA = {
    "a.txt": b"one\n",
    "empty": b"",
    "dos": b"line\r\n" * 9,
    "sub/deep/b": filler(200_000, 1),
    **{f"names/{name}": name.encode() for name in STRANGE_NAMES},
}


def make_by_tools(mounter: Mounter) -> Project:
    """Everything that the real tools can track, made with them; the tags `v1`, `v2` and `v3`."""
    project = new_project(mounter.home / "project", mounter.environment)
    root = project.root

    def dvc(*arguments: str) -> None:
        run_tool("dvc", *arguments, cwd=root, environment=project.environment)

    shutil.rmtree(root / ".dvc")
    dvc("init", "--quiet")
    project.write("README", b"text\n")
    project.write("bin/run", b"#!/bin/sh\n", executable=True)
    project.write(".dvcignore", b"*.tmp\nignored/\n")
    project.write("ignored/broken.dvc", b"- not a metafile\n")
    for name in STRANGE_NAMES:
        project.write(f"code/{name}", b"code " + name.encode())
    for place, target in (
        ("links/file", "../README"),
        ("links/directory", "../code"),
        ("links/into data", "../data/a.txt"),
        ("links/outside", "../../../etc/passwd"),
        ("links/absolute", "/etc/passwd"),
        ("links/nowhere", "nothing"),
        ("links/itself", "itself"),
        ("links/long", "/".join(["x" * 100] * 30)),
    ):
        (root / place).parent.mkdir(exist_ok=True)
        os.symlink(target, root / place)
    for path, data in DATA.items():
        project.write(f"data/{path}", data)
    project.write("models/best", filler(5000, 2), executable=True)
    project.write("models/notes", b"git has these\n")
    project.write("outer/one", b"1")
    project.write("below/seed", b"seed\n")
    project.write("metrics.json", b"{}\n")
    stages = (
        "stages:\n"
        "  copy:\n    wdir: below\n    cmd: cp seed made\n    deps: [seed]\n    outs: [made]\n"
        "  measure:\n    cmd: printf '{}' > measured.json\n"
        "    metrics:\n    - measured.json:\n        cache: false\n"
    )
    project.write("dvc.yaml", stages.encode())
    dvc("add", "--quiet", "data", "models/best", "outer")
    dvc("repro", "--quiet")
    project.commit("v1")
    project.write("data/a.txt", b"two\n")
    (root / "data" / "empty").unlink()
    (root / "bin" / "run").chmod(0o644)
    (root / "links" / "file").unlink()
    os.symlink("README2", root / "links" / "file")
    dvc("add", "--quiet", "data")
    project.commit("v2")
    other = new_project(mounter.home / "other", mounter.environment)
    project.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", other.root, "vendor/other")
    dvc("remove", "models/best.dvc")
    project.write("models/best", b"git has it now\n")
    project.write("data.dvc", (root / "data.dvc").read_bytes() + b"desc: the same data\n")
    project.commit("v3")
    return project


def check_out(project: Project, tag: str, place: Path) -> dict[str, Seen]:
    """What the real tools make of a tag in a clone of its own."""
    project.git("clone", "--quiet", "--branch", tag, project.root, place, cwd=project.root.parent)
    cache = str(project.root / ".dvc" / "cache")
    run_tool("dvc", "config", "--local", "cache.dir", cache, cwd=place, environment=project.environment)
    run_tool("dvc", "checkout", "--quiet", cwd=place, environment=project.environment)
    (place / ".dvc" / "config.local").unlink()
    shutil.rmtree(place / ".dvc" / "tmp")
    return look(place, leave_out=[".git"])


@pytest.mark.timeout(240)
def test_it_is_what_the_tools_make(mounter: Mounter) -> None:
    project = make_by_tools(mounter)
    mount = mounter.mount(".", "--revs", "v*", cwd=project.root)
    for tag in ("v1", "v2", "v3"):
        expected = check_out(project, tag, mounter.home / f"checkout {tag}")
        assert len(expected) > 60
        assert look(mount.path / tag) == expected
        if tag == "v3":
            assert expected["vendor/other"] == Seen("directory")
        done = mounter.mount(f".@{tag}", cwd=project.root)
        assert look(done.path) == expected
    assert "Traceback" not in mount.umount()


def test_executables(mounter: Mounter, project: Project) -> None:
    """Git says it of its own files, the metafile of single outputs; a checkout of DVC's own forgets those."""
    project.write("bin/run", b"1", executable=True)
    project.track("tool", b"2", executable=True)
    project.commit("v1")
    seen = look(mounter.mount(".@v1", cwd=project.root).path)
    assert seen["bin/run"].executable and seen["tool"].executable
    assert not seen[".gitignore"].executable


def test_links_are_text(mounter: Mounter, project: Project) -> None:
    """What they point to is the reader's affair: nothing of ours follows them."""
    secret = mounter.home / "secret"
    secret.write_bytes(b"outside")
    for name, target in (("absolute", str(secret)), ("up", "../../secret"), ("etc", "/etc")):
        os.symlink(target, project.root / name)
    os.symlink("absolute", project.root / "metafile.dvc")
    os.symlink("/etc", project.root / "directory")
    project.write("file", b"1")
    project.commit("v1")
    mount = mounter.mount(".@v1", cwd=project.root)
    assert os.readlink(mount.path / "absolute") == str(secret)
    assert (mount.path / "absolute").stat().st_size == len(b"outside")  # the kernel did
    status = os.lstat(mount.path / "absolute")
    assert (status.st_size, status.st_mode & 0o777) == (len(str(secret)), 0o777)
    single = mounter.mount("absolute@v1", cwd=project.root)
    assert os.readlink(single.path / "absolute") == str(secret)
    for target in ("directory/passwd@v1", "etc/passwd@v1", "absolute/below@v1", "metafile.dvc@v1"):
        mounter.refuse(target, cwd=project.root)
        mounter.refuse(target.removesuffix("@v1"), "--rev", "v1", "--repo", project.root)


def test_git_wins(mounter: Mounter, project: Project) -> None:
    """Of a path that both track git's file is seen, and around it what DVC has."""
    project.track("data", {"a": b"dvc a", "b": b"dvc b", "sub/c": b"dvc c", "sub/d/e": b"dvc e"})
    project.track("file", {"below": b"dvc"})
    project.track("directory", b"dvc's file")
    project.commit()
    project.write("data/a", b"git a")
    project.write("data/sub/new", b"git new")
    project.write("data/sub/d", b"git has a file where DVC has a directory")
    project.write("file", b"git has a file")
    project.write("directory/inner", b"git has a directory")
    project.git("add", "--force", "data", "file", "directory")
    project.commit("v1")
    found = tree_of(mounter.mount(".@v1", cwd=project.root).path)
    assert {
        path: data for path, data in found.items() if not path.endswith((".dvc", ".gitignore", "config"))
    } == {
        "data/a": b"git a",
        "data/b": b"dvc b",
        "data/sub/c": b"dvc c",
        "data/sub/new": b"git new",
        "data/sub/d": b"git has a file where DVC has a directory",
        "file": b"git has a file",
        "directory/inner": b"git has a directory",
    }


def test_an_output_within_another(mounter: Mounter, project: Project) -> None:
    """The inner one is seen in its place, and said; the real tools refuse such a graph."""
    project.track("data", {"keep": b"outer", "inner/x": b"outer x", "inner/y": b"outer y"})
    metafile = project.cache.put_dataset({"x": b"inner x"})
    project.write("inner.dvc", f"outs:\n- md5: {metafile}\n  hash: md5\n  path: data/inner\n".encode())
    project.commit("v1")
    place = mounter.new_mountpoint()
    done = mounter.run("mount", "--mode", mounter.mode, ".@v1", place, cwd=project.root)
    assert done.returncode == 0, done.stderr
    try:
        found = tree_of(place)
        assert "lies inside" in done.stderr
        assert found["data/keep"] == b"outer"
        assert found["data/inner/x"] == b"inner x"
    finally:
        assert mounter.run("umount", place).returncode == 0


def test_empty_outputs_and_nothing_at_all(mounter: Mounter, project: Project) -> None:
    project.track("nothing", {})
    project.track("zero", b"")
    project.commit("v1")
    seen = look(mounter.mount(".@v1", cwd=project.root).path)
    assert seen["nothing"] == Seen("directory")
    assert seen["zero"] == Seen("file", b"")
    empty = mounter.mount("nothing@v1", cwd=project.root)
    assert look(empty.path) == {}
    bare = new_project(mounter.home / "bare", mounter.environment)
    bare.git("rm", "-r", "--quiet", ".dvc")
    bare.commit("none")
    assert look(mounter.mount(".@none", cwd=bare.root).path) == {}


def test_a_repository_of_sha256(mounter: Mounter) -> None:
    project = new_project(mounter.home / "project", mounter.environment, "--object-format=sha256")
    project.write("code/run", b"#!/bin/sh\n", executable=True)
    project.write("code/big", filler(300_000, 3))
    os.symlink("run", project.root / "code" / "link")
    project.track("data", {"a": b"1"})
    commit = project.commit("v1")
    assert len(commit) == 64
    mount = mounter.mount(f".@{commit}", cwd=project.root)
    assert look(mount.path / "code") == look(project.root / "code")
    assert tree_of(mount.path / "data") == {"a": b"1"}
    assert (mount.path / ".fusefs" / "revs" / commit / "data" / "a").read_bytes() == b"1"
    assert mount.status()["rev"] == commit


def test_names_that_are_not_text(mounter: Mounter, project: Project) -> None:
    for name in BROKEN_NAMES:
        project.write(f"code/{name}", os.fsencode(name))
    project.commit("v1")
    mount = mounter.mount(".@v1", cwd=project.root)
    assert tree_of(mount.path / "code") == {name: os.fsencode(name) for name in BROKEN_NAMES}
    single = mounter.mount(f"code/{BROKEN_NAMES[0]}@v1", cwd=project.root)
    assert os.listdir(single.path) == [BROKEN_NAMES[0]]
    assert mounter.run("switch", single.path, "HEAD").returncode == 0
    assert "hits" in mounter.run("status", single.path).stdout


def mount_complaining(mounter: Mounter, target: str, cwd: Path) -> tuple[dict[str, bytes], list[str]]:
    """What is shown, and the lines that are said."""
    place = mounter.new_mountpoint()
    done = mounter.run("mount", "--mode", mounter.mode, target, place, cwd=cwd)
    assert done.returncode == 0, done.stderr
    found = tree_of(place)
    assert mounter.run("umount", place).returncode == 0
    assert "Traceback" not in done.stderr
    return found, done.stderr.splitlines()


BROKEN = {
    "conflict": b"<<<<<<< ours\nouts:\n- md5: aa\n=======\nouts: []\n>>>>>>> theirs\n",
    "not yaml": b"outs: [\n",
    "not text": b"\xff\xfe\x00",
    "a list": b"- 1\n- 2\n",
    "wrong types": b"outs: 7\n",
    "bad hash": b"outs:\n- md5: ../../../../etc/passwd\n  path: x\n",
    "outside": b"outs:\n- md5: d41d8cd98f00b204e9800998ecf8427e\n  hash: md5\n  path: ../../x\n",
    "twice": b"outs: []\nouts: []\n",
    "deep": b"outs: " + b"[" * 5000 + b"]" * 5000 + b"\n",
    "bomb": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(98, 112))
    + b"outs: *o\n",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_metafile_takes_nothing_along(mounter: Mounter, project: Project, fault: str) -> None:
    """It is said in one line that names it; as a target it is refused with that line."""
    project.track("data", {"a": b"1"})
    project.write("broken.dvc", BROKEN[fault])
    project.commit("v1")
    found, lines = mount_complaining(mounter, ".@v1", project.root)
    assert found["data/a"] == b"1"
    assert found["broken.dvc"] == BROKEN[fault]
    assert len(lines) == 1 and "broken" in lines[0] and len(lines[0]) < 400, lines
    assert mounter.mount("data@v1", cwd=project.root).status()["files"] == 1
    if fault != "outside":  # alone it stands below the mountpoint, wherever it would be
        assert "broken" in mounter.refuse("broken.dvc@v1", cwd=project.root)


def test_a_missing_manifest_is_left_out(mounter: Mounter, project: Project) -> None:
    oid = project.track("gone", {"a": b"1"})
    project.track("here", {"a": b"2"})
    project.commit("v1")
    project.cache.remove(oid)
    found, lines = mount_complaining(mounter, ".@v1", project.root)
    assert "gone/a" not in found and found["here/a"] == b"2"
    assert len(lines) == 1 and "'gone'" in lines[0] and oid in lines[0], lines
    assert oid in mounter.refuse("gone@v1", cwd=project.root)


def test_missing_bytes_are_an_error_of_the_file(mounter: Mounter, project: Project) -> None:
    """The names are there; what is not in the cache cannot be read, as on a mount of the output alone."""
    project.track("data", {"a": b"here", "b": b"not here"})
    project.commit("v1")
    project.cache.remove(md5(b"not here"))
    mount = mounter.mount(".@v1", cwd=project.root)
    assert sorted(os.listdir(mount.path / "data")) == ["a", "b"]
    assert (mount.path / "data" / "a").read_bytes() == b"here"
    with pytest.raises(OSError, match="Input/output error"):
        (mount.path / "data" / "b").read_bytes()


def test_a_tree_as_it_is(mounter: Mounter, project: Project) -> None:
    """Without a revision a clean work tree is its last commit; one that is not is refused in one line."""
    project.track("data", {"a": b"1"})
    project.write("code/run", b"1", executable=True)
    os.symlink("run", project.root / "code" / "link")
    project.commit("v1")
    project.write("untracked", b"does not count")
    mount = mounter.mount(".", cwd=project.root)
    assert mount.status()["rev"] == project.head
    assert tree_of(mount.path / "data") == {"a": b"1"}
    assert sorted(os.listdir(mount.path)) == [".dvc", ".gitignore", "code", "data", "data.dvc"]
    assert look(mounter.mount("code", cwd=project.root).path) == look(project.root / "code")

    def refused() -> str:
        line = mounter.refuse(".", cwd=project.root)
        assert "@HEAD" in line
        return line

    changed = project.write("code/run", b"2", executable=True)
    assert "'code/run'" in refused()
    changed.write_bytes(b"1")
    changed.chmod(0o644)
    assert "'code/run'" in refused()
    changed.unlink()
    assert "'code/run'" in refused()
    changed.mkdir()
    assert "'code/run'" in refused()
    mounter.mount(".@HEAD", cwd=project.root)
    changed.rmdir()
    project.write("code/run", b"1", executable=True)
    (project.root / "code" / "link").unlink()
    os.symlink("other", project.root / "code" / "link")
    assert "'code/link'" in refused()
    mounter.mount("data", cwd=project.root)


def test_subprojects(mounter: Mounter, project: Project) -> None:
    """A repository of DVC within the repository: its outputs, from its own cache."""
    inner = Project(
        project.root / "team", Cache(project.root / "team" / ".dvc" / "cache"), project.environment
    )
    inner.write(".dvc/config", b"")
    inner.write(".dvc/.gitignore", b"/cache\n")
    inner.track("own", {"x": b"in the inner cache"})
    inner.track("single", b"one file of the inner cache")
    project.track("data", {"a": b"in the outer cache"})
    project.commit("v1")
    found = tree_of(mounter.mount(".@v1", cwd=project.root).path)
    assert found["team/own/x"] == b"in the inner cache"
    assert found["team/single"] == b"one file of the inner cache"
    assert found["data/a"] == b"in the outer cache"
    for directory, target in (
        (project.root, "team/own@v1"),
        (inner.root, "own@v1"),
        (inner.root, "own.dvc@v1"),
    ):
        assert tree_of(mounter.mount(target, cwd=directory).path) == {"x": b"in the inner cache"}
    by_place = mounter.mount("team/own@v1", "--repo", project.root)
    assert tree_of(by_place.path) == {"x": b"in the inner cache"}
    below = tree_of(mounter.mount("team@v1", cwd=project.root).path)
    assert below["own/x"] == b"in the inner cache"
    side = mounter.mount(".", "--revs", "v1", cwd=project.root)
    assert tree_of(side.path / "v1" / "team" / "own") == {"x": b"in the inner cache"}
