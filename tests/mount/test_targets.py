"""Repositories that the real DVC made, mounted by everything that names a version."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.datasets import (
    STRANGE_NAMES,
    Cache,
    directories_of,
    entries_of,
    filler,
    manifest_bytes,
    md5,
    tree_of,
    write_folder,
)
from tests.mount.mounts import Mount, Mounter
from tests.repositories import initialize

pytestmark = pytest.mark.fuse

TOOL_SECONDS = 90.0

FILES = {
    **{f"data/{name}": b"named " + os.fsencode(name) for name in STRANGE_NAMES},
    **{f"data/in/{name}/file": b"in " + os.fsencode(name) for name in STRANGE_NAMES},
    "data/" + "/".join(["deep"] * 50) + "/file": b"deep",
    "data/empty": b"",
    "data/dos": b"line\r\n" * 10,
    "data/big": filler(3_000_000, 1),
    "more data/copy of big": filler(3_000_000, 1),
    "more data/sub/other": b"other",
    "single": filler(70_000, 2),
    "empty file": b"",
    "tools/run.sh": b"#!/bin/sh\necho ran\n",
}
OUTPUTS = ("data", "more data", "single", "empty file", "tools/run.sh")


@dataclass(frozen=True)
class Repository:
    """A repository made by the real DVC, its workspace complete."""

    root: Path
    run: Callable[..., str]

    def value(self, metafile: str) -> str:
        """The hash that a metafile of one output names."""
        found = re.search(r"md5: '?([0-9a-f]+(?:\.dir)?)", (self.root / metafile).read_text())
        assert found
        return found[1]


def make_repository(root: Path, environment: Mapping[str, str], *configuration: str) -> Repository:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    assert shutil.which("dvc", path=path), "dvc is not installed; scripts/setup does it"
    private = {**environment, "PATH": path, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": f"{root}-site"}

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=root, env=private, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    write_folder(root, FILES)
    (root / "tools/run.sh").chmod(0o755)
    initialize(root)
    if configuration:
        run("dvc", "config", *configuration)
    run("dvc", "add", "--quiet", *OUTPUTS)
    return Repository(root, run)


@pytest.fixture(scope="module")
def repository(shared_mounter: Mounter) -> Repository:
    return make_repository(shared_mounter.home / "repository", shared_mounter.environment)


def assert_same(workspace: Path, mount: Path) -> None:
    """`diff -r` finds nothing."""
    command = ["diff", "-r", "--no-dereference", workspace, mount]
    done = subprocess.run(command, capture_output=True, timeout=TOOL_SECONDS, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.fixture
def mount(mounter: Mounter) -> Callable[..., Mount]:
    return mounter.mount


@pytest.mark.parametrize("output", ["data", "more data"])
def test_a_directory_by_every_name_that_it_has(
    repository: Repository, mount: Callable[..., Mount], output: str
) -> None:
    root = repository.root
    oid = repository.value(f"{output}.dvc")
    cache = root / ".dvc" / "cache"
    for mounted in (
        mount(root / f"{output}.dvc"),
        mount(f"{output}.dvc", cwd=root),
        mount(root / output),
        mount(output, cwd=root),
        mount(f"../{root.name}/{output}/", cwd=root),
        mount(cache / "files" / "md5" / oid[:2] / oid[2:]),
        mount(oid, "--cache", cache),
        mount(oid.upper().replace(".DIR", ".dir"), "--cache", cache),
        mount(oid, cwd=root),
    ):
        assert_same(root / output, mounted.path)
        assert mounted.status()["oid"] == oid


def test_what_is_below_a_directory(repository: Repository, mount: Callable[..., Mount]) -> None:
    assert_same(repository.root / "data" / "in", mount(repository.root / "data" / "in").path)
    single = mount("data/in/with space/file", cwd=repository.root).path
    assert tree_of(single) == {"file": b"in with space"}


@pytest.mark.parametrize("output", ["single", "empty file", "tools/run.sh"])
def test_a_file_stands_below_the_mountpoint(
    repository: Repository, mount: Callable[..., Mount], output: str
) -> None:
    name, data = output.rpartition("/")[2], FILES[output]
    for target in (f"{output}.dvc", output):
        mounted = mount(target, cwd=repository.root)
        assert tree_of(mounted.path) == {name: data}
        assert mounted.status()["bytes"] == len(data)
        assert os.getxattr(mounted.path / name, "user.fusefs.oid") == md5(data).encode()
    by_oid = mount(md5(data), "--cache", repository.root / ".dvc" / "cache")
    assert tree_of(by_oid.path) == {md5(data): data}


def test_an_executable_file_can_be_run(repository: Repository, mount: Callable[..., Mount]) -> None:
    program = mount(repository.root / "tools" / "run.sh.dvc").path / "run.sh"
    assert stat.S_IMODE(program.stat().st_mode) == 0o755
    assert os.access(program, os.X_OK)
    done = subprocess.run([program], capture_output=True, timeout=TOOL_SECONDS, check=True)
    assert done.stdout == b"ran\n"


def test_the_data_need_not_be_checked_out(
    repository: Repository, mount: Callable[..., Mount], tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(repository.root / ".dvc", bare / ".dvc")
    for output in ("data", "single"):
        shutil.copy(repository.root / f"{output}.dvc", bare)
    assert_same(repository.root / "data", mount(bare / "data.dvc").path)
    assert_same(repository.root / "data", mount("data", cwd=bare).path)
    assert tree_of(mount("single", cwd=bare).path) == {"single": FILES["single"]}


def test_several_outputs_stand_at_their_paths(repository: Repository, mount: Callable[..., Mount]) -> None:
    root = repository.root
    items = [(root / f"{output}.dvc").read_text().removeprefix("outs:\n") for output in OUTPUTS[:4]]
    nested = (root / "tools" / "run.sh.dvc").read_text().removeprefix("outs:\n")
    items.append(nested.replace("path: run.sh", "path: tools/run.sh"))
    (root / "all.dvc").write_text("outs:\n" + "".join(items))
    try:
        mounted = mount(root / "all.dvc")
        assert tree_of(mounted.path) == FILES
        assert set(os.listdir(mounted.path)) == {output.partition("/")[0] for output in OUTPUTS}
        assert stat.S_IMODE((mounted.path / "tools" / "run.sh").stat().st_mode) == 0o755
        status = mounted.status()
        assert (status["files"], status["oid"]) == (len(FILES), None)
    finally:
        (root / "all.dvc").unlink()


def test_a_cache_elsewhere(mounter: Mounter) -> None:
    elsewhere = mounter.home / "a cache, elsewhere"
    repository = make_repository(mounter.home / "moved", mounter.environment, "cache.dir", str(elsewhere))
    assert not (repository.root / ".dvc" / "cache" / "files").exists()
    assert_same(repository.root / "data", mounter.mount(repository.root / "data.dvc").path)
    assert_same(repository.root / "data", mounter.mount("data", cwd=repository.root).path)
    oid = repository.value("data.dvc")
    by_oid = mounter.mount(oid, cwd=repository.root)
    assert by_oid.status()["cache_bytes"] in (
        None,
        sum(len(d) for p, d in FILES.items() if p.startswith("data/")),
    )
    assert_same(repository.root / "data", by_oid.path)
    assert_same(repository.root / "data", mounter.mount(oid, "--cache", elsewhere).path)


def test_a_cache_whose_files_are_links_of_the_workspace(mounter: Mounter) -> None:
    """With hard links an executable's object is 0544, and symbolic links lead from the workspace."""
    for number, kind in enumerate(("hardlink", "symlink")):
        root = mounter.home / f"linked{number}"
        repository = make_repository(root, mounter.environment, "cache.type", kind)
        mounted = mounter.mount(root / "tools" / "run.sh.dvc").path
        assert tree_of(mounted) == {"run.sh": FILES["tools/run.sh"]}
        by_link = mounter.mount("single", cwd=root).path
        assert tree_of(by_link) == {"single": FILES["single"]}
        data = mounter.mount("data", cwd=root).path
        assert tree_of(data) == tree_of(repository.root / "data")


