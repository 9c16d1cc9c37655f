"""A mount finds frames on a remote that another machine has put there, and makes none."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.mount.datasets import Cache, entries_of
from tests.mount.mounts import Mounter
from tests.store.media.videos import MAKERS

pytestmark = pytest.mark.fuse

VIEW = "frames:png,scale=64x36"


def test_frames_come_from_a_remote_that_has_them(mounter: Mounter, tmp_path: Path) -> None:
    video = MAKERS["b-frames"][1]()
    here, other, remote = Cache(tmp_path / "here"), Cache(tmp_path / "other"), tmp_path / "remote"
    here.put(video)
    # Its size stands in the manifest: nothing has to be asked of who has the video.
    entries = entries_of({"a.mp4": video}, sizes=True)
    oid = here.put_manifest(entries)
    other.put_manifest(entries)
    words = ("materialize", "--cache", here.root, oid, "--view", VIEW, "--push", remote)
    done = mounter.run(*words)
    assert done.returncode == 0, done.stderr

    mounted = mounter.mount(oid, "--cache", other.root, "--remote", remote)
    frames = mounted.path / ".fusefs/frames/png,scale=64x36/a.mp4"
    made = mounter.mount(oid, "--cache", here.root).path / ".fusefs/frames/png,scale=64x36/a.mp4"
    for name in ("000000.png", "000041.png", "000099.png"):
        assert (frames / name).read_bytes() == (made / name).read_bytes()
    with pytest.raises(
        OSError
    ) as caught:  # the video itself is nowhere, so no other frames can be made of it
        (mounted.path / ".fusefs/frames/png/a.mp4/000000.png").read_bytes()
    assert caught.value.errno == errno.EIO
