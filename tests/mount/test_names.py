"""Looking names up: what is there, what is not, and what cannot be."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.datasets import BROKEN_NAMES, STRANGE_NAMES
from tests.mount.mounts import Mounter

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

LONG = "/".join(["n" * 250] * 15 + ["bottom"])
"""3772 bytes: behind a mountpoint's own path, close to what one call takes."""
LONGEST = "/".join(["m" * 255] * 15 + ["x" * 255])
"""4095 bytes, the longest that a manifest may hold: reached in steps only."""

FILES = {
    **{name: b"root " + os.fsencode(name) for name in (*STRANGE_NAMES, *BROKEN_NAMES)},
    **{f"in/{name}/{name}": b"below " + os.fsencode(name) for name in (*STRANGE_NAMES, *BROKEN_NAMES)},
    "file": b"1",
    "directory/file": b"2",
    LONG: b"long",
    LONGEST: b"longest",
}


@pytest.fixture(scope="module")
def root(shared_mounter: Mounter) -> Path:
    return shared_mounter.mount_files(FILES).path


@pytest.mark.parametrize("name", (*STRANGE_NAMES, *BROKEN_NAMES), ids=ascii)
def test_any_legal_name(root: Path, name: str) -> None:
    assert (root / name).read_bytes() == b"root " + os.fsencode(name)
    assert os.listdir(root / "in" / name) == [name]
    assert (root / "in" / name / name).read_bytes() == b"below " + os.fsencode(name)


def test_names_are_listed_as_they_are_in_the_manifest(root: Path) -> None:
    expected = {path.partition("/")[0] for path in FILES}
    listed = os.listdir(root)
    assert len(listed) == len(set(listed))
    assert set(listed) == expected
    assert set(os.listdir(os.fsencode(root))) == {os.fsencode(name) for name in expected}


def test_long_paths(root: Path) -> None:
    assert len(os.fsencode(LONG)) > 3700 and len(os.fsencode(LONGEST)) == 4095
    assert (root / LONG).read_bytes() == b"long"
    here = os.open(root, os.O_PATH | os.O_DIRECTORY)
    *parents, name = LONGEST.split("/")
    for parent in parents:
        below = os.open(parent, os.O_PATH | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    with open(name, "rb", opener=lambda path, flags: os.open(path, flags, dir_fd=here)) as file:
        assert file.read() == b"longest"
    os.close(here)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("missing", errno.ENOENT),
        ("missing/below", errno.ENOENT),
        ("directory/missing", errno.ENOENT),
        ("File", errno.ENOENT),
        ("fil", errno.ENOENT),
        ("file ", errno.ENOENT),
        ("x" * 254, errno.ENOENT),
        ("file/below", errno.ENOTDIR),
        ("file/", errno.ENOTDIR),
        ("x" * 256, errno.ENAMETOOLONG),
        ("directory/" + "x" * 256, errno.ENAMETOOLONG),
        ("x/" * 2048 + "x", errno.ENAMETOOLONG),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_is_not_there(root: Path, path: str, code: int) -> None:
    for _ in range(2):  # the second time the kernel knows already
        for call in (os.stat, os.lstat, os.listdir, lambda path: os.open(path, os.O_RDONLY)):
            with pytest.raises(OSError) as caught:
                call(f"{root}/{path}")
            assert caught.value.errno == code


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda root: os.listdir(root / "file"), errno.ENOTDIR),
        (lambda root: os.chdir(root / "file"), errno.ENOTDIR),
        (lambda root: os.open(root / "file", os.O_RDONLY | os.O_DIRECTORY), errno.ENOTDIR),
        (lambda root: os.readlink(root / "file"), errno.EINVAL),
        (lambda root: (root / "directory").read_bytes(), errno.EISDIR),
        (lambda root: os.execv(root / "file", ["file"]), errno.EACCES),
    ],
    ids=["list a file", "enter a file", "open a file as directory", "read a link", "read a directory", "run"],
)
def test_what_a_thing_is_not(root: Path, call: Callable[[Path], object], code: int) -> None:
    with pytest.raises(OSError) as caught:
        call(root)
    assert caught.value.errno == code


def test_working_inside(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "in")
    assert Path.cwd() == root / "in"
    assert Path("../file").read_bytes() == b"1"
    assert Path("with space", "..", "..", "directory", "file").read_bytes() == b"2"