def dos2unix(data: bytes) -> str:
    """The older hash of a short text: of its bytes with CRLF turned into LF."""
    return hashlib.md5(data.replace(b"\r\n", b"\n"), usedforsecurity=False).hexdigest()


def make_older_repository(root: Path) -> dict[str, bytes]:
    """What DVC 2 left: objects at the cache's top, hashed after CRLF became LF, `.dvc` without `hash`."""
    files = {"a.txt": b"one\r\ntwo\r\n", "sub/b.txt": b"plain\n", "sub/same.txt": b"one\r\ntwo\r\n"}
    cache = Cache(root / ".dvc" / "cache", legacy=True)
    for data in files.values():
        cache.put(data, dos2unix(data))
    entries = [{"md5": dos2unix(data), "relpath": path} for path, data in files.items()]
    oid = cache.put_manifest(entries)
    (root / ".dvc" / "config").write_text("")
    (root / "data.dvc").write_text(f"outs:\n- md5: {oid}\n  size: 26\n  nfiles: 3\n  path: data\n")
    (root / "a.txt.dvc").write_text(f"outs:\n- md5: {dos2unix(files['a.txt'])}\n  size: 10\n  path: a.txt\n")
    return files


def test_what_dvc_2_left(mounter: Mounter) -> None:
    root = mounter.home / "older"
    root.mkdir()
    files = make_older_repository(root)
    cache = root / ".dvc" / "cache"
    oid = Repository(root, str).value("data.dvc")
    for mounted in (
        mounter.mount(root / "data.dvc"),
        mounter.mount("data", cwd=root),
        mounter.mount(oid, "--cache", cache),
        mounter.mount(cache / oid[:2] / oid[2:]),
    ):
        assert tree_of(mounted.path) == files
        assert os.getxattr(mounted.path / "a.txt", "user.fusefs.oid") == dos2unix(files["a.txt"]).encode()
        assert mounted.status()["oid"] == oid
    assert tree_of(mounter.mount("a.txt.dvc", cwd=root).path) == {"a.txt": files["a.txt"]}


