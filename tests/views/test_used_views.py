"""Which views a cache has products of: noted by whoever shows or makes them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from store.making.used_views import MOST_BYTES, note_view, noted_views
from tests.mount.datasets import Cache
from tests.mount.mounts import COMMAND, Mounter
from tests.store.media.videos import Videos


def test_each_view_is_noted_once(tmp_path: Path) -> None:
    assert noted_views(tmp_path) == []
    for view in ("frames:jpg", "chunks:auto", "frames:jpg"):
        note_view(tmp_path, view)
    assert noted_views(tmp_path) == ["chunks:auto", "frames:jpg"]
    assert (tmp_path / "fusefs/views").read_bytes() == b"frames:jpg\nchunks:auto\n"


def test_the_list_is_bounded(tmp_path: Path) -> None:
    for number in range(MOST_BYTES // 30):
        note_view(tmp_path, f"frames:jpg,start={number:<040d}")
    assert (tmp_path / "fusefs/views").stat().st_size <= MOST_BYTES
    assert len(noted_views(tmp_path)) > 1000


def test_a_cache_that_takes_nothing_is_left_alone(tmp_path: Path) -> None:
    note_view(tmp_path / "nowhere", "frames:jpg")
    assert not (tmp_path / "nowhere").exists()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "fusefs").mkdir()
    (tmp_path / "fusefs/views").symlink_to(victim)
    note_view(tmp_path, "frames:jpg")
    assert victim.read_text() == "precious"


@pytest.mark.fuse
def test_what_a_mount_made_is_told_of(mounter: Mounter, videos: Videos) -> None:
    cache = mounter.home / "objects"
    oid = Cache(cache).put_dataset({"a.mp4": videos.path("b-frames").read_bytes()})
    mount = mounter.mount(oid, "--cache", cache)
    frames = mount.path / ".fusefs/frames/png,scale=8x8/a.mp4"
    for number in range(100):
        assert (frames / f"{number:06d}.png").read_bytes()
    mount.umount()
    told = subprocess.run(
        [*COMMAND, "media", "--cache", cache, oid, "--json"],
        env=mounter.environment,
        capture_output=True,
        timeout=60,
        check=True,
    )
    (video,) = json.loads(told.stdout)
    made = video["made"]["frames:png,scale=8x8"]
    assert made["here"] == made["of"] >= 1
