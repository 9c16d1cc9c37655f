"""mountinfo as text: escapes, stacks, and paths that are resolved without a look into a mount."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fusefs.mountinfo import (
    Mount,
    mount_at,
    mount_containing,
    parse_mountinfo,
    read_mounts,
    resolve,
    visible_mounts,
)


def mounted(mount_id: int, mountpoint: str, parent_id: int = 1, fstype: str = "fuse.fusefs") -> Mount:
    return Mount(mount_id, parent_id, f"0:{mount_id}", mountpoint, fstype, "source")


def test_a_line_is_unescaped() -> None:
    line = (
        rb"36 35 98:0 / /mnt/a\040b\012c\134 ro,noatime master:1 propagate_from:2 - fuse.fusefs s\040d ro"
        + b"\n"
    )
    assert parse_mountinfo(line) == [Mount(36, 35, "98:0", "/mnt/a b\nc\\", "fuse.fusefs", "s d")]


def test_bytes_that_are_not_utf8_survive() -> None:
    (mount,) = parse_mountinfo(b"1 0 0:5 / /\xff ro - ext4 /dev/\xfe rw\n")
    assert os.fsencode(mount.mountpoint) == b"/\xff"
    assert mount.st_dev == os.makedev(0, 5)


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (rb"fuse.fusefs data.dvc ro", "data.dvc"),
        (rb"overlay data.dvc ro,lowerdir+=/tree,datadir+=/c,datadir+=/fusefs-fetch", "data.dvc"),
        (rb"overlay fusefs:d rw,lowerdir+=/tree,datadir+=/fusefs-fetch,metacopy=on", "fusefs:d"),
        (rb"overlay fusefs:data.dvc ro,lowerdir+=/proc/self/fd/7", "data.dvc"),
        (rb"overlay overlay rw,lowerdir=/fusefs-fetch", None),
        (rb"overlay overlay rw,datadir+=/fusefs-fetch\040x,upperdir=/a", None),
        (rb"tmpfs fusefs:data.dvc rw,datadir+=/fusefs-fetch", None),
    ],
)
def test_ours_are_told_from_others(kind: bytes, target: str | None) -> None:
    """By the type, or by the last layer of an overlay; before Linux 6.13 by a word in front of its source."""
    (mount,) = parse_mountinfo(b"1 0 0:5 / /mnt ro - %b\n" % kind)
    assert mount.is_ours == (target is not None)
    assert target in (None, mount.target)


def test_this_machines_own_can_be_read() -> None:
    mounts = read_mounts()
    root = mount_at("/", mounts)
    assert root is not None
    assert root.st_dev == Path("/").stat().st_dev


def test_the_top_of_a_stack_counts() -> None:
    bottom, top = mounted(10, "/a"), mounted(11, "/a", parent_id=10)
    assert mount_at("/a", [bottom, top]) == top
    # A mount that was slid beneath comes later in the file.
    assert mount_at("/a", [top, bottom]) == top
    assert visible_mounts([bottom, top]) == [top]
    assert visible_mounts([bottom, mounted(12, "/a", parent_id=10, fstype="tmpfs")]) == []


def test_the_mount_that_holds_a_path() -> None:
    mounts = [mounted(1, "/", fstype="ext4"), mounted(2, "/a/b")]
    assert mount_containing("/a/b/c/d", mounts) == mounts[1]
    assert mount_containing("/a/b", mounts) == mounts[1]
    assert mount_containing("/a/bc", mounts) is None


def test_links_are_followed_up_to_a_mount(tmp_path: Path) -> None:
    real = tmp_path.resolve()
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d/../d")
    mounts = [mounted(2, str(real / "d"))]
    assert resolve(str(tmp_path / "link"), mounts) == str(real / "d")
    assert resolve(f"{tmp_path}/link/x/../y", mounts) == str(real / "d/y")
    assert resolve(f"{tmp_path}//./d/../nothing", []) == str(real / "nothing")


def test_links_that_never_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        resolve(str(tmp_path / "a"), [])