@pytest.mark.modes("fuse")  # the kernel remembers an object that was open
def test_an_older_oid_is_not_looked_for_among_the_newer(mounter: Mounter) -> None:
    """The same digits may name different bytes there."""
    root = mounter.home / "mixed"
    root.mkdir()
    files = make_older_repository(root)
    newer = Cache(root / ".dvc" / "cache")
    digest = dos2unix(files["a.txt"])
    newer.put(b"one\ntwo\n", digest)
    mounted = mounter.mount(root / "data.dvc", "--no-pin").path
    assert (mounted / "a.txt").read_bytes() == files["a.txt"]
    Cache(root / ".dvc" / "cache", legacy=True).remove(digest)
    with pytest.raises(OSError, match="Input/output error"):
        (mounted / "a.txt").read_bytes()


def test_a_loose_manifest_file(mounter: Mounter) -> None:
    """A `.dir` that somebody copied: what it holds is its oid, whatever it is called."""
    files = {"a": b"1", "b/c": b"22"}
    cache = Cache(mounter.home / "objects")
    cache.put_dataset(files)
    loose = mounter.home / "copied.dir"
    loose.write_bytes(manifest_bytes(entries_of(files)))
    mounted = mounter.mount(loose, "--cache", cache.root)
    assert tree_of(mounted.path) == files
    assert mounted.status()["oid"] == md5(loose.read_bytes()) + ".dir"


def test_the_second_mount_needs_no_manifest(mounter: Mounter) -> None:
    """The compiled tree is kept by oid: a version whose manifest was evicted can still be listed."""
    files = {"a": b"1", "b/c": b"22"}
    cache = Cache(mounter.home / "objects")
    oid = cache.put_dataset(files)
    mounter.mount(oid, "--cache", cache.root).umount()
    cache.remove(oid)
    again = mounter.mount(oid, "--cache", cache.root)
    assert tree_of(again.path) == files
    assert directories_of(files) == {"b"}


def test_two_mounts_at_once(mounter: Mounter, repository: Repository) -> None:
    one, two = mounter.mount(repository.root / "data"), mounter.mount(repository.root / "more data")
    assert_same(repository.root / "data", one.path)
    assert_same(repository.root / "more data", two.path)
    one.umount()
    assert_same(repository.root / "more data", two.path)
