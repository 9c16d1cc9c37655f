"""What `stat` says: inodes, links, blocks, times, owners, modes; the same in every mount of a version."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.datasets import varied_files
from tests.mount.mounts import Mounter

pytestmark = [pytest.mark.fuse, pytest.mark.modes("fuse", "native")]

FILES = varied_files()
YEAR_2000 = 946_684_800
YEAR_2018 = 1_514_764_800


@pytest.fixture(scope="module")
def root(shared_mounter: Mounter) -> Path:
    return shared_mounter.mount_files(FILES).path


def walk(directory: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from walk(Path(entry.path))


def described(root: Path) -> dict[str, tuple[int, ...]]:
    """Everything that `stat` has, by path."""
    found = {}
    for entry in walk(root):
        s = entry.stat(follow_symlinks=False)
        found[os.path.relpath(entry.path, root)] = (
            s.st_ino,
            s.st_mode,
            s.st_nlink,
            s.st_size,
            s.st_blocks,
            s.st_mtime_ns,
        )
    return found


def test_two_mounts_of_a_version_are_the_same(shared_mounter: Mounter, root: Path) -> None:
    assert described(shared_mounter.mount_files(FILES).path) == described(root)


def test_a_listing_agrees_with_stat(root: Path) -> None:
    inodes = {root.stat().st_ino}
    for entry in walk(root):
        status = os.lstat(entry.path)
        assert entry.inode() == status.st_ino
        assert entry.is_dir(follow_symlinks=False) == stat.S_ISDIR(status.st_mode)
        assert entry.is_file(follow_symlinks=False) == stat.S_ISREG(status.st_mode)
        assert status.st_ino not in inodes
        inodes.add(status.st_ino)


def test_dot_and_dot_dot_are_the_directories_they_name(root: Path) -> None:
    below = root / "copies" / "below"
    assert os.stat(below / ".").st_ino == below.stat().st_ino
    assert os.stat(below / "..").st_ino == (root / "copies").stat().st_ino
    assert os.stat(root / "..").st_dev == root.parent.stat().st_dev


def test_a_directory_has_two_links_and_one_for_each_below(root: Path) -> None:
    for here, directories, _ in os.walk(root):
        assert os.stat(here).st_nlink == 2 + len(directories)


def test_files_have_one_link_and_whole_blocks(root: Path, mode: str) -> None:
    for path, data in FILES.items():
        status = (root / path).stat()
        assert status.st_nlink == 1
        assert status.st_size == len(data)
        unit = 512 if mode == "fuse" else 4096
        assert status.st_blocks * 512 == -(-len(data) // unit) * unit
        assert status.st_blksize >= 4096


def test_everything_is_on_one_device_of_its_own(root: Path) -> None:
    device = root.stat().st_dev
    assert device != root.parent.stat().st_dev
    assert {entry.stat().st_dev for entry in walk(root)} == {device}


def test_times_come_from_the_content(root: Path) -> None:
    status = {path: (root / path).stat() for path in FILES}
    for one in status.values():
        assert one.st_mtime_ns == one.st_ctime_ns == one.st_atime_ns
        assert YEAR_2000 <= one.st_mtime < YEAR_2018
        assert one.st_mtime_ns % 10**9 == 0
    copies = {status[path].st_mtime_ns for path in ("copies/one", "copies/two", "copies/below/three")}
    assert len(copies) == 1
    flat = [status[path].st_mtime_ns for path in FILES if path.startswith("flat/")]
    assert len(set(flat)) == len(flat)


def test_a_change_gives_another_time_to_what_holds_it_and_to_nothing_else(
    shared_mounter: Mounter, root: Path
) -> None:
    changed = {**FILES, "copies/below/three": b"no longer a copy"}
    new = shared_mounter.mount_files(changed).path
    old_times = {path: (root / path).stat().st_mtime_ns for path in [".", *described(root)]}
    new_times = {path: (new / path).stat().st_mtime_ns for path in old_times}
    differ = {path for path in old_times if old_times[path] != new_times[path]}
    assert differ == {".", "copies", "copies/below", "copies/below/three"}


def test_reading_does_not_change_times(root: Path) -> None:
    before = (root / "text.txt").stat()
    (root / "text.txt").read_bytes()
    os.listdir(root)
    assert (root / "text.txt").stat() == before


def test_who_mounts_owns(root: Path, mode: str) -> None:
    at_root = 0o755 if mode == "fuse" else 0o700  # what keeps others out
    for path, bits in ((".", at_root), ("deep", 0o755), ("text.txt", 0o644)):
        status = (root / path).stat()
        assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
        assert stat.S_IMODE(status.st_mode) == bits


def test_owner_group_and_umask_can_be_chosen(mounter: Mounter) -> None:
    files = {"below/file": b"1"}
    flags = ("--uid", "1234", "--gid", "4321", "--umask", "027", "--allow-other")
    by_flags = mounter.mount_files(files, *flags).path
    by_options = mounter.mount_files(files, "-o", "uid=1234,gid=4321,umask=027,allow_other").path
    for root in (by_flags, by_options):
        for path, mode in ((".", 0o750), ("below", 0o750), ("below/file", 0o640)):
            status = (root / path).stat()
            assert (status.st_uid, status.st_gid) == (1234, 4321)
            assert stat.S_IMODE(status.st_mode) == mode


def test_access_is_what_the_modes_say(root: Path) -> None:
    assert os.access(root / "text.txt", os.R_OK)
    assert not os.access(root / "text.txt", os.W_OK)
    assert not os.access(root / "text.txt", os.X_OK)
    assert os.access(root / "deep", os.R_OK | os.X_OK)
    assert not os.access(root / "deep", os.W_OK)


def test_statvfs(root: Path) -> None:
    status = os.statvfs(root)
    assert status.f_flag & os.ST_RDONLY
    assert status.f_flag & os.ST_NOSUID
    assert status.f_flag & os.ST_NODEV
    assert status.f_namemax == 255
    assert (status.f_bfree, status.f_bavail, status.f_ffree) == (0, 0, 0)
    assert os.statvfs(root / "text.txt").f_fsid == status.f_fsid


def test_a_version_without_files(mounter: Mounter) -> None:
    root = mounter.mount_files({}).path
    assert os.listdir(root) == []
    assert root.stat().st_nlink == 2
    assert os.statvfs(root).f_blocks == 0
