"""The kernel's settings of a connection, where fusectl is mounted and where it is not."""

from __future__ import annotations

import os

import pytest

from fusefs import fuse_control
from fusefs.kernel_mount import MAX_BACKGROUND
from tests.mount.datasets import Cache, entries_of
from tests.mount.mounts import Mounter

pytestmark = pytest.mark.fuse


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set them")
@pytest.mark.modes("fuse")  # what is mounted there is no FUSE in native mode
def test_more_reads_are_sent_at_once_also_where_fusectl_is_not_mounted(
    mounter: Mounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(mounter.home / "objects")
    cache.put(b"a")
    mount = mounter.mount(cache.put_manifest(entries_of({"a": b"a"})), "--cache", cache.root)
    minor = os.minor(mount.path.stat().st_dev)
    monkeypatch.setattr(fuse_control, "CONNECTIONS", str(mounter.home / "nothing"))
    with fuse_control.connection_directory(str(minor)) as directory:
        found = os.open("max_background", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        with open(found) as file:
            assert int(file.read()) == MAX_BACKGROUND
