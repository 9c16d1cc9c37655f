"""An image of names by itself: made for a daemon, and mounted without a name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from fusefs.mountinfo import read_mounts
from fusefs.native.image_mount import mount_by_loop, mount_file
from fusefs.native.image_process import answer
from store.erofs.look import Look
from store.erofs.shelf import open_image
from store.tree import Tree
from store.tree_compiler import Leaf, compile_tree, leaf_flags, write_tree
from tests.mount.datasets import Cache, md5
from tests.store.erofs.test_image import check

FILES = {b"a": b"first", b"sub/b": b"second"}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    cache = Cache(tmp_path / "objects")
    for data in FILES.values():
        cache.put(data)
    return cache


def make_image(directory: Path, cache: Cache, *, longer: int = 0) -> dict[str, str]:
    """What comes of having an image made that tells sizes which are so much longer."""
    path = directory / "names.tree"
    leaves = [Leaf(name, bytes.fromhex(md5(data)), len(data), leaf_flags()) for name, data in FILES.items()]
    write_tree(compile_tree(leaves, "it"), path)
    sizes = np.array(Tree.open(path).size, np.int64)
    sizes[sizes > 0] += longer
    descriptor = os.memfd_create("sizes")
    try:
        os.write(descriptor, sizes.tobytes())
        look = asdict(Look(os.geteuid(), os.getegid()))
        question = {"tree": str(path), "oid": "", "look": look, "caches": [str(cache.root)]}
        said = answer({**question, "sizes": descriptor})
    finally:
        os.close(descriptor)
    if "image" in said:
        check(Path(said["image"]))
    return said


@pytest.mark.root
@pytest.mark.parametrize("mount", [mount_file, mount_by_loop])
def test_an_image_is_mounted_without_a_name(
    tmp_path: Path, cache: Cache, mount: Callable[[int], int]
) -> None:
    image = open_image(Path(make_image(tmp_path, cache)["image"]))
    try:
        mounted = mount(image)
    finally:
        os.close(image)
    root = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mounted)
    try:
        assert sorted(os.listdir(root)) == ["a", "sub"]  # noqa: PTH208  # it has no path
        assert os.stat("sub/b", dir_fd=root).st_size == len(FILES[b"sub/b"])
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("new", dir_fd=root)
        assert os.fstat(root).st_dev not in {one.st_dev for one in read_mounts()}
    finally:
        os.close(root)
        os.close(mounted)


def test_an_image_is_made_once(tmp_path: Path, cache: Cache) -> None:
    image = Path(make_image(tmp_path, cache)["image"])
    made = image.stat()
    assert make_image(tmp_path, cache) == {"image": str(image)}
    assert os.path.samestat(image.stat(), made)
    image.write_bytes(image.read_bytes()[:-1])
    assert make_image(tmp_path, cache) == {"image": str(image)}
    os.close(open_image(image))


def test_no_image_is_made_that_tells_another_length(tmp_path: Path, cache: Cache) -> None:
    said = make_image(tmp_path, cache, longer=1)
    assert list(said) == ["error"]
    assert "bytes, not" in said["error"]
    assert [path.suffix for path in tmp_path.iterdir() if path.is_file()] == [".tree"]
