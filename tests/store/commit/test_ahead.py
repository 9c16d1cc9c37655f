"""`open_ahead`: which files are open before it is their turn, and what is left of them."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from store.commit.ahead import open_ahead
from store.commit.scan import Found, scan
from store.errors import ChangedMeanwhile
from tests.descriptors import open_below
from tests.patience import until

MIB = 1 << 20


def test_files_come_open_and_in_order(tmp_path: Path) -> None:
    files = _files(tmp_path, 10)
    come = []
    for found, path, descriptor in open_ahead(str(tmp_path), files, 3, lambda: True):
        assert os.read(descriptor, 100) == Path(path).read_bytes()
        os.close(descriptor)
        come.append(found)
    assert come == files
    assert open_below(tmp_path) == []


@pytest.mark.parametrize(("size", "most", "open_files"), [(0, 3, 4), (4 * MIB, 100, 9), (3, 1, 2)])
def test_only_so_many_are_open(size: int, most: int, open_files: int, tmp_path: Path) -> None:
    files = _files(tmp_path, 20, size)
    with closing(open_ahead(str(tmp_path), files, most, lambda: False)) as sources:
        first = next(sources)
        assert len(open_below(tmp_path)) == open_files
        os.close(first.descriptor)
    assert open_below(tmp_path) == []


def test_a_file_that_is_gone_leaves_none_open(tmp_path: Path) -> None:
    files = _files(tmp_path, 5)
    (tmp_path / files[3].relpath).unlink()
    with pytest.raises(ChangedMeanwhile, match=files[3].relpath):
        next(open_ahead(str(tmp_path), files, 10, lambda: True))
    assert open_below(tmp_path) == []


def test_the_disk_is_asked_for_what_comes_next(tmp_path: Path) -> None:
    for name in ("0.bin", "1.bin"):
        (tmp_path / name).write_bytes(os.urandom(100_000))
    files = _scan(tmp_path)
    second = tmp_path / files[1].relpath
    with second.open("r+b") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if _is_in_memory(file.fileno()):
            pytest.skip("the file system keeps all in memory: nothing can be asked for ahead")
        with closing(open_ahead(str(tmp_path), files, 1, lambda: True)) as sources:
            os.close(next(sources).descriptor)
            until(lambda: _is_in_memory(file.fileno()), "the second file is read")


def test_files_of_a_directory_come_by_inode(tmp_path: Path) -> None:
    inodes = [found.inode for found in _files(tmp_path, 50)]
    assert inodes == sorted(inodes)


def _files(folder: Path, count: int, size: int = 3) -> list[Found]:
    for number in range(count):
        with (folder / f"{number}.bin").open("wb") as file:
            file.truncate(size)
    return _scan(folder)


def _scan(folder: Path) -> list[Found]:
    return scan(str(folder), lambda path, is_directory: False)


def _is_in_memory(descriptor: int) -> bool:
    try:
        return os.preadv(descriptor, [bytearray(1)], 99_999, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
