"""What the kernel finds in directories that it was given as layers, as `CacheLayers` tells it."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from store.cache_layers import CacheLayers
from store.layouts import object_path
from store.oid import Oid
from store.tree import UNKNOWN
from tests.patience import until


def put(root: Path, data: bytes) -> Oid:
    oid = Oid(hashlib.md5(data, usedforsecurity=False).hexdigest())
    place = root / object_path(oid)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return oid


def tried(layers: CacheLayers, *oids: Oid) -> list[int] | None:
    """The lengths without a wait; None where the kernel would have to wait. It may have forgotten the names
    that it has seen, or have something mounted at this moment, anywhere."""
    try:
        return [layers.try_length(oid) for oid in oids]
    except BlockingIOError:
        for oid in oids:
            layers.length(oid)
        return None


def test_the_first_layer_that_has_it_tells(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    oid = put(first, b"12345")
    (first / object_path(oid)).write_bytes(b"123")
    assert put(second, b"12345") == oid
    other = put(second, b"1")
    layers = CacheLayers([first, second])
    assert [layers.length(one) for one in (oid, other)] == [3, 1]
    until(lambda: tried(layers, oid) == [3])
    layers.close()


def test_memory_is_asked_last_and_at_once(tmp_path: Path) -> None:
    """It remembers no names that are missing, so what answers from the kernel's memory would not know."""
    disk, memory = tmp_path / "disk", Path("/dev/shm") / f"fusefs-{tmp_path.name}-{os.getpid()}"
    oid, other = put(disk, b"12345"), put(disk, b"1")
    memory.mkdir()
    descriptor = os.open(memory, os.O_PATH)
    try:
        layers = CacheLayers([disk], descriptor)
        put(memory, b"12345")
        (memory / object_path(oid)).write_bytes(b"123")
        fresh = put(memory, b"fresh")
        gone = Oid("ff" * 16)
        assert [layers.length(one) for one in (oid, other, fresh, gone)] == [5, 1, 5, UNKNOWN]
        until(lambda: tried(layers, oid, other, fresh, gone) == [5, 1, 5, UNKNOWN])
        layers.close()
        os.fstat(descriptor)  # is not the layers' to close
    finally:
        os.close(descriptor)
        shutil.rmtree(memory)


def test_what_comes_later_is_found_and_another_directory_is_not(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    layers = CacheLayers([root])
    oid = put(root, b"later")
    assert layers.length(oid) == 5
    root.rename(tmp_path / "moved")
    put(root, b"later")
    assert layers.length(oid) == 5
    shutil.rmtree(tmp_path / "moved")
    assert layers.length(oid) == UNKNOWN
    layers.close()


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "link above"])
def test_what_is_no_regular_file_beneath_is_not_found(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "cache"
    oid = put(root, b"object")
    place = root / object_path(oid)
    if kind == "link above":
        place.parent.rename(tmp_path / "elsewhere")
        place.parent.symlink_to(tmp_path / "elsewhere")
    else:
        place.rename(tmp_path / "elsewhere")
        if kind == "link":
            place.symlink_to(tmp_path / "elsewhere")
        elif kind == "directory":
            place.mkdir()
        else:
            os.mkfifo(place)
    layers = CacheLayers([root])
    assert layers.length(oid) == UNKNOWN
    layers.close()


def test_a_layer_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CacheLayers([tmp_path, tmp_path / "missing"])
