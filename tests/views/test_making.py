"""What a mount tells of what it makes: in its metrics, its status, and to people."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.mount.mounts import Mount, Mounter
from tests.patience import until
from tests.store.media.videos import Videos

pytestmark = pytest.mark.fuse

SECONDS = 30.0


def figures(mount: Mount) -> dict[str, float]:
    text = (mount.path / ".fusefs/metrics").read_text()
    return {
        sample.name.removeprefix("fusefs_").removesuffix("_total"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "product" in sample.name or "maker" in sample.name
    }


def test_what_is_made_is_told(mounter: Mounter, videos: Videos) -> None:
    video = videos.path("constant").read_bytes()
    mount = mounter.mount_files({"good.mp4": video, "half.mp4": video[: len(video) // 20]})
    frames = mount.path / ".fusefs/frames"
    assert figures(mount) == {}
    assert mount.status()["making"] is None
    assert "making" not in mounter.run("status", mount.path).stdout
    assert (frames / "png/good.mp4/000000.png").read_bytes()
    with pytest.raises(OSError):
        (frames / "png/half.mp4/000000.png").read_bytes()

    def is_settled() -> bool:
        found = figures(mount)
        return found["kept_products"] == 2 and not found["makers_busy"]

    until(is_settled, lambda: str(figures(mount)))
    found = figures(mount)
    assert found["made_products"] == found["kept_products"] == 2  # an index, and a chunk of frames
    assert found["failed_products"] == 1
    assert found["found_products"] == found["makers_waiting"] == 0
    assert 1 <= found["makers"] <= found["makers_limit"]
    kept = sum(place.stat().st_size for place in mounter.home.glob("cache-*/fusefs/derived/*/*"))
    assert found["kept_product_bytes"] == kept > 0
    told = mount.status()["making"]
    assert (told["made"], told["failed"], told["kept"], told["kept_bytes"]) == (2, 1, 2, kept)
    shown = mounter.run("status", mount.path).stdout
    assert "2 products made, 1 failed, 2 kept" in shown
