"""What a lazy mount tells of its remotes: what came, how calls ended, and what failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.lazy.asked import asked_again
from tests.lazy.conftest import Pushed
from tests.mount.datasets import Cache, md5
from tests.mount.mounts import Mounter

pytestmark = pytest.mark.fuse

LARGE = 24 << 20


class Scraped:
    """The samples of `.fusefs/metrics` at one moment."""

    def __init__(self, mountpoint: Path) -> None:
        text = (mountpoint / ".fusefs" / "metrics").read_text()
        self._samples = [s for family in text_string_to_metric_families(text) for s in family.samples]

    def sum(self, name: str, **labels: str) -> float:
        """Of all samples that have these labels."""
        return sum(s.value for s in self._samples if s.name == name and labels.items() <= s.labels.items())


def test_what_comes_from_a_remote_is_counted_once(pushed: Pushed, mounter: Mounter) -> None:
    mount = mounter.mount("data.dvc", cwd=pushed.root)
    before = Scraped(mount.path)
    assert before.sum("fusefs_fetched_bytes_total") == 0
    for path, data in pushed.files.items():
        assert (mount.path / path).read_bytes() == data
    size = sum(map(len, pushed.files.values()))
    for _ in range(2):
        after = Scraped(mount.path)
        again = asked_again(mount)  # on a busy machine even a directory may take long
        come = after.sum("fusefs_fetched_bytes_total", remote="near")
        assert come == size or (again and come > size)
        assert after.sum("fusefs_fetched_objects_total", remote="near") == len(pushed.files)
        assert after.sum("fusefs_cache_misses_total") >= len(pushed.files)
        calls = {"remote": "near", "kind": "bytes"}
        asked = after.sum("fusefs_remote_call_seconds_count", **calls)
        assert len(pushed.files) <= asked <= len(pushed.files) + again
        assert after.sum("fusefs_remote_call_seconds_count", outcome="ok", **calls) == asked
        assert after.sum("fusefs_remote_breaker", remote="near", state="closed") == 1
        assert after.sum("fusefs_flights") == 0
        assert mount.status()["bytes_remote"] == come
        for path in pushed.files:
            (mount.path / path).read_bytes()  # again: from here


def test_a_piece_of_a_large_object_counts_as_what_came(mounter: Mounter) -> None:
    remote = Cache(mounter.home / "remote")
    data = b"0123456789abcdef" * (LARGE // 16)
    target = remote.put_dataset({"large": data})
    mount = mounter.mount(target, "--cache", mounter.home / "cache", "--remote", remote.root)
    with (mount.path / "large").open("rb", buffering=0) as file:
        file.seek(LARGE // 2)
        assert file.read(16) == data[:16]
    assert 16 <= Scraped(mount.path).sum("fusefs_fetched_bytes_total") < LARGE


def test_a_remote_without_the_object_is_told_of(pushed: Pushed, mounter: Mounter) -> None:
    pushed.object(pushed.remote, md5(pushed.files["a.txt"])).unlink()
    mount = mounter.mount("data.dvc", cwd=pushed.root)
    with pytest.raises(OSError, match="Input/output error"):
        (mount.path / "a.txt").read_bytes()
    after = Scraped(mount.path)
    assert after.sum("fusefs_remote_call_seconds_count", remote="near", outcome="missing") > 0
    assert after.sum("fusefs_remote_call_seconds_count", kind="bytes", outcome="ok") == 0
    assert after.sum("fusefs_fetched_bytes_total") == 0
    assert after.sum("fusefs_request_errors_total") > 0
