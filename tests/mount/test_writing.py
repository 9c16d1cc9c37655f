"""Every way to change something is refused with EROFS, and changes nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.datasets import tree_of
from tests.mount.mounts import Mounter

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

FILES = {"file": b"bytes", "directory/file": b"more", "other/file": b"others"}

CHANGES: dict[str, Callable[[Path], object]] = {
    "create": lambda root: os.open(root / "new", os.O_CREAT | os.O_WRONLY),
    "create exclusively": lambda root: os.open(root / "new", os.O_CREAT | os.O_EXCL | os.O_RDWR),
    "write": lambda root: os.open(root / "file", os.O_WRONLY),
    "read and write": lambda root: os.open(root / "file", os.O_RDWR),
    "append": lambda root: os.open(root / "file", os.O_WRONLY | os.O_APPEND),
    "truncate at open": lambda root: os.open(root / "file", os.O_WRONLY | os.O_TRUNC),
    "truncate for reading": lambda root: os.open(root / "file", os.O_RDONLY | os.O_TRUNC),
    "truncate": lambda root: os.truncate(root / "file", 1),
    "unnamed file": lambda root: os.open(root, os.O_TMPFILE | os.O_RDWR),
    "unlink": lambda root: os.unlink(root / "file"),
    "mkdir": lambda root: os.mkdir(root / "new"),
    "rmdir": lambda root: os.rmdir(root / "directory"),
    "rename": lambda root: os.rename(root / "file", root / "new"),
    "rename over": lambda root: os.rename(root / "file", root / "other" / "file"),
    "rename a directory": lambda root: os.rename(root / "directory", root / "new"),
    "link": lambda root: os.link(root / "file", root / "new"),
    "symlink": lambda root: os.symlink("file", root / "new"),
    "fifo": lambda root: os.mkfifo(root / "new"),
    "chmod": lambda root: os.chmod(root / "file", 0o600),
    "chmod a directory": lambda root: os.chmod(root / "directory", 0o700),
    "chown": lambda root: os.chown(root / "file", 1, 1),
    "utime": lambda root: os.utime(root / "file"),
    "utime to a time": lambda root: os.utime(root / "file", ns=(0, 0)),
    "setxattr": lambda root: os.setxattr(root / "file", "user.mine", b"1"),
    "setxattr of ours": lambda root: os.setxattr(root / "file", "user.fusefs.cached", b"0"),
    "removexattr": lambda root: os.removexattr(root / "file", "user.fusefs.oid"),
    "control": lambda root: os.open(root / ".fusefs" / "status", os.O_WRONLY),
    "create in control": lambda root: os.open(root / ".fusefs" / "new", os.O_CREAT | os.O_WRONLY),
    "unlink control": lambda root: os.unlink(root / ".fusefs" / "status"),
}


@pytest.fixture(scope="module")
def root(shared_mounter: Mounter) -> Path:
    return shared_mounter.mount_files(FILES).path


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_nothing_can_be_changed(root: Path, change: Callable[[Path], object]) -> None:
    with pytest.raises(OSError) as caught:
        change(root)
    assert caught.value.errno == errno.EROFS
    assert tree_of(root) == FILES


def test_a_descriptor_for_reading_cannot_change_either(root: Path) -> None:
    descriptor = os.open(root / "file", os.O_RDONLY)
    try:
        for change, code in (
            (lambda: os.write(descriptor, b"x"), errno.EBADF),
            (lambda: os.pwrite(descriptor, b"x", 0), errno.EBADF),
            (lambda: os.ftruncate(descriptor, 0), errno.EINVAL),
            (lambda: os.posix_fallocate(descriptor, 0, 100), errno.EBADF),
            (lambda: os.fchmod(descriptor, 0o600), errno.EROFS),
            (lambda: os.fchown(descriptor, 1, 1), errno.EROFS),
        ):
            with pytest.raises(OSError) as caught:
                change()
            assert caught.value.errno == code
    finally:
        os.close(descriptor)
    assert tree_of(root) == FILES


def test_opening_what_is_there_with_create_reads_it(root: Path) -> None:
    descriptor = os.open(root / "file", os.O_RDONLY | os.O_CREAT)
    try:
        assert os.read(descriptor, 10) == b"bytes"
    finally:
        os.close(descriptor)
