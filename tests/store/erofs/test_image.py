"""Images equal the trees that they are made of, as the kernel and `fsck.erofs` see them."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.erofs.image import LARGEST_FILE, Described, write_image
from store.erofs.look import Look
from store.erofs.shelf import ImageDamaged, open_image
from store.errors import StoreError
from store.layouts import object_path
from store.oid import GIT_SHA1, GIT_SHA256, MD5, MD5_DOS2UNIX
from store.tree import ROOT_ROW, UNKNOWN, Tree
from store.tree_compiler import Leaf, compile_tree, leaf_flags, write_tree

WIDTHS = {MD5: 16, MD5_DOS2UNIX: 16, GIT_SHA1: 20, GIT_SHA256: 32}
TARGET = b"../elsewhere"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts an image by itself")

names = st.binary(min_size=1, max_size=9).filter(lambda n: not set(n) & {0, 0x2F} and n not in (b".", b".."))
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)
kinds = st.sampled_from(["file", "executable", "symlink"])
leaves = st.lists(
    st.tuples(paths, st.sampled_from(sorted(WIDTHS)), kinds, st.integers(0, LARGEST_FILE - 1)), max_size=30
)


def leaf(path: bytes, number: int, algorithm: str = MD5, kind: str = "file", size: int = 7) -> Leaf:
    flags = leaf_flags(executable=kind == "executable", symlink=kind == "symlink", algorithm=algorithm)
    return Leaf(path, (number * 0x9E3779B97F4A7C15 + 1).to_bytes(WIDTHS[algorithm], "little"), size, flags)


def describe(directory: Path, listed: list[Leaf], look: Look | None = None) -> Described:
    path = directory / "t.tree"
    write_tree(compile_tree(listed, "t"), path)
    tree = Tree.open(path)
    times = np.arange(tree.rows, dtype=np.uint32) + 1_000_000_000
    links = {row: TARGET for row in range(tree.rows) if tree.is_symlink(row)}
    look = look or Look(uid=1234, gid=70_000)
    return Described(tree, np.frombuffer(tree.size, np.int64), times, look, links, f"{0:032x}.dir")


@contextlib.contextmanager
def mounted(image: Path) -> Iterator[Path]:
    mountpoint = image.with_suffix(".mnt")
    mountpoint.mkdir()
    subprocess.run(["mount", "-t", "erofs", "-o", "ro", image, mountpoint], check=True)
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", mountpoint], check=True)


def check(image: Path) -> None:
    done = subprocess.run(["fsck.erofs", image], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def compare(described: Described, root: Path) -> None:
    """Walk both, and compare every name and attribute."""
    tree, look = described.tree, described.look
    inodes = set()
    overlay = "user.overlay." if look.in_namespace else "trusted.overlay."
    stack = [(ROOT_ROW, os.fsencode(root))]
    while stack:
        row, path = stack.pop()
        status = os.lstat(path)
        inodes.add(status.st_ino)
        assert (status.st_uid, status.st_gid) == (look.uid, look.gid)
        assert status.st_mtime == described.times[row]
        attributes = {name: os.getxattr(path, name) for name in os.listxattr(path, follow_symlinks=False)}
        if tree.is_directory(row):
            assert stat.S_ISDIR(status.st_mode)
            assert stat.S_IMODE(status.st_mode) == 0o777 & ~look.umask
            children = tree.children(row)
            assert sorted(os.listdir(path)) == [tree.name(child) for child in children]  # noqa: PTH208
            assert status.st_nlink == 2 + sum(map(tree.is_directory, children))
            expected = {"user.fusefs.oid": described.oid.encode()} if row == ROOT_ROW else {}
            if tree.parent[row] == ROOT_ROW and row != ROOT_ROW:
                expected = {f"{overlay}opaque": b"y"}
            assert attributes == expected
            stack += [(child, path + b"/" + tree.name(child)) for child in children]
        elif tree.is_symlink(row):
            assert os.readlink(path) == TARGET  # noqa: PTH115
        else:
            oid = tree.oid(row)
            executable = bool(tree.flags[row] & 2)
            assert stat.S_IMODE(status.st_mode) == (0o777 if executable else 0o666) & ~look.umask
            assert status.st_size == described.sizes[row]
            assert status.st_nlink == 1
            assert attributes == {
                f"{overlay}metacopy": b"",
                f"{overlay}redirect": b"/" + object_path(oid).encode(),
                "user.fusefs.oid": str(oid).encode(),
            }
    assert len(inodes) == tree.rows


@needs_root
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(leaves, st.booleans(), st.sampled_from([0, 0o022, 0o077]))
def test_an_image_shows_the_tree(
    tmp_path_factory: pytest.TempPathFactory,
    listed: list[tuple[bytes, str, str, int]],
    in_namespace: bool,
    umask: int,
) -> None:
    above = {path[:at] for path, *_ in listed for at, byte in enumerate(path) if byte == 0x2F}
    chosen = {path: (kind, name, size) for path, name, kind, size in listed if path not in above}
    made = [
        leaf(path, number, name, kind, size)
        for number, (path, (kind, name, size)) in enumerate(chosen.items())
    ]
    directory = tmp_path_factory.mktemp("image")
    described = describe(directory, made, Look(1, 100_000, umask, in_namespace))
    write_image(described, directory / "image")
    check(directory / "image")
    with mounted(directory / "image") as root:
        compare(described, root)


@needs_root
@pytest.mark.parametrize("longest", [1, 17, 255])
@pytest.mark.parametrize("files", [0, 1, 15, 300, 2000])
def test_directories_of_many_blocks(tmp_path: Path, files: int, longest: int) -> None:
    """Names before and after the dots, of every length, so that blocks end everywhere."""
    first = [b"!", b"-", b".", b"0", b"~"]
    made = [
        (b"d/" + first[n % 5] + b"%d-" % n).ljust(2 + min(255, max(6, n * 7 % (longest + 1))), b"x")
        for n in range(files)
    ]
    described = describe(tmp_path, [leaf(path, n) for n, path in enumerate(made)])
    write_image(described, tmp_path / "image")
    check(tmp_path / "image")
    with mounted(tmp_path / "image") as root:
        compare(described, root)
        if files:
            assert not (root / "d" / "not there").exists()


@needs_root
def test_bytes_are_not_read_from_an_image(tmp_path: Path) -> None:
    """An overlay has them from elsewhere; without one there is an error, and no zeros."""
    write_image(describe(tmp_path, [leaf(b"f", 1)]), tmp_path / "image")
    check(tmp_path / "image")
    with mounted(tmp_path / "image") as root, pytest.raises(OSError, match="Input/output"):
        (root / "f").read_bytes()


def test_equal_trees_have_equal_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_image(describe(tmp_path / name, [leaf(b"x/y", 1), leaf(b"z", 2)]), tmp_path / name / "image")
        check(tmp_path / name / "image")
    assert (tmp_path / "a/image").read_bytes() == (tmp_path / "b/image").read_bytes()
    assert stat.S_IMODE((tmp_path / "a/image").stat().st_mode) == 0o600


def test_damage_is_noticed(tmp_path: Path) -> None:
    image = tmp_path / "image"
    write_image(describe(tmp_path, [leaf(b"x/y", 1), leaf(b"z", 2)]), image)
    os.close(open_image(image))
    check(image)
    whole = image.read_bytes()
    for place in (0, 1024, 4096, len(whole) // 2, len(whole) - 600, len(whole) - 512, len(whole) - 1):
        image.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ImageDamaged):
            open_image(image)
    for length in (0, 511, 512, len(whole) - 1):
        image.write_bytes(whole[:length])
        with pytest.raises(ImageDamaged):
            open_image(image)


def test_what_an_image_cannot_show_is_refused(tmp_path: Path) -> None:
    described = describe(tmp_path, [leaf(b"vast", 1, size=LARGEST_FILE)])
    with pytest.raises(StoreError, match="more than one can show"):
        write_image(described, tmp_path / "image")


def test_sizes_must_be_known(tmp_path: Path) -> None:
    described = describe(tmp_path, [leaf(b"known", 1), leaf(b"unknown", 2, size=UNKNOWN)])
    with pytest.raises(StoreError, match="sizes of 1 files"):
        write_image(described, tmp_path / "image")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.tree"]
