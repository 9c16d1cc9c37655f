"""Any revision from any mount, below `.fusefs/revs`, and all that match side by side (`--revs`)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.datasets import filler, tree_of
from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.revisions.projects import Project

pytestmark = pytest.mark.fuse

ONE = {"a.txt": b"one\n", "sub/b.txt": b"one b\n", "sub/deep/c": b"deep"}
TWO = {"a.txt": b"two\n", "sub/b.txt": b"one b\n", "new": b""}
WAIT_SECONDS = 60.0


@pytest.fixture
def versions(project: Project) -> Project:
    """`v1` and `feature/x%y` are one commit, `v2` and `main` the next."""
    project.track("data", ONE)
    project.commit("v1")
    project.git("branch", "feature/x%y")
    project.track("data", TWO)
    project.commit("v2")
    return project


@contextmanager
def standing_in(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that works in `directory` and runs what it is told, line by line."""
    code = "import sys, os\nfor line in sys.stdin: print(repr(eval(line)), flush=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.communicate(timeout=WAIT_SECONDS)


def say(process: subprocess.Popen[str], expression: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{expression}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def mapped_trees(mount: Mount) -> set[str]:
    """The compiled trees that the daemon has opened."""
    maps = Path(f"/proc/{mount.pid}/maps").read_text()
    return {line.split(maxsplit=5)[5] for line in maps.splitlines() if line.endswith(".tree")}


def test_names_with_their_slashes(mounter: Mounter, versions: Project) -> None:
    mount = mounter.mount("data@v2", cwd=versions.root)
    revs = mount.path / ".fusefs" / "revs"
    assert sorted(os.listdir(revs)) == ["feature%2Fx%25y", "main", "v1", "v2"]
    assert tree_of(revs / "feature%2Fx%25y") == ONE
    assert tree_of(revs / "feature%2fx%y") == ONE
    assert sorted(os.listdir(revs)) == ["feature%2Fx%25y", "main", "v1", "v2"]
    for name in os.listdir(revs):
        assert (revs / name).is_dir()
    with os.scandir(revs) as entries:
        assert all(entry.is_dir() for entry in entries)


@pytest.mark.modes("fuse")  # names of revisions are links in native mode
def test_a_version_beside_itself(mounter: Mounter, versions: Project) -> None:
    """A version may stand in several places: each has directories of its own, files are the same."""
    mount = mounter.mount("data@v1", cwd=versions.root)
    commit = versions.git("rev-parse", "v1").strip()
    revs = mount.path / ".fusefs" / "revs"
    places = [mount.path, revs / "v1", revs / commit, revs / "feature%2Fx%25y"]
    for place in places:
        with standing_in(place / "sub") as process:
            for other in places:
                assert tree_of(other) == ONE
                (other / "sub" / "deep").stat()
            assert say(process, "os.getcwd()") == repr(str(place / "sub"))
            os.listdir(revs)
            assert say(process, "os.getcwd()") == repr(str(place / "sub"))
            assert say(process, "open('b.txt').read()") == repr("one b\n")
    assert len({(place / "sub").stat().st_ino for place in places}) == len(places)
    assert len({(place / "sub" / "b.txt").stat().st_ino for place in places}) == 1
    assert os.getxattr(revs / "v1", "user.fusefs.rev") == commit.encode()
    with ThreadPoolExecutor(len(places)) as readers:  # the kernel takes no name from another
        for found in [readers.submit(tree_of, place) for place in places * 5]:
            assert found.result() == ONE


@pytest.mark.modes("fuse")  # likewise
def test_a_listing_takes_no_name_away(mounter: Mounter, versions: Project) -> None:
    """Whoever works in a revision keeps his directory's name when the revisions are listed."""
    revs = mounter.mount("data@v2", cwd=versions.root).path / ".fusefs" / "revs"
    side = mounter.mount("data", "--revs", "v*", cwd=versions.root).path
    for directory in (revs / "v1", side / "v1"):
        with standing_in(directory) as process:
            for _ in range(3):
                assert sorted(os.listdir(directory.parent))[-2:] == ["v1", "v2"]
                assert say(process, "os.getcwd()") == repr(str(directory))
                assert say(process, "open('sub/b.txt').read()") == repr("one b\n")


def test_a_tag_that_comes_later(mounter: Mounter, versions: Project) -> None:
    mount = mounter.mount("data@v2", cwd=versions.root)
    later = mount.path / ".fusefs" / "revs" / "later"
    with pytest.raises(FileNotFoundError):
        later.stat()
    versions.git("tag", "later", "v1")
    until(later.exists)  # what is not there is asked for again after a second
    assert tree_of(later) == ONE
    assert "later" in os.listdir(later.parent)
    assert "Traceback" not in mount.umount()


def test_a_branch_that_moves(mounter: Mounter, versions: Project) -> None:
    """The name leads to the new commit; who is in the directory stays on the old one."""
    mount = mounter.mount("data@v1", cwd=versions.root)
    main = mount.path / ".fusefs" / "revs" / "main"
    assert tree_of(main) == TWO
    held = os.open(main, os.O_RDONLY | os.O_DIRECTORY)
    try:
        versions.track("data", {"a.txt": b"three\n"})
        versions.commit("v3")
        until(lambda: (main / "a.txt").read_bytes() == b"three\n")
        assert tree_of(main) == {"a.txt": b"three\n"}
        assert sorted(os.listdir(held)) == ["a.txt", "new", "sub"]
        descriptor = os.open("a.txt", os.O_RDONLY, dir_fd=held)
        assert os.read(descriptor, 100) == b"two\n"
        os.close(descriptor)
    finally:
        os.close(held)


HARD = (
    b"-x",
    b"--help",
    b"--upload-pack=touch",
    b"v1 ",
    b"v1..v2",
    b"v1...v2",
    b"^v1",
    b"v1:data.dvc",
    b":data.dvc",
    b"v1^{tree}",
    b"HEAD@{yesterday is not a date or is it",
    b"refs",
    b"%2F",
    b"%2F%2Fetc",
    b"..%2F..",
    b"%2E%2E",
    b"%00",
    b"%",
    b"%2",
    b"new\nline",
    b"\x01\x1b[31m",
    b"caf\xe9",
    b"\xff\xfe",
    b"x" * 255,
    b"HEAD" + b"^" * 251,
    b"*",
    b".git",
    b"0",
    b"deadbeef",
    b"0" * 40,
)


def test_names_that_are_none(mounter: Mounter, versions: Project) -> None:
    mount = mounter.mount("data@v1", cwd=versions.root)
    revs = os.fsencode(mount.path / ".fusefs" / "revs")
    for name in HARD:
        with pytest.raises(FileNotFoundError):
            os.stat(os.path.join(revs, name))
    with pytest.raises(OSError, match="File name too long"):
        os.stat(os.path.join(revs, b"x" * 256))
    assert os.path.samefile(os.path.join(revs, b".."), mount.path / ".fusefs")
    for name in (b"HEAD", b"HEAD@{0}", b"@", b"v1", b"tags%2Fv1", b"refs%2Fheads%2Fmain"):
        assert os.path.isdir(os.path.join(revs, name))
    status = mount.status()
    assert status["errors"] == 0
    log = mount.umount()
    assert "Traceback" not in log
    assert "ERROR" not in log and "WARNING" not in log


def test_no_version_is_opened_for_a_listing(mounter: Mounter, versions: Project) -> None:
    """They are known, and no version is opened before it is looked at."""
    for number in range(40):
        versions.git("tag", f"t{number}", ("v1", "v2")[number % 2])
    mount = mounter.mount("data", "--revs", "t*", cwd=versions.root)
    assert len(os.listdir(mount.path)) == 40
    assert mapped_trees(mount) == set()
    (mount.path / "t0").stat()
    assert len(mapped_trees(mount)) == 1
    assert len(os.listdir(mount.path)) == 40
    assert len(mapped_trees(mount)) == 1
    (mount.path / "t1").stat()
    assert len(mapped_trees(mount)) == 2


@pytest.mark.modes("fuse")  # `test_revisions_side_by_side_are_links` is their test in native mode
def test_all_that_match_side_by_side(mounter: Mounter, versions: Project) -> None:
    mount = mounter.mount("data", "--revs", "v*", cwd=versions.root)
    assert sorted(os.listdir(mount.path)) == ["v1", "v2"]
    assert tree_of(mount.path) == {
        **{f"v1/{path}": data for path, data in ONE.items()},
        **{f"v2/{path}": data for path, data in TWO.items()},
    }
    for name in ("main", "feature%2Fx%25y", versions.head):
        with pytest.raises(FileNotFoundError):
            (mount.path / name).stat()
        assert (mount.path / ".fusefs" / "revs" / name).is_dir()
    versions.git("tag", "v3", "v1")
    assert sorted(os.listdir(mount.path)) == ["v1", "v2", "v3"]
    assert tree_of(mount.path / "v3") == ONE
    with pytest.raises(FileNotFoundError):
        (mount.path / "v4").stat()
    versions.git("tag", "v4", "v2")
    until((mount.path / "v4").exists)
    versions.git("tag", "--delete", "v1")
    assert sorted(os.listdir(mount.path)) == ["v2", "v3", "v4"]
    until(lambda: not (mount.path / "v1").exists())
    status = mount.status()
    assert (status["oid"], status["rev"], status["files"]) == (None, None, None)
    done = mounter.run("status", mount.path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in mount.umount()


def test_a_whole_project_side_by_side(mounter: Mounter, versions: Project) -> None:
    versions.write("code.py", b"3")
    versions.commit("v3")
    mount = mounter.mount(versions.root, "--revs", "*", cwd=mounter.home)
    assert sorted(os.listdir(mount.path)) == ["feature%2Fx%25y", "main", "v1", "v2", "v3"]
    assert (mount.path / "v3" / "code.py").read_bytes() == b"3"
    assert not (mount.path / "v2" / "code.py").exists()
    assert tree_of(mount.path / "v1" / "data") == ONE
    assert tree_of(mount.path / "main" / "data") == TWO


def test_a_tag_at_which_there_was_nothing_yet(mounter: Mounter, project: Project) -> None:
    """Where the dataset was not there yet, the revision is listed and cannot be entered; the log says why."""
    project.commit("v0")
    project.track("data", ONE)
    project.commit("v1")
    mount = mounter.mount("data", "--revs", "v*", cwd=project.root)
    assert sorted(os.listdir(mount.path)) == ["v0", "v1"]
    with pytest.raises(OSError, match=r"Input/output error|No such file"):
        os.listdir(mount.path / "v0")
    assert tree_of(mount.path / "v1") == ONE
    log = mount.umount()
    assert "Traceback" not in log


def anonymous_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("RssAnon:")]
    return int(line.split()[1]) << 10


FIRST = 10
"""Revisions, after which the daemon has its threads and databases, however many more there are."""
REVISIONS = 60
FILES = 2000
ANONYMOUS_GROWTH = (REVISIONS - FIRST) * 100_000
"""Bytes for all the others, while a tree of so many files has 150 kB."""


def test_many_revisions_take_little_memory(mounter: Mounter, project: Project) -> None:
    """Trees are files in the page cache. What is equal between versions is stored once."""
    files = {f"{number % 10}/{number}.bin": filler(64, number) for number in range(FILES)}
    for number in range(REVISIONS):
        files[f"0/{number * 10}.bin"] = filler(65, number)
        project.track("data", files)
        project.commit(f"v{number}")
    mount = mounter.mount("data", "--revs", "v*", cwd=project.root)

    def use(number: int) -> None:
        directory = mount.path / f"v{number}" / "0"
        assert len(os.listdir(directory)) == FILES // 10
        assert (directory / f"{number * 10}.bin").read_bytes() == filler(65, number)
        later = (number + 1) * 10
        assert (directory / f"{later}.bin").read_bytes() == filler(64, later)

    with ThreadPoolExecutor(4) as readers:
        list(readers.map(use, range(FIRST)))
        before = anonymous_bytes(mount.pid)
        list(readers.map(use, range(FIRST, REVISIONS)))
    grown = anonymous_bytes(mount.pid) - before
    assert grown < ANONYMOUS_GROWTH, f"{grown} bytes"
